"""Files over HTTP and from folders: whole, continued, cut, lied about, redirected."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
from pathlib import Path

import pytest

from controllers.guard import AddressGuard
from controllers.model_cache.download import Download, Fetched, Progress
from controllers.model_cache.errors import FetchError, Interrupted, NoRoom, SourceRefused, WrongContent
from controllers.model_cache.sources import Access, open_source
from tests.controllers.model_cache.files import WebServer, gguf, serving, sha256
from tests.waiting import eventually

LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])


async def fetch(
    uri: str, folder: Path, *, guard: AddressGuard = LOOPBACK, roots: tuple[Path, ...] = (), room: int = 10**9
) -> tuple[Fetched, Progress]:
    source = open_source(uri, Access(guard, roots))
    try:
        download = Download(source, await source.files(), uri, folder, lambda: room)
        return await download.run(), download.progress
    finally:
        await source.close()


async def test_a_file_comes_whole_with_its_digest(tmp_path: Path) -> None:
    content = gguf()
    async with serving(WebServer(content)) as server:
        fetched, progress = await fetch(f"{server.url}/a/m.gguf?token=1", tmp_path)
    assert fetched == Fetched(sha256(content), len(content), ("m.gguf",))
    assert (tmp_path / "m.gguf").read_bytes() == content
    assert (progress.done_bytes, progress.total_bytes) == (len(content), len(content))


async def test_a_cut_download_is_continued_by_a_range_and_the_digest_is_right(tmp_path: Path) -> None:
    content = gguf()
    async with serving(WebServer(content, cut_after_bytes=[200_000])) as server:
        with pytest.raises(Interrupted, match="continued"):
            await fetch(f"{server.url}/m.gguf", tmp_path)
        have = (tmp_path / "m.gguf").stat().st_size
        assert 0 < have <= 200_000
        fetched, progress = await fetch(f"{server.url}/m.gguf", tmp_path)
        assert server.ranges == ["bytes=0-0", None, "bytes=0-0", f"bytes={have}-"]
    assert fetched.digest == sha256(content)
    assert progress.received_bytes == len(content) - have


async def test_a_file_that_changed_in_between_is_fetched_anew(tmp_path: Path) -> None:
    async with serving(WebServer(gguf(seed=1), cut_after_bytes=[200_000])) as server:
        with pytest.raises(Interrupted):
            await fetch(f"{server.url}/m.gguf", tmp_path)
        server.content, server.etag = gguf(seed=2), '"v2"'
        fetched, _ = await fetch(f"{server.url}/m.gguf", tmp_path)
        assert server.ranges[-1] is None
    assert fetched.digest == sha256(gguf(seed=2))


@pytest.mark.parametrize("how", [{"ignores_range": True}, {"etag": None}], ids=["ignores Range", "has no version"])
async def test_a_server_that_cannot_continue_is_read_from_the_start(
    tmp_path: Path, how: dict[str, bool | None]
) -> None:
    content = gguf()
    async with serving(WebServer(content, cut_after_bytes=[200_000])) as server:
        with pytest.raises(Interrupted):
            await fetch(f"{server.url}/m.gguf", tmp_path)
        for name, value in how.items():
            setattr(server, name, value)
        fetched, progress = await fetch(f"{server.url}/m.gguf", tmp_path)
    assert fetched.digest == sha256(content)
    assert progress.done_bytes == len(content)


async def test_a_server_that_continues_somewhere_else_is_read_from_the_start_the_next_time(tmp_path: Path) -> None:
    content = gguf()
    async with serving(WebServer(content, cut_after_bytes=[200_000], continues_at=1000)) as server:
        with pytest.raises(Interrupted):
            await fetch(f"{server.url}/m.gguf", tmp_path)
        with pytest.raises(Interrupted, match=r"came from byte 1000 on where another one was asked for"):
            await fetch(f"{server.url}/m.gguf", tmp_path)
        fetched, _ = await fetch(f"{server.url}/m.gguf", tmp_path)
    assert fetched.digest == sha256(content)


async def test_bytes_of_another_source_are_never_continued(tmp_path: Path) -> None:
    async with serving(WebServer(gguf(seed=1), cut_after_bytes=[200_000])) as server:
        with pytest.raises(Interrupted):
            await fetch(f"{server.url}/one/m.gguf", tmp_path)
        server.content = gguf(seed=2)
        fetched, _ = await fetch(f"{server.url}/two/m.gguf", tmp_path)
    assert fetched.digest == sha256(gguf(seed=2))


async def test_a_server_that_promises_less_than_it_sends_is_refused_and_the_bytes_deleted(tmp_path: Path) -> None:
    async with serving(WebServer(gguf(), promise_bytes=1000)) as server:
        with pytest.raises(WrongContent, match="where the source promised 1000; it was deleted"):
            await fetch(f"{server.url}/m.gguf", tmp_path)
    assert not (tmp_path / "m.gguf").exists()


async def test_a_server_that_promises_more_than_it_sends_is_asked_again(tmp_path: Path) -> None:
    async with serving(WebServer(gguf(), promise_bytes=10**6)) as server:
        with pytest.raises(Interrupted, match=r"ended after 300 kB of 1 MB; it is continued from there"):
            await fetch(f"{server.url}/m.gguf", tmp_path)


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (404, SourceRefused, r"/m\.gguf answered 404 Not Found\. Check spec\.source"),
        (403, SourceRefused, "answered 403"),
        (500, Interrupted, "answered 500"),
        (429, Interrupted, "answered 429"),
    ],
)
async def test_an_answer_that_is_no_file_says_whether_a_person_must_act(
    tmp_path: Path, status: int, kind: type[FetchError], sentence: str
) -> None:
    async with serving(WebServer(gguf(), status=status)) as server:
        with pytest.raises(kind, match=sentence):
            await fetch(f"{server.url}/m.gguf", tmp_path)


async def test_neither_login_nor_query_shows_in_a_message(tmp_path: Path) -> None:
    async with serving(WebServer(gguf(), status=404)) as server:
        uri = server.url.replace("http://", "http://user:hunter2@")
        with pytest.raises(SourceRefused) as caught:
            await fetch(f"{uri}/m.gguf?signature=secret", tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:9/m.gguf", "http://[::1]:9/m.gguf", "http://169.254.169.254/m.gguf"]
)
async def test_a_redirect_to_a_private_address_is_refused(tmp_path: Path, target: str) -> None:
    guard = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])
    async with serving(WebServer(gguf(), redirect_to=target)) as server:
        with pytest.raises(SourceRefused, match=r"not a public address.*modelCache\.allowPrivateNetworks"):
            await fetch(f"{server.url}/m.gguf", tmp_path, guard=guard)


async def test_redirects_are_bounded_and_stay_with_http(tmp_path: Path) -> None:
    async with serving(WebServer(gguf(), redirect_to="/again/m.gguf")) as server:
        with pytest.raises(SourceRefused, match="redirects more than 5 times"):
            await fetch(f"{server.url}/m.gguf", tmp_path)
        assert len(server.ranges) == 6
        server.redirect_to = "file:///etc/passwd"
        with pytest.raises(SourceRefused, match="only https, or http from http, is followed"):
            await fetch(f"{server.url}/m.gguf", tmp_path)


async def test_loopback_is_refused_unless_it_was_allowed(tmp_path: Path) -> None:
    async with serving(WebServer(gguf())) as server:
        for uri in (server.url, server.url.replace("127.0.0.1", "localhost")):
            with pytest.raises(SourceRefused, match="not a public address"):
                await fetch(f"{uri}/m.gguf", tmp_path, guard=AddressGuard())
        assert server.ranges == []


async def test_a_server_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"http://127\.0\.0\.1:1/m\.gguf: the connection failed"):
        await fetch("http://127.0.0.1:1/m.gguf", tmp_path)


async def test_a_download_that_would_overfill_the_disk_stops_with_sizes(tmp_path: Path) -> None:
    async with serving(WebServer(gguf())) as server:
        with pytest.raises(NoRoom, match=r"no room on this node after 0 B of 300 kB; 1 kB more may be taken"):
            await fetch(f"{server.url}/m.gguf", tmp_path, room=1000)


async def test_a_download_can_be_cancelled_in_the_middle(tmp_path: Path) -> None:
    content = gguf()
    async with serving(WebServer(content, hold=asyncio.Event())) as server:
        assert server.hold is not None
        task = asyncio.create_task(fetch(f"{server.url}/m.gguf", tmp_path))
        await eventually((tmp_path / "m.gguf").exists, "the download has begun")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.hold.set()
        server.hold = None
        fetched, _ = await fetch(f"{server.url}/m.gguf", tmp_path)
    assert fetched.digest == sha256(content)


async def test_a_file_is_copied_from_an_allowed_folder_only(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    (allowed / "m.gguf").write_bytes(gguf())
    (other / "secret").write_bytes(b"s")
    (allowed / "link").symlink_to(other / "secret")
    fetched, _ = await fetch(f"file://{allowed}/m.gguf", tmp_path / "copy", roots=(allowed,))
    assert fetched.digest == sha256(gguf())
    for path in (other / "secret", allowed / "link", allowed / ".." / "other" / "secret"):
        with pytest.raises(SourceRefused, match=r"not under a folder.*modelCache\.fileRoots"):
            await fetch(f"file://{path}", tmp_path / "copy", roots=(allowed,))
    with pytest.raises(SourceRefused, match=r"\(none\)"):
        await fetch(f"file://{allowed}/m.gguf", tmp_path / "copy")
    with pytest.raises(SourceRefused, match="does not exist on this node"):
        await fetch(f"file://{allowed}/n.gguf", tmp_path / "copy", roots=(allowed,))


@pytest.mark.parametrize("what", ["link out", "other content", "pipe"])
async def test_a_file_that_was_swapped_after_the_folder_was_listed_is_not_copied(tmp_path: Path, what: str) -> None:
    secret, root = tmp_path / "token", tmp_path / "root"
    root.mkdir()
    (root / "m.gguf").write_bytes(b"GGUF")
    secret.write_bytes(b"seal")
    source = open_source(f"file://{root}", Access(AddressGuard(), (root,)))
    (file,) = await source.files()
    (root / "m.gguf").unlink()
    if what == "link out":
        (root / "m.gguf").symlink_to(secret)
    elif what == "pipe":
        os.mkfifo(root / "m.gguf")
    else:
        (root / "m.gguf").write_bytes(b"GGUF and more")
    refusal = SourceRefused if what == "link out" else Interrupted
    with pytest.raises(refusal, match=r"not under a folder|changed while it was copied"):
        await source.read(file, 0)


async def test_a_folder_lies_in_the_copy_under_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "tiny"
    (folder / "sub").mkdir(parents=True)
    files = {"tiny/a.safetensors": b"a", "tiny/sub/b.json": b"bb"}
    for name, content in files.items():
        (tmp_path / "weights" / name).write_bytes(content)
    fetched, _ = await fetch(f"file://{folder}", tmp_path / "copy", roots=(tmp_path,))
    listing = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    assert fetched == Fetched(sha256(listing.encode()), 3, tuple(sorted(files)))
    assert (tmp_path / "copy" / "tiny" / "sub" / "b.json").read_bytes() == b"bb"


async def test_what_is_hidden_in_a_folder_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    for name in ("config.json", ".gitattributes", ".cache/huggingface/download/config.json.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    fetched, _ = await fetch(f"file://{folder}", tmp_path / "copy", roots=(tmp_path,))
    assert fetched.files == ("tiny/config.json",)


async def test_a_whole_file_on_disk_is_only_hashed_again(tmp_path: Path) -> None:
    async with serving(WebServer(gguf())) as server:
        first, _ = await fetch(f"{server.url}/m.gguf", tmp_path)
        again, progress = await fetch(f"{server.url}/m.gguf", tmp_path)
        assert server.ranges == ["bytes=0-0", None, "bytes=0-0"]
    assert again == first
    assert progress.received_bytes == 0
