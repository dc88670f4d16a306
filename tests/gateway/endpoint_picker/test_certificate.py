"""The picker's certificate, renewed while it serves: real files as a Secret's volume has them, real handshakes."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import grpc
import pytest

from gateway.endpoint_picker.choices import Choices
from gateway.endpoint_picker.server import HEALTH_SERVICE, EndpointPicker
from gateway.errors import SettingsError
from gateway.http1.limits import ByteBudget


def make(folder: Path) -> bytes:
    """A key and a certificate of its own, which is returned."""
    folder.mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    named = ["-subj", f"/CN={folder.name}", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run([*new, *named, *files], check=True, capture_output=True, timeout=60)
    return (folder / "tls.crt").read_bytes()


class Mount:
    """The kubelet's way: `..data` leads to the folder of one version, and is replaced at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(f"..data/{name}")

    @property
    def pair(self) -> tuple[Path, Path]:
        return self._folder / "tls.crt", self._folder / "tls.key"

    def show(self, version: Path) -> None:
        new = self._folder / "..data_tmp"
        new.symlink_to(version)
        new.rename(self._folder / "..data")


@asynccontextmanager
async def serving(pair: tuple[Path, Path]) -> AsyncIterator[int]:
    picker = EndpointPicker(cast(Choices, None), 1000, ByteBudget(1000))
    port = await picker.start("127.0.0.1", 0, pair)
    try:
        yield port
    finally:
        await picker.stop(0.0)


@asynccontextmanager
async def connected(port: int, trusted: bytes) -> AsyncIterator[grpc.aio.Channel]:
    """A connection that nobody else has, for it is asked which certificate a new one meets."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    trust = grpc.ssl_channel_credentials(trusted)
    async with grpc.aio.secure_channel(f"localhost:{port}", trust, options) as channel:
        yield channel


async def answers(channel: grpc.aio.Channel) -> bool:
    try:
        await channel.unary_unary(f"/{HEALTH_SERVICE}/Check")(b"", timeout=10.0)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


async def meets(port: int, certificate: bytes) -> bool:
    async with connected(port, certificate) as channel:
        return await answers(channel)


async def test_a_renewed_certificate_is_shown_to_new_connections_and_open_ones_stay(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    (tmp_path / "mount").mkdir()
    mount = Mount(tmp_path / "mount")
    mount.show(tmp_path / "first")
    async with serving(mount.pair) as port, connected(port, first) as before:
        assert await answers(before)
        assert not await meets(port, second)
        mount.show(tmp_path / "second")
        assert await meets(port, second)
        assert not await meets(port, first)
        assert await answers(before)


@pytest.mark.parametrize("broken", ["gone", "no certificate", "another's key"])
async def test_what_cannot_be_used_leaves_the_certificate_before_until_it_can(tmp_path: Path, broken: str) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    (tmp_path / "mount").mkdir()
    (tmp_path / "broken").mkdir()
    if broken != "gone":
        (tmp_path / "broken" / "tls.crt").write_bytes(second if broken == "another's key" else b"no certificate")
        (tmp_path / "broken" / "tls.key").write_bytes((tmp_path / "first" / "tls.key").read_bytes())
    mount = Mount(tmp_path / "mount")
    mount.show(tmp_path / "first")
    async with serving(mount.pair) as port:
        assert await meets(port, first)
        mount.show(tmp_path / "broken")
        assert await meets(port, first)
        assert await meets(port, first)
        mount.show(tmp_path / "second")
        assert await meets(port, second)


async def test_a_start_with_what_cannot_be_used_is_refused_with_its_name(tmp_path: Path) -> None:
    make(tmp_path / "first")
    certificate, key = tmp_path / "first" / "tls.crt", tmp_path / "first" / "tls.key"
    with pytest.raises(SettingsError, match=r"cannot be read: No such file or directory '.*/none\.key'"):
        async with serving((certificate, tmp_path / "none.key")):
            pass
    key.write_bytes(b"no key")
    with pytest.raises(SettingsError, match=r"certificate '.*tls\.crt' and '.*tls\.key' cannot be used"):
        async with serving((certificate, key)):
            pass
