"""What an attacker who gets into a container finds there: nothing to download, unpack, look around or install with."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.images import PRODUCT
from e2e.target import Target

TOOLS: Final = frozenset({
    "sh", "dash", "bash", "busybox", "env", "cat", "ls", "cp", "rm", "find", "grep", "sed", "awk", "mawk", "perl",
    "tar", "gzip", "apt", "apt-get", "dpkg", "pip", "pip3", "curl", "wget", "openssl", "mount", "su", "chroot", "gcc",
})  # fmt: skip
INSTALLERS: Final = frozenset({"pip", "ensurepip", "wheel", "apt_pkg"})
"""Packages of Python that install others."""


@pytest.mark.parametrize("name", PRODUCT)
def test_an_image_has_no_shell_no_package_manager_and_no_pip(
    name: str, target: Target, own_cluster: Cluster | None
) -> None:
    if own_cluster is None:
        pytest.skip("images of a given cluster come from its registry")
    tag = target.chart_values["image"]["tag"]
    files = [PurePosixPath(path) for path in own_cluster.builder.layout.files(f"docker.io/foretide/{name}:{tag}")]
    assert {PurePosixPath("usr/bin/python3"), PurePosixPath("usr/lib/ssl/certs")} <= set(files)
    assert [str(path) for path in files if path.parent.name in ("bin", "sbin") and path.name in TOOLS] == []
    assert [str(path) for path in files if INSTALLERS & set(path.parts[:-1]) and "dist-packages" in path.parts] == []
    assert [str(path) for path in files if "ensurepip" in path.parts] == []
