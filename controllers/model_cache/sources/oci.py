"""oci://registry/repository[:tag|@digest]: the files of an artifact, each a layer whose digest the manifest names.

A layer's file name is its annotation org.opencontainers.image.title; one GGUF layer without a title is a model, too.
Credentials are those of the Docker configuration that DOCKER_CONFIG names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from oras.auth import AuthenticationException  # type: ignore[import-untyped]
from oras.container import Container  # type: ignore[import-untyped]
from oras.provider import Registry  # type: ignore[import-untyped]

from controllers.guard import AddressGuard, AddressRefused, GuardedAdapter
from controllers.model_cache.download import READ_BYTES, Part, RemoteFile, safe_path
from controllers.model_cache.errors import FetchError, Interrupted, SourceRefused, WrongContent
from controllers.model_cache.sources.blocking import Body, in_thread, pieces

TITLE: Final = "org.opencontainers.image.title"
MOST_REDIRECTS: Final = 5
MOST_MANIFEST_BYTES: Final = 4 << 20
"""What registries themselves accept."""
_SHA256: Final = r"sha256:([0-9a-f]{64})"
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
_EXPECTED: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    AuthenticationException,
    ValueError,
    OSError,
)


class OciSource:
    """One artifact."""

    def __init__(self, uri: str, guard: AddressGuard, insecure: frozenset[str]) -> None:
        self._uri = uri
        self._guard = guard
        parts = urlsplit(uri)
        self._host = parts.netloc
        self._container = Container(f"{parts.netloc}{parts.path}")
        if self._container.registry != parts.netloc:
            raise SourceRefused(f"'{parts.netloc}' in {uri} is no registry: write its host name with a dot or a port.")
        if self._container.digest is not None and not re.fullmatch(_SHA256, self._container.digest):
            raise SourceRefused(f"{uri} names a manifest by a digest that cannot be checked; use its sha256.")
        self._registry = _Once(insecure=parts.netloc in insecure)
        self._registry.session.max_redirects = MOST_REDIRECTS
        self._registry.session.hooks["response"].append(_close_refusal)
        for scheme in ("http://", "https://"):
            self._registry.session.mount(scheme, GuardedAdapter(guard))

    async def files(self) -> Sequence[RemoteFile]:
        manifest = await in_thread(self._manifest, self._explain, *_EXPECTED)
        if "manifests" in manifest:
            raise SourceRefused(f"{self._uri} is an index of several manifests; name one by its digest.")
        layers = manifest.get("layers") or []
        files = [_remote(layer) for layer in layers if _file_name(layer)]
        if not files:
            kinds = sorted({str(layer.get("mediaType")) for layer in layers})
            raise SourceRefused(
                f"{self._uri} has no layer that is a file (found {', '.join(kinds) or 'none'})."
                " Push the weights with: oras push"
            )
        return files

    async def read(self, file: RemoteFile, offset: int) -> Part:
        answer = await in_thread(lambda: self._get(file, offset), self._explain, *_EXPECTED)
        start = offset if answer.status_code == 206 else 0
        return Part(start, file.size_bytes, pieces(Body(answer.raw), READ_BYTES, self._explain, *_EXPECTED))

    async def close(self) -> None:
        self._registry.session.close()

    def _manifest(self) -> Mapping[str, Any]:
        # Refused before anything is tried, so that the sentence is the guard's and not a library's.
        parts = urlsplit(self._uri)
        self._guard.resolve(parts.hostname or "", parts.port or 443)
        self._registry.auth.load_configs(self._container)
        with self._ask(self._container.manifest_url(), {"Accept": ", ".join(_MANIFESTS)}) as answer:
            raw = answer.raw.read(MOST_MANIFEST_BYTES + 1, decode_content=True)
        found = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if self._container.digest not in (None, found):
            raise WrongContent(f"{self._uri}: the registry gave a manifest whose digest is {found}.")
        manifest = json.loads(raw) if len(raw) <= MOST_MANIFEST_BYTES else None
        if not isinstance(manifest, dict):
            raise SourceRefused(f"{self._uri} has no manifest that is a JSON object of at most 4 MiB.")
        return manifest

    def _get(self, file: RemoteFile, offset: int) -> requests.Response:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        return self._ask(self._container.get_blob_url(file.version), headers)

    def _ask(self, path: str, headers: Mapping[str, str]) -> requests.Response:
        answer = self._request(path, headers)
        if answer.status_code == 401 and self._registry.auth.token:
            # Tokens live for minutes, layers take hours; the library asks for a new one after a 403 only.
            self._registry.auth.token = None
            answer = self._request(path, headers)
        if answer.status_code not in (200, 206):
            answer.close()
            raise requests.HTTPError(response=answer)
        return answer

    def _request(self, path: str, headers: Mapping[str, str]) -> requests.Response:
        url = f"{self._registry.prefix}://{path}"
        answer: requests.Response = self._registry.do_request(url, "GET", headers=dict(headers), stream=True)
        return answer

    def _explain(self, error: Exception) -> FetchError:
        refused = _refused(error)
        if refused is not None:
            return SourceRefused(str(refused))
        answer = error.response if isinstance(error, requests.HTTPError) else None
        status = None if answer is None else answer.status_code
        if isinstance(error, AuthenticationException) or (status is not None and 400 <= status < 500 and status != 429):
            return SourceRefused(
                f"{self._uri}: the registry says no ({status or 'authentication failed'}). Check spec.source and the"
                " node agent's credentials."
            )
        found = type(error).__name__ if status is None else str(status)
        return Interrupted(f"{self._uri}: the registry did not answer as it should ({found}); it is tried again.")


class _Once(Registry):  # type: ignore[misc]
    """The library tries five times with sleeps of up to 83 s in between; the agent has its own patience."""

    def do_request(self, *args: Any, **kwargs: Any) -> Any:
        return Registry.do_request.__wrapped__(self, *args, **kwargs)


def _close_refusal(answer: requests.Response, **_: Any) -> None:
    """The library asks again after logging in and forgets the first answer, with its connection."""
    if answer.status_code in (401, 403):
        answer.close()


def _file_name(layer: Mapping[str, Any]) -> str | None:
    title = (layer.get("annotations") or {}).get(TITLE)
    if title:
        return str(title)
    return "model.gguf" if "gguf" in str(layer.get("mediaType")) else None


def _remote(layer: Mapping[str, Any]) -> RemoteFile:
    digest = str(layer["digest"])
    found = re.fullmatch(_SHA256, digest)
    if found is None:
        raise SourceRefused(f"The manifest names a layer '{digest}'; only digests of sha256 can be checked.")
    return RemoteFile(safe_path(_file_name(layer) or ""), int(layer["size"]), digest, found[1])


def _refused(error: BaseException) -> AddressRefused | None:
    """The guard's own word, however deep the libraries have wrapped it."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, AddressRefused):
            return one
        if id(one) in seen:
            continue
        seen.add(id(one))
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting += [found for found in inner if isinstance(found, BaseException)]
    return None
