"""A download that is cut is taken up where it stopped; a file that is not what it should be is never served."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.install import resource
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]


class _CuttingHandler(BaseHTTPRequestHandler):
    """Serves one file and breaks every whole transfer of it in the middle."""

    def __init__(self, path: Path, ranges: list[int], *rest: object) -> None:
        self._path, self._ranges = path, ranges
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._head(self._path.stat().st_size, 0)

    def do_GET(self) -> None:
        size = self._path.stat().st_size
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self._ranges.append(start)
        self._head(size, start)
        end = size if start else size // 2
        with self._path.open("rb") as file:
            file.seek(start)
            while start < end:
                piece = file.read(min(1 << 20, end - start))
                self.wfile.write(piece)
                start += len(piece)

    def _head(self, size: int, start: int) -> None:
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"the-same-file"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The scenario's own report is enough."""


@contextmanager
def _cutting_server(address: str, path: Path) -> Iterator[tuple[str, list[int]]]:
    ranges: list[int] = []
    server = ThreadingHTTPServer((address, 0), partial(_CuttingHandler, path, ranges))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}/model.gguf", ranges
    finally:
        server.shutdown()
        server.server_close()


def test_a_download_cut_in_the_middle_resumes(
    world: World, own_cluster: Cluster | None, checkpoint: Path, digest: str, measured: Measured
) -> None:
    if own_cluster is None:
        pytest.skip("a given cluster cannot reach a server of this test")
    with _cutting_server(layout.HOST_ADDRESS, checkpoint) as (url, ranges):
        world.kubectl.apply(resource("Model", "cut", "demo", source=url, digest=digest))
        try:
            world.wait("model/cut", "Ready", 120)
            status = (world.get("model/cut") or {})["status"]
        finally:
            world.kubectl("-n", "demo", "delete", "model", "cut", "--timeout=60s")
    resumed = sorted(start for start in ranges if start)
    measured("download cut in the middle", f"resumed at {resumed[0] / 1e6:.0f} MB of {status['size']}")
    assert resumed[0] > 0
    assert status["digest"] == digest


def test_a_wrong_digest_is_a_condition_with_both_digests(world: World, model_source: str, digest: str) -> None:
    wrong = "sha256:" + "0" * 64
    world.kubectl.apply(resource("Model", "forged", "demo", source=model_source, digest=wrong))
    try:
        stalled = until(lambda: world.condition("model/forged", "Stalled"), "Stalled", 60)
        assert wrong in stalled["message"]
        assert digest in stalled["message"]
    finally:
        world.kubectl("-n", "demo", "delete", "model", "forged", "--timeout=60s")
