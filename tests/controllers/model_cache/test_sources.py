"""hf, s3 and oci through their own libraries, against small local servers that speak the protocol."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from huggingface_hub.utils._http import close_session

from controllers.guard import AddressGuard
from controllers.model_cache.download import Download, Fetched, Progress
from controllers.model_cache.errors import Interrupted, SourceRefused, WrongContent
from controllers.model_cache.sources import Access, open_source
from controllers.model_cache.sources.s3 import S3Source
from tests.controllers.model_cache.files import gguf, safetensors, sha256
from tests.waiting import eventually

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONTENT = gguf()
COMMIT = "c" * 40
LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])


@pytest.fixture(autouse=True)
def no_connection_left() -> Iterator[None]:
    """The Hub's library keeps one session for the process."""
    yield
    close_session()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """`host:port` of a server that answers everything with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def fetch(uri: str, access: Access, folder: Path) -> tuple[Fetched, Progress]:
    source = open_source(uri, access)
    try:
        download = Download(source, await source.files(), uri, folder, lambda: 10**9)
        return await download.run(), download.progress
    finally:
        await source.close()


def half_is_there(folder: Path, name: str, scope: str, version: str, content: bytes = CONTENT) -> int:
    """What an interrupted download leaves."""
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content[: len(content) // 2])
    (folder / ".versions").write_text(json.dumps({name: f"{scope} {version}"}))
    return len(content) // 2


async def cut(request: web.Request, content: bytes) -> web.StreamResponse:
    """Half of the content, then the connection ends."""
    response = web.StreamResponse(headers={"Content-Length": str(len(content)), "ETag": '"x"'})
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def trickle(request: web.Request, content: bytes) -> web.StreamResponse:
    """A few bytes at a time, for hours."""
    response = web.StreamResponse(headers={"Content-Length": str(len(content)), "ETag": '"x"'})
    await response.prepare(request)
    for start in range(0, len(content), 4):
        await response.write(content[start : start + 4])
        await asyncio.sleep(0.2)
    return response


def ranged(request: web.Request, content: bytes, **headers: str) -> web.Response:
    asked = request.headers.get("Range")
    if not asked:
        return web.Response(body=content, headers=headers)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(content), len(content))
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    return web.Response(status=206, body=content[start:end], headers=headers)


class Hub:
    """The few questions that the Hub's library asks."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "."): content for name, content in files.items()}
        self.ranges: list[str | None] = []
        self.promised: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/api/models/acme/tiny"):
            rest = path.removeprefix("/api/models/acme/tiny").strip("/")
            if rest.startswith("tree/"):
                return web.json_response([self._entry(name) for name in self.files])
            if rest.startswith("paths-info/"):
                asked = (await request.post()).getall("paths", [])
                return web.json_response([self._entry(name) for name in self.files if name in asked])
            siblings = [self._sibling(name) for name in self.files]
            return web.json_response({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings})
        if path.startswith(f"/acme/tiny/resolve/{COMMIT}/"):
            self.ranges.append(request.headers.get("Range"))
            return ranged(request, self.files[path.rsplit("/", 1)[-1]], ETag='"x"')
        return web.json_response(
            {"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"}
        )

    def _sibling(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        digest = self.promised.get(name, hashlib.sha256(content).hexdigest())
        lfs = {"sha256": digest, "size": len(content), "pointerSize": 1}
        return {"rfilename": name, "size": len(content), "blobId": "b", "lfs": lfs}

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "o"}


async def test_hf_gives_one_file_of_the_commit_behind_the_branch(tmp_path: Path) -> None:
    hub = Hub(m__gguf=CONTENT)
    async with serving(hub.answer) as host:
        access = Access(AddressGuard(), hf_endpoint=f"http://{host}")
        fetched, _ = await fetch("hf://acme/tiny@main/m.gguf", access, tmp_path)
    assert fetched == Fetched(sha256(CONTENT), len(CONTENT), ("m.gguf",))


