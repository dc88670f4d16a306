"""Takes out of an image what nothing in it needs at run time: shell, package manager, pip and the tools of Debian.

Run while an image is built, by the image's own Python, with the packages that the process is made of as arguments. What
those depend on stays; the rest goes, and so does what only the scripts of packages ask for (`FOR_OTHERS`). dpkg's list
of what is installed is kept true, for scanners. It uses the standard library alone and installs nothing.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

ALWAYS: Final = ("base-files", "libc-bin", "libstdc++6", "libgcc-s1", "zlib1g")
"""The release's name and the licences; the locale C.UTF-8, and `ldconfig`, which Python and Triton ask; and what wheels
of the manylinux kind find on every system."""
FOR_OTHERS: Final = frozenset({
    "dpkg", "debconf", "openssl", "adduser", "passwd", "mawk",
    "libtorch-test", "python3-pkg-resources", "python3-hypothesis", "python3-expecttest",
})  # fmt: skip
"""Depended on, and asked for by nobody but scripts that install packages, and torch's own tests and builds."""
OF_NOBODY: Final = ("etc/ssl/openssl.cnf", "usr/lib/ssl/cert.pem", "usr/lib/ssl/certs", "usr/lib/ssl/openssl.cnf")
"""Where OpenSSL looks for certificate authorities and settings; Debian has that in the package of its command."""
PROGRAMS: Final = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin")
LEFTOVERS: Final = ("etc/apt", "var/cache", "var/lib/apt", "var/log", "root/.cache", "tmp", "usr/local/bin")

Fields = Mapping[str, str]


def bare(root: Path, wanted: Iterable[str]) -> None:
    """Leaves in the file system at `root` what the wanted packages need.

    Raises:
        LookupError: one of them is not installed.
    """
    status = root / "var/lib/dpkg/status"
    packages = installed(status.read_text(encoding="utf-8"))
    kept = closure(packages, [*ALWAYS, *wanted])
    needed = {path for name in kept for path in files(root, name)}
    needed |= {root / name for name in OF_NOBODY}
    for name in packages.keys() - kept:
        for path in files(root, name):
            if path not in needed:
                _remove(path)
        for record in _records(root, name):
            record.unlink()
    status.write_text("".join(f"{packages[name]['']}\n\n" for name in sorted(kept)), encoding="utf-8")
    for folder in LEFTOVERS:
        _empty(root / folder)
    _remove_what_cannot_run(root)


def installed(status: str) -> dict[str, Fields]:
    """Fields by package, each with the whole paragraph under the empty name."""
    found: dict[str, Fields] = {}
    for paragraph in filter(None, status.strip().split("\n\n")):
        fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.MULTILINE))
        found[fields["Package"]] = {**fields, "": paragraph}
    return found


def closure(packages: Mapping[str, Fields], wanted: Iterable[str]) -> set[str]:
    """The wanted packages and all that they depend on; of alternatives, every one that is installed."""
    provided: dict[str, set[str]] = {}
    for name, fields in packages.items():
        for virtual in _names(fields.get("Provides", "")):
            provided.setdefault(virtual, set()).add(name)
    waiting = list(wanted)
    if missing := [name for name in waiting if name not in packages]:
        raise LookupError(
            f"Not installed in this image: {', '.join(missing)}. Name packages that its Dockerfile installs."
        )
    found: set[str] = set()
    while waiting:
        asked = waiting.pop()
        for name in {asked} & packages.keys() | provided.get(asked, set()):
            if name not in found and name not in FOR_OTHERS:
                found.add(name)
                fields = packages[name]
                waiting += _names(fields.get("Depends", "")) + _names(fields.get("Pre-Depends", ""))
    return found


def _names(relations: str) -> list[str]:
    """Of `libc6 (>= 2.38), python3:any, awk | mawk`, without versions and architectures."""
    return [word.split()[0].partition(":")[0] for word in re.split("[,|]", relations) if word.strip()]


def files(root: Path, package: str) -> Iterator[Path]:
    """What a package brought, less folders; by the paths that they have where /bin is a link to /usr/bin."""
    for record in _records(root, package):
        if record.suffix == ".list":
            for line in record.read_text(encoding="utf-8").splitlines():
                path = root / line.lstrip("/")
                there = path.parent.resolve() / path.name
                if there.is_symlink() or there.is_file():
                    yield there


def _records(root: Path, package: str) -> list[Path]:
    """dpkg's notes on a package: `python3.list`, `libc6:amd64.list`; not those of `python3.13`."""
    notes = (root / "var/lib/dpkg/info").glob(f"{package}*")
    return [path for path in notes if path.name.rpartition(".")[0].partition(":")[0] == package]


def _remove(path: Path) -> None:
    """With what Python compiled from it, and the folders that it leaves empty."""
    compiled = (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc") if path.suffix == ".py" else ()
    for one in (path, *compiled):
        one.unlink(missing_ok=True)
    for folder in itertools.chain([path.parent / "__pycache__"], path.parents):
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # Something is in it.
            return


def _empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _remove_what_cannot_run(root: Path) -> None:
    """Links to what is gone, and scripts whose interpreter is."""
    for _ in range(2):  # /usr/bin/awk leads to /etc/alternatives/awk, which leads to what is gone.
        for folder in ("etc/alternatives", *PROGRAMS):
            for path in [*(root / folder).glob("*")]:
                if _is_lost(root, path):
                    path.unlink()


def _is_lost(root: Path, path: Path) -> bool:
    if path.is_symlink():
        target = path.readlink()
        there = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
        return not (there.exists() or there.is_symlink())
    with path.open("rb") as file:
        first = file.read(200).partition(b"\n")[0].decode("utf-8", "replace")
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        return False
    program = words[1] if words[0].endswith("/env") and len(words) > 1 else words[0].rpartition("/")[2]
    return not any((root / folder / program).exists() for folder in PROGRAMS)


if __name__ == "__main__":
    bare(Path("/"), sys.argv[1:])
