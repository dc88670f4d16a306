"""One module per kind of source; each speaks its protocol through the library of its field and nothing else.

A library is imported when the first Model needs it: an agent that only copies files carries none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from controllers.guard import AddressGuard
from controllers.model_cache.download import Source
from controllers.model_cache.errors import SourceRefused


@dataclass(frozen=True, slots=True)
class Access:
    """What sources may reach."""

    guard: AddressGuard
    file_roots: tuple[Path, ...] = ()
    insecure_registries: frozenset[str] = frozenset()
    """`host:port` of registries without TLS."""
    hf_endpoint: str | None = None


def open_source(uri: str, access: Access) -> Source:
    """The source of a Model's `spec.source`. Nothing is contacted yet. Raises SourceRefused."""
    make = _MAKERS.get(urlsplit(uri).scheme)
    if make is None:
        raise SourceRefused(
            f"'{uri.split(':', 1)[0]}' is no source that can be fetched; use file, http(s), hf, s3, oci."
        )
    return make(uri, access)


def _file(uri: str, access: Access) -> Source:
    from controllers.model_cache.sources.file import FileSource

    return FileSource(uri, access.file_roots)


def _http(uri: str, access: Access) -> Source:
    from controllers.model_cache.sources.http import HttpSource

    return HttpSource(uri, access.guard)


def _hf(uri: str, access: Access) -> Source:
    from controllers.model_cache.sources.hf import HfSource

    return HfSource(uri, access.hf_endpoint)


def _s3(uri: str, access: Access) -> Source:
    from controllers.model_cache.sources.s3 import S3Source

    return S3Source(uri)


def _oci(uri: str, access: Access) -> Source:
    from controllers.model_cache.sources.oci import OciSource

    return OciSource(uri, access.guard, access.insecure_registries)


_MAKERS: Mapping[str, Callable[[str, Access], Source]] = {
    "file": _file,
    "http": _http,
    "https": _http,
    "hf": _hf,
    "s3": _s3,
    "oci": _oci,
}
