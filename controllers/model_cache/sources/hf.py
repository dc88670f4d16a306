"""hf://owner/repo[@revision][/file]: from the Hugging Face Hub, or what HF_ENDPOINT names, with HF_TOKEN when set.

A branch is turned into its commit first, so all files of a copy are of one version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from controllers.model_cache.download import Part, RemoteFile, safe_path
from controllers.model_cache.errors import FetchError, Interrupted, SourceRefused
from controllers.model_cache.sources.blocking import Reader, in_thread, pieces
from controllers.plans.model_volume import cached_name
from controllers.plans.units import names_text

PIECE_BYTES: Final = 8 << 20
"""At most, one request each: large enough that the round trips do not matter."""
WANTED_SUFFIXES: Final = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""Of a whole repository: weights and what describes them; no pickled checkpoints, no pictures."""
# The bases are the errors of the HTTP library that the Hub's library happens to use in its present release.
_EXPECTED: Final = (HfHubHTTPError, HFValidationError, OSError, *HfHubHTTPError.__bases__)


class HfSource:
    """A file of a repository, or the weights of a whole one."""

    def __init__(self, uri: str, endpoint: str | None) -> None:
        self._repo, self._revision, self._file = _parsed(uri)
        self._name = cached_name(uri)
        self._endpoint = endpoint
        self._api = HfApi(endpoint=endpoint)

    async def files(self) -> Sequence[RemoteFile]:
        info = await in_thread(
            lambda: self._api.model_info(self._repo, revision=self._revision, files_metadata=True, timeout=30),
            self._explain,
            *_EXPECTED,
        )
        commit = str(info.sha)
        found = {one.rfilename: one for one in info.siblings or []}
        return [self._remote(found[name], commit) for name in self._chosen(sorted(found))]

    async def read(self, file: RemoteFile, offset: int) -> Part:
        reader = await in_thread(lambda: self._open(str(file.where), offset), self._explain, *_EXPECTED)
        return Part(offset, file.size_bytes, pieces(reader, PIECE_BYTES, self._explain, *_EXPECTED))

    async def close(self) -> None:
        """The Hub's library keeps one session for the whole process."""

    def _chosen(self, names: Sequence[str]) -> list[str]:
        if self._file is not None:
            if self._file in names:
                return [self._file]
            raise SourceRefused(f"Repository '{self._repo}' has no file '{self._file}'. Check spec.source.")
        gguf = [name for name in names if name.endswith(".gguf")]
        if any(name.endswith(".safetensors") for name in names):
            return [name for name in names if name.endswith(WANTED_SUFFIXES) and not name.startswith(".")]
        if len(gguf) == 1:
            return gguf
        if gguf:
            raise SourceRefused(
                f"Repository '{self._repo}' has {len(gguf)} GGUF files ({names_text(gguf)});"
                f" name one: hf://{self._repo}/{gguf[0]}"
            )
        raise SourceRefused(f"Repository '{self._repo}' has neither GGUF nor safetensors files. Check spec.source.")

    def _remote(self, found: Any, commit: str) -> RemoteFile:
        path = self._name if self._file is not None else found.rfilename
        sha256 = found.lfs.sha256 if found.lfs else None
        where = f"{self._repo}@{commit}/{found.rfilename}"
        return RemoteFile(safe_path(path), found.size, f"{commit}/{found.rfilename}", sha256, where)

    def _open(self, path: str, offset: int) -> Reader:
        files = HfFileSystem(endpoint=self._endpoint, skip_instance_cache=True)
        reader: Any = files.open(path, "rb", block_size=PIECE_BYTES, cache_type="none")
        reader.seek(offset)
        return reader  # type: ignore[no-any-return]

    def _explain(self, error: Exception) -> FetchError:
        if isinstance(error, GatedRepoError):
            return SourceRefused(f"Repository '{self._repo}' is gated; give the node agent a token that may read it.")
        if isinstance(error, RepositoryNotFoundError | HFValidationError | FileNotFoundError):
            return SourceRefused(
                f"Repository '{self._repo}' at '{self._revision or 'main'}' was not found, or needs a token."
                " Check spec.source and the node agent's HF_TOKEN."
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None and 400 <= status < 500 and status not in (408, 429):
            return SourceRefused(f"The Hub answered {status} for '{self._repo}'. Check spec.source.")
        return Interrupted(f"The Hub did not answer for '{self._repo}' ({type(error).__name__}); it will be continued.")


def _parsed(uri: str) -> tuple[str, str | None, str | None]:
    """Repository, revision and file."""
    parts = urlsplit(uri)
    name, _, file = unquote(parts.path).lstrip("/").partition("/")
    repo, _, revision = name.partition("@")
    return f"{parts.netloc}/{repo}", revision or None, file.rstrip("/") or None