async def test_hf_is_continued_where_it_ended(tmp_path: Path) -> None:
    hub, uri = Hub(m__gguf=CONTENT), "hf://acme/tiny/m.gguf"
    have = half_is_there(tmp_path / "x", "m.gguf", uri, f"{COMMIT}/m.gguf")
    async with serving(hub.answer) as host:
        fetched, progress = await fetch(uri, Access(AddressGuard(), hf_endpoint=f"http://{host}"), tmp_path / "x")
    assert fetched.digest == sha256(CONTENT)
    assert progress.received_bytes == len(CONTENT) - have
    assert hub.ranges[0] is not None
    assert hub.ranges[0].startswith(f"bytes={have}-")


async def test_hf_gives_the_weights_of_a_whole_repository_and_nothing_pickled(tmp_path: Path) -> None:
    hub = Hub(a__safetensors=safetensors(), config__json=b"{}", pytorch_model__bin=b"pickle", README__md=b"#")
    async with serving(hub.answer) as host:
        fetched, _ = await fetch("hf://acme/tiny", Access(AddressGuard(), hf_endpoint=f"http://{host}"), tmp_path)
    assert fetched.files == ("a.safetensors", "config.json")


async def test_hf_asks_to_name_one_of_several_gguf_files(tmp_path: Path) -> None:
    hub = Hub(q4__gguf=CONTENT, q8__gguf=CONTENT)
    async with serving(hub.answer) as host:
        access = Access(AddressGuard(), hf_endpoint=f"http://{host}")
        with pytest.raises(SourceRefused, match=r"has 2 GGUF files .*name one: hf://acme/tiny/q4\.gguf"):
            await fetch("hf://acme/tiny", access, tmp_path)
        with pytest.raises(SourceRefused, match=r"has no file 'x\.gguf'"):
            await fetch("hf://acme/tiny/x.gguf", access, tmp_path)
        with pytest.raises(SourceRefused, match="'acme/none' at 'main' was not found, or needs a token"):
            await fetch("hf://acme/none/x.gguf", access, tmp_path)


async def test_hf_bytes_that_differ_from_what_the_hub_promised_are_deleted(tmp_path: Path) -> None:
    hub = Hub(m__gguf=CONTENT)
    hub.promised["m.gguf"] = "0" * 64
    async with serving(hub.answer) as host:
        access = Access(AddressGuard(), hf_endpoint=f"http://{host}")
        with pytest.raises(WrongContent, match="the source itself promised sha256:0000"):
            await fetch("hf://acme/tiny/m.gguf", access, tmp_path)
    assert not (tmp_path / "m.gguf").exists()


