"""Images in an OCI layout folder, and the part of one that a node does not have yet.

A node keeps every blob by its digest, so of an image whose last layer changed it needs that layer, its configuration
and its manifest: a few kilobytes instead of a gigabyte. Layers are never compressed; nothing here crosses a network.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
WHITEOUT = ".wh."
"""Begins the name of what a layer takes away from those below (OCI image specification, layers)."""
OPAQUE = ".opq"
"""What is left of `.wh..wh..opq`, which takes away all that a folder holds."""


@dataclass(frozen=True)
class Layout:
    """An OCI layout folder."""

    directory: Path

    def digest(self, name: str) -> str | None:
        """The manifest that `name` stands for now, if any."""
        found = self._entry(name)
        return None if found is None else str(found["digest"])

    def layers(self, name: str) -> list[str]:
        """Digests of its file systems, the lowest first."""
        return self.blobs(name)[:-2]

    def blobs(self, name: str) -> list[str]:
        """Digests of all that an image consists of, the manifest last."""
        digest = self.digest(name)
        if digest is None:
            return []
        manifest = json.loads(self.blob(digest).read_bytes())
        return [*(str(layer["digest"]) for layer in manifest["layers"]), str(manifest["config"]["digest"]), digest]

    def files(self, name: str) -> set[str]:
        """Paths of what a container of the image sees, less folders: of each layer's, what no later one takes away."""
        found: set[str] = set()
        for digest in self.layers(name):
            with tarfile.open(self.blob(digest)) as layer:
                members = {member.name.removeprefix("./").strip("/"): member.isdir() for member in layer}
            gone = {path.replace(WHITEOUT, "") for path in members if WHITEOUT in path}
            found = {path for path in found if not any(above in gone for above in _at_and_above(path))}
            found |= {path for path, folder in members.items() if not folder and WHITEOUT not in path}
        return found

    def blob(self, digest: str) -> Path:
        return self.directory / "blobs" / digest.replace(":", "/")

    def write_archive(self, out: IO[bytes], names: Iterable[str], known: set[str]) -> None:
        """A tar file for `ctr images import` that leaves out the blobs in `known`."""
        entries = [{**entry, "annotations": {CONTAINERD_NAME: name}} for name in names if (entry := self._entry(name))]
        wanted = dict.fromkeys(digest for name in names for digest in self.blobs(name))
        with tarfile.open(fileobj=out, mode="w|") as archive:
            _add(archive, "oci-layout", {"imageLayoutVersion": "1.0.0"})
            for digest in wanted:
                if digest not in known:
                    archive.add(self.blob(digest), f"blobs/{digest.replace(':', '/')}")
            _add(archive, "index.json", {"schemaVersion": 2, "manifests": entries})

    def forget_unused(self) -> None:
        """Delete the blobs of images that lost their name to a newer one."""
        if not self._index.exists():
            return
        named = [entry for entry in self._entries() if REF_NAME in entry.get("annotations", {})]
        self._index.write_text(json.dumps({"schemaVersion": 2, "manifests": named}))
        used = {self.blob(digest) for entry in named for digest in self.blobs(entry["annotations"][REF_NAME])}
        for blob in (self.directory / "blobs" / "sha256").iterdir():
            if blob not in used:
                blob.unlink()

    @property
    def _index(self) -> Path:
        return self.directory / "index.json"

    def _entries(self) -> list[dict[str, Any]]:
        if not self._index.exists():
            return []
        entries: list[dict[str, Any]] = json.loads(self._index.read_text())["manifests"]
        return entries

    def _entry(self, name: str) -> Mapping[str, Any] | None:
        named = [entry for entry in self._entries() if entry.get("annotations", {}).get(REF_NAME) == name]
        return named[-1] if named else None


def _at_and_above(path: str) -> Iterator[str]:
    """`usr/bin/sh`, `usr/bin`, `usr`; and for each folder that it lies in, the name of its opaque whiteout."""
    while path:
        yield path
        path = path.rpartition("/")[0]
        yield f"{path}/{OPAQUE}".lstrip("/")


def _add(archive: tarfile.TarFile, name: str, content: object) -> None:
    data = json.dumps(content).encode()
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
