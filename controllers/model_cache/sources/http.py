"""http(s)://host/path: one file from a public server, continued by Range requests where the server can."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

import aiohttp
from yarl import URL

from controllers.guard import AddressGuard, AddressRefused, GuardedResolver
from controllers.model_cache.download import READ_BYTES, Part, RemoteFile, safe_path
from controllers.model_cache.errors import FetchError, Interrupted, SourceRefused
from controllers.plans.model_volume import cached_name

MOST_REDIRECTS: Final = 5
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=30, sock_connect=10, sock_read=60)
_TRY_AGAIN: Final = (408, 425, 429)


class HttpSource:
    """A file behind one URL."""

    def __init__(self, uri: str, guard: AddressGuard) -> None:
        self._url = URL(uri)
        self._uri = uri
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None

    async def files(self) -> Sequence[RemoteFile]:
        """Asks for the first byte: unlike HEAD, every server and every signed URL answers that."""
        name = cached_name(self._uri)
        if name == ".":
            raise SourceRefused(f"{_shown(self._url)} names no file; http(s) sources end in a file name.")
        answer = await self._get({"Range": "bytes=0-0"})
        try:
            return [RemoteFile(safe_path(name), _total(answer), _version(answer))]
        finally:
            answer.close()

    async def read(self, file: RemoteFile, offset: int) -> Part:
        headers = {}
        if offset > 0 and file.version is not None:
            headers = {"Range": f"bytes={offset}-", "If-Range": file.version}
        answer = await self._get(headers)
        return Part(_start(answer), _total(answer), self._body(answer))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The answer after redirects, each of which is checked like the first address."""
        url = self._url
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._ask(url, headers)
            if answer.status not in (301, 302, 303, 307, 308):
                return _good(answer, url)
            target = answer.headers.get("Location", "")
            answer.close()
            url = _next(url, target)
        raise SourceRefused(f"{_shown(self._url)} redirects more than {MOST_REDIRECTS} times. Check spec.source.")

    async def _ask(self, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        try:
            self._guard.check_literal(url.host or "")
            return await self._open_session().get(url, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise _explain(url, error) from error

    async def _body(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in answer.content.iter_chunked(READ_BYTES):
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise _explain(answer.url, error) from error
        finally:
            answer.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=GuardedResolver(self._guard), use_dns_cache=False, limit=4)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=_TIMEOUT,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "foretide"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _good(answer: aiohttp.ClientResponse, url: URL) -> aiohttp.ClientResponse:
    if answer.status in (200, 206):
        return answer
    answer.close()
    text = f"{_shown(url)} answered {answer.status} {answer.reason or ''}".rstrip()
    if answer.status >= 500 or answer.status in _TRY_AGAIN:
        raise Interrupted(f"{text}; it is tried again.")
    raise SourceRefused(f"{text}. Check spec.source, and that the server gives the file without a login.")


def _next(url: URL, target: str) -> URL:
    try:
        new = url.join(URL(target))
    except ValueError as error:
        raise SourceRefused(f"{_shown(url)} redirects to something that is no URL. Check spec.source.") from error
    if not target or new.scheme not in ("http", "https") or (url.scheme == "https" and new.scheme != "https"):
        raise SourceRefused(f"{_shown(url)} redirects to '{_shown(new)}'; only https, or http from http, is followed.")
    return new


def _start(answer: aiohttp.ClientResponse) -> int:
    if answer.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if not found:
        answer.close()
        raise Interrupted(f"{_shown(answer.url)} answered 206 without saying which bytes; it is tried again.")
    return int(found[1])


def _total(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status == 206:
        found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    return answer.content_length


def _version(answer: aiohttp.ClientResponse) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change."""
    etag = answer.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return answer.headers.get("Last-Modified")


def _explain(url: URL, error: Exception) -> FetchError:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, AddressRefused):
        return SourceRefused(str(cause))
    if isinstance(error, TimeoutError):
        return Interrupted(f"{_shown(url)} did not answer in time; it will be continued.")
    return Interrupted(
        f"{_shown(url)}: the connection failed ({type(error).__name__}); it is tried again and continued."
    )


def _shown(url: URL) -> str:
    """Without login and query: both may be secrets, and this goes into a status."""
    return str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else str(url.path)