class Bucket:
    """A store of one bucket, path style."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {name.replace("__", "."): content for name, content in objects.items()}
        self.ranges: list[str | None] = []
        self.cuts = 0
        self.cut = cut

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = request.path.removeprefix("/weights").strip("/")
        if "list-type" in request.query:
            return web.Response(text=self._listing(request.query["prefix"]), content_type="application/xml")
        if key not in self.objects:
            return web.Response(
                status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml"
            )
        etag = f'"{hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()}"'
        if request.headers.get("If-Match", etag) != etag:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        if request.method == "GET":
            self.ranges.append(request.headers.get("Range"))
            if self.cuts:
                self.cuts -= 1
                return await self.cut(request, self.objects[key])
        return ranged(request, self.objects[key], ETag=etag)

    def _listing(self, prefix: str) -> str:
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(content)}</Size>"
            f'<ETag>"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"</ETag></Contents>'
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def use(host: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    return use


async def test_s3_gives_an_object_and_continues_it(tmp_path: Path, s3_environment: Callable[[str], None]) -> None:
    bucket, uri = Bucket(m__gguf=CONTENT), "s3://weights/m.gguf"
    etag = f'"{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"'
    have = half_is_there(tmp_path / "x", "m.gguf", uri, etag)
    async with serving(bucket.answer) as host:
        s3_environment(host)
        whole, _ = await fetch(uri, Access(AddressGuard()), tmp_path / "whole")
        rest, progress = await fetch(uri, Access(AddressGuard()), tmp_path / "x")
    assert whole.digest == rest.digest == sha256(CONTENT)
    assert bucket.ranges == [None, f"bytes={have}-"]
    assert progress.received_bytes == len(CONTENT) - have


async def test_s3_gives_all_objects_below_a_prefix(tmp_path: Path, s3_environment: Callable[[str], None]) -> None:
    bucket = Bucket()
    bucket.objects = {"tiny/a.safetensors": safetensors(), "tiny/sub/config.json": b"{}", "other/x": b"x"}
    async with serving(bucket.answer) as host:
        s3_environment(host)
        fetched, _ = await fetch("s3://weights/tiny/", Access(AddressGuard()), tmp_path)
        with pytest.raises(SourceRefused, match="has nothing below 'none/'"):
            await fetch("s3://weights/none/", Access(AddressGuard()), tmp_path)
    assert fetched.files == ("a.safetensors", "sub/config.json")


async def test_s3_leaves_out_what_is_hidden_below_a_prefix(
    tmp_path: Path, s3_environment: Callable[[str], None]
) -> None:
    bucket = Bucket()
    bucket.objects = {
        f"tiny/{name}": b"{}" for name in ("", "config.json", ".gitattributes", ".cache/huggingface/x.lock")
    }
    async with serving(bucket.answer) as host:
        s3_environment(host)
        fetched, _ = await fetch("s3://weights/tiny/", Access(AddressGuard()), tmp_path)
    assert fetched.files == ("config.json",)


async def test_s3_refuses_a_key_that_leads_out_of_the_copy(
    tmp_path: Path, s3_environment: Callable[[str], None]
) -> None:
    bucket = Bucket()
    bucket.objects = {"tiny/config.json": b"{}", "tiny/../other/config.json": b"{}"}
    async with serving(bucket.answer) as host:
        s3_environment(host)
        with pytest.raises(SourceRefused, match=r"paths must be relative, without '\.\.'"):
            await fetch("s3://weights/tiny/", Access(AddressGuard()), tmp_path)


async def test_s3_says_what_the_store_said(tmp_path: Path, s3_environment: Callable[[str], None]) -> None:
    async with serving(Bucket().answer) as host:
        s3_environment(host)
        with pytest.raises(SourceRefused, match=r"s3://weights/none\.gguf: the store answered 404"):
            await fetch("s3://weights/none.gguf", Access(AddressGuard()), tmp_path)
    s3_environment("127.0.0.1:1")
    with pytest.raises(Interrupted, match="the store did not answer"):
        await fetch("s3://weights/none.gguf", Access(AddressGuard()), tmp_path)


class Pages:
    """A client whose bucket has no end; each page after the first waits until it may come."""

    def __init__(self) -> None:
        self.page_may_come = threading.Semaphore(1)
        self.asked = 0

    def get_paginator(self, _: str) -> Pages:
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        while self.page_may_come.acquire(timeout=10):
            self.asked += 1
            yield {"Contents": [{"Key": f"tiny/{self.asked}-{i}", "Size": 1, "ETag": '"x"'} for i in range(1000)]}

    def close(self) -> None:
        """Has no connections."""


async def test_s3_refuses_a_prefix_of_too_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages()
    pages.page_may_come.release(100)
    monkeypatch.setattr(S3Source, "_client", lambda _: pages)
    with pytest.raises(SourceRefused, match=r"has over 10000 objects below 'tiny/'; name a narrower prefix"):
        await S3Source("s3://weights/tiny/").files()
    assert pages.asked == 11


async def test_s3_stops_listing_once_the_source_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pages, source = Pages(), S3Source("s3://weights/tiny/")
    monkeypatch.setattr(S3Source, "_client", lambda _: pages)
    listing = asyncio.create_task(source.files())
    await eventually(lambda: pages.asked == 1, "the first page has come")
    await source.close()
    pages.page_may_come.release(5)
    await listing
    assert pages.asked <= 2


class Registry:
    """One artifact with the given layers."""

    def __init__(self, *layers: tuple[str | None, str, bytes]) -> None:
        self.layers = layers
        self.ranges: list[str | None] = []
        self.cuts = 0
        self.cut = cut
        self.redirect: str | None = None
        self.token_from: str | None = None
        self.tokens = 0
        self.pinned: str | None = None
        self.layer_digest: str | None = None
        self.token_expires_with_each_blob = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            self.tokens += 1
            return web.json_response({"token": f"t{self.tokens}"})
        if self.token_from and request.headers.get("Authorization") != f"Bearer t{self.tokens}":
            challenge = f'Bearer realm="{self.token_from}/token",service="r",scope="repository:acme/tiny:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if request.path in ("/v2/acme/tiny/manifests/v1", f"/v2/acme/tiny/manifests/{self.pinned}"):
            return web.json_response(self.manifest())
        for _, _, content in self.layers:
            if request.path == f"/v2/acme/tiny/blobs/{sha256(content)}":
                if self.redirect:
                    return web.Response(status=307, headers={"Location": self.redirect})
                self.ranges.append(request.headers.get("Range"))
                self.tokens += self.token_expires_with_each_blob
                if self.cuts:
                    self.cuts -= 1
                    return await self.cut(request, content)
                return ranged(request, content)
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}, status=404)

    def manifest(self) -> dict[str, Any]:
        layers = []
        for title, kind, content in self.layers:
            annotations = {"annotations": {"org.opencontainers.image.title": title}} if title else {}
            digest = self.layer_digest or sha256(content)
            layers.append({"mediaType": kind, "digest": digest, "size": len(content), **annotations})
        return {"schemaVersion": 2, "config": {"digest": sha256(b"{}"), "size": 2}, "layers": layers}


def insecure(host: str, guard: AddressGuard = LOOPBACK) -> Access:
    return Access(guard, insecure_registries=frozenset({host}))


async def test_oci_gives_the_titled_layers_and_continues_them(tmp_path: Path) -> None:
    registry = Registry(("m.gguf", "application/octet-stream", CONTENT))
    async with serving(registry.answer) as host:
        uri = f"oci://{host}/acme/tiny:v1"
        whole, _ = await fetch(uri, insecure(host), tmp_path / "whole")
        have = half_is_there(tmp_path / "x", "m.gguf", uri, sha256(CONTENT))
        rest, _ = await fetch(uri, insecure(host), tmp_path / "x")
    assert whole == rest == Fetched(sha256(CONTENT), len(CONTENT), ("m.gguf",))
    assert registry.ranges == [None, f"bytes={have}-"]


async def test_oci_takes_an_untitled_gguf_layer_and_refuses_an_image(tmp_path: Path) -> None:
    model = Registry((None, "application/vnd.docker.ai.gguf.v3", CONTENT))
    async with serving(model.answer) as host:
        fetched, _ = await fetch(f"oci://{host}/acme/tiny:v1", insecure(host), tmp_path)
    assert fetched.files == ("model.gguf",)
    image = Registry((None, "application/vnd.oci.image.layer.v1.tar+gzip", b"tar"))
    async with serving(image.answer) as host:
        with pytest.raises(SourceRefused, match=r"has no layer that is a file \(found application/vnd\.oci\.image"):
            await fetch(f"oci://{host}/acme/tiny:v1", insecure(host), tmp_path)


async def test_oci_logs_in_with_a_token_where_the_registry_asks_for_one(tmp_path: Path) -> None:
    registry = Registry(("m.gguf", "application/octet-stream", CONTENT))
    async with serving(registry.answer) as host:
        registry.token_from = f"http://{host}"
        fetched, _ = await fetch(f"oci://{host}/acme/tiny:v1", insecure(host), tmp_path)
    assert fetched.digest == sha256(CONTENT)


async def test_oci_refuses_a_manifest_that_is_not_the_one_the_source_names(tmp_path: Path) -> None:
    registry = Registry(("m.gguf", "x", CONTENT))
    right = sha256(json.dumps(registry.manifest()).encode())
    async with serving(registry.answer) as host:
        registry.pinned = right
        fetched, _ = await fetch(f"oci://{host}/acme/tiny@{right}", insecure(host), tmp_path)
        registry.pinned = "sha256:" + "0" * 64
        with pytest.raises(WrongContent, match=f"the registry gave a manifest whose digest is {right}"):
            await fetch(f"oci://{host}/acme/tiny@{registry.pinned}", insecure(host), tmp_path)
    assert fetched.digest == sha256(CONTENT)


async def test_oci_refuses_a_manifest_whose_digest_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="by a digest that cannot be checked; use its sha256"):
        await fetch(f"oci://127.0.0.1:5000/acme/tiny@sha512:{'0' * 128}", Access(LOOPBACK), tmp_path)


@pytest.mark.parametrize("digest", ["sha512:" + "0" * 128, "sha256:0", "../../secret"])
async def test_oci_refuses_a_layer_whose_digest_cannot_be_checked(tmp_path: Path, digest: str) -> None:
    registry = Registry(("m.gguf", "x", CONTENT))
    registry.layer_digest = digest
    async with serving(registry.answer) as host:
        with pytest.raises(SourceRefused, match=f"names a layer '{digest}'; only digests of sha256"):
            await fetch(f"oci://{host}/acme/tiny:v1", insecure(host), tmp_path)


async def test_oci_asks_for_a_new_token_when_the_old_one_expires_between_two_layers(tmp_path: Path) -> None:
    registry = Registry(("a.gguf", "x", CONTENT), ("b.gguf", "x", gguf(seed=2)))
    async with serving(registry.answer) as host:
        registry.token_from, registry.token_expires_with_each_blob = f"http://{host}", True
        fetched, _ = await fetch(f"oci://{host}/acme/tiny:v1", insecure(host), tmp_path)
    assert fetched.files == ("a.gguf", "b.gguf")


@pytest.mark.parametrize("where", ["registry", "redirect", "token"])
async def test_oci_leads_to_no_private_address(tmp_path: Path, where: str) -> None:
    registry = Registry(("m.gguf", "application/octet-stream", CONTENT))
    async with serving(registry.answer) as host:
        guard = AddressGuard() if where == "registry" else LOOPBACK
        registry.redirect = "http://169.254.169.254/m" if where == "redirect" else None
        registry.token_from = "http://169.254.169.254" if where == "token" else None
        with pytest.raises(SourceRefused, match="which is not a public address"):
            await fetch(f"oci://{host}/acme/tiny:v1", insecure(host, guard), tmp_path)


async def test_oci_says_what_is_wrong_with_a_reference(tmp_path: Path) -> None:
    async with serving(Registry().answer) as host:
        with pytest.raises(SourceRefused, match=r"the registry says no \(404\)"):
            await fetch(f"oci://{host}/acme/none:v1", insecure(host), tmp_path)
    with pytest.raises(SourceRefused, match=r"'registry' in .* is no registry: write its host name with a dot"):
        await fetch("oci://registry/acme/tiny:v1", Access(LOOPBACK), tmp_path)


async def test_a_layer_may_not_name_a_path_outside_of_the_copy(tmp_path: Path) -> None:
    registry = Registry(("../../etc/passwd", "application/octet-stream", CONTENT))
    async with serving(registry.answer) as host:
        with pytest.raises(SourceRefused, match=r"paths must be relative, without '..' or hidden parts"):
            await fetch(f"oci://{host}/acme/tiny:v1", insecure(host), tmp_path)


@pytest.mark.parametrize("kind", ["s3", "oci"])
async def test_a_connection_cut_in_the_middle_is_an_interruption_and_is_continued(
    tmp_path: Path, s3_environment: Callable[[str], None], kind: str
) -> None:
    server = Bucket(m__gguf=CONTENT) if kind == "s3" else Registry(("m.gguf", "x", CONTENT))
    server.cuts = 1
    async with serving(server.answer) as host:
        s3_environment(host)
        uri = "s3://weights/m.gguf" if kind == "s3" else f"oci://{host}/acme/tiny:v1"
        with pytest.raises(Interrupted):
            await fetch(uri, insecure(host), tmp_path)
        fetched, _ = await fetch(uri, insecure(host), tmp_path)
    assert fetched.digest == sha256(CONTENT)
    assert len(server.ranges) == 2


@pytest.mark.parametrize("kind", ["s3", "oci"])
async def test_the_bytes_of_a_server_that_trickles_are_seen_as_they_come(
    tmp_path: Path, s3_environment: Callable[[str], None], kind: str
) -> None:
    server = Bucket(m__gguf=CONTENT) if kind == "s3" else Registry(("m.gguf", "x", CONTENT))
    server.cuts, server.cut = 1, trickle
    async with serving(server.answer) as host:
        s3_environment(host)
        source = open_source("s3://weights/m.gguf" if kind == "s3" else f"oci://{host}/acme/tiny:v1", insecure(host))
        download = Download(source, await source.files(), "", tmp_path, lambda: 10**9)
        task = asyncio.create_task(download.run())
        await eventually(lambda: download.progress.received_bytes, "some have come", 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await source.close()
