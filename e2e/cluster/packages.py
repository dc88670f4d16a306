"""What the cluster needs from the host's distribution; installed with apt where a program is missing."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.errors import UnsuitableHost
from e2e.cluster.node_files import CNI_PROGRAMS
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run
from e2e.cluster.tools import exclusively

# A program or file, and the package that brings it.
NEEDED = {
    "containerd": "containerd",
    "runc": "runc",
    f"{CNI_PROGRAMS}/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "mmdebstrap": "mmdebstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "buildah": "buildah",
    "skopeo": "skopeo",
}

BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""What looks at pages."""

UNASKED = {"DEBIAN_FRONTEND": "noninteractive"}


def install_missing(progress: Progress, needed: Mapping[str, str] = NEEDED) -> None:
    """Raises:
    UnsuitableHost: something is missing and there is no apt to install it with.
    """
    wanted = missing(needed)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise UnsuitableHost(
            f"Missing: {', '.join(wanted)}. There is no apt-get here; install them in this system's way."
        )
    with progress.step(f"Install {', '.join(wanted)}"):
        sudo = as_root()
        # Cut short, they would leave the host's packages half installed. But sudo may have to ask at the terminal.
        whole = not sudo
        if run(["dpkg", "--audit"]):
            run([*sudo, "dpkg", "--configure", "-a"], env=UNASKED, whole=whole)
        run([*sudo, "apt-get", "update", "-q"])
        install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
        run([*sudo, *install, *wanted], env=UNASKED, whole=whole)


def unpacked(package: str, progress: Progress) -> Path:
    """A folder with the package's files, fetched once and kept, never installed: a server that only a test starts.

    Raises:
        UnsuitableHost: there is no apt to fetch it with.
    """
    if shutil.which("apt-get") is None:
        raise UnsuitableHost(f"There is no apt-get here to fetch the package {package!r} with.")
    folder = paths.cache_dir() / "packages"
    wanted = folder / package
    with exclusively(folder / f"{package}.lock"):
        if not wanted.exists():
            with progress.step(f"Fetch {package} (once; kept in {folder})"):
                _unpack(package, wanted)
    return wanted


def _unpack(package: str, wanted: Path) -> None:
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=".fetching-") as scratch:
        # What the lists name may be gone from the mirror by now.
        run([*as_root(), "apt-get", "update", "-q"])
        run(["apt-get", "download", "-q", package], cwd=Path(scratch))
        (archive,) = Path(scratch).glob("*.deb")
        run(["dpkg", "-x", archive, Path(scratch) / "out"])
        (Path(scratch) / "out").rename(wanted)


def missing(needed: Mapping[str, str] = NEEDED) -> list[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [package for name, package in needed.items() if not _there(name, path)]


def as_root() -> Sequence[str]:
    """What to put before a command that needs root.

    Raises:
        UnsuitableHost: this is not root and there is no sudo.
    """
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo") is None:
        raise UnsuitableHost(
            "Nodes are made of namespaces and mounts, which needs root. Run this as root or install sudo."
        )
    return ("sudo",)


def _there(name: str, path: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=path) is not None
