"""An image keeps what its process is made of; shell, package manager and pip are gone without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.bare import bare

PACKAGES = {
    "base-files": ("Pre-Depends: awk", ["/bin", "/etc/os-release"]),
    "mawk": ("Provides: awk", ["/usr/bin/mawk"]),
    "libc-bin": ("Depends: libc6 (>= 2.41)", ["/sbin/ldconfig", "/usr/bin/ldd"]),
    "libc6": ("Depends: libgcc-s1 | libgcc-of-another", ["/usr/lib/libc.so.6"]),
    "libgcc-s1": ("Multi-Arch: same", ["/usr/lib/libgcc_s.so.1"]),
    "libstdc++6": ("Depends: libgcc-s1", ["/usr/lib/libstdc++.so.6"]),
    "zlib1g": ("Depends: libc6", ["/usr/lib/libz.so.1"]),
    "dash": ("Depends: libc6", ["/usr/bin/sh"]),
    "dpkg": ("Depends: libc6, tar", ["/usr/bin/dpkg", "/usr/lib/dpkg/methods/apt.pl"]),
    "tar": ("Essential: yes", ["/usr/bin/tar"]),
    "python3": ("Pre-Depends: python3.13:any (>= 3.13)", ["/usr/bin/python3", "/usr/bin/py3clean"]),
    "python3.13": ("Depends: dpkg, blas, libc6", ["/usr/bin/python3.13"]),
    "openblas": ("Provides: blas (= 3)", ["/usr/lib/libopenblas.so"]),
    "openssl": ("Depends: libc6", ["/usr/bin/openssl", "/usr/lib/ssl/openssl.cnf"]),
    "python3-pip": ("Depends: python3:any", ["/usr/bin/pip", "/usr/lib/python3/dist-packages/pip/cli.py"]),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    info = tmp_path / "var/lib/dpkg/info"
    for folder in (info, tmp_path / "usr/bin", tmp_path / "usr/sbin", tmp_path / "etc/alternatives", tmp_path / "tmp"):
        folder.mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "sbin").symlink_to("usr/sbin")
    status = ""
    for name, (field, files) in PACKAGES.items():
        status += f"Package: {name}\nStatus: install ok installed\n{field}\nDescription: of {name}\n and more\n\n"
        notes = f"{name}:amd64" if "same" in field else name
        (info / f"{notes}.list").write_text("\n".join(["/.", "/usr", "/usr/lib", *files]))
        (info / f"{notes}.postinst").write_text("")
        for file in files:
            put(tmp_path / file.lstrip("/"), "\x7fELF")
    (tmp_path / "var/lib/dpkg/status").write_text(status)
    return tmp_path


def put(path: Path, text: str = "") -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def left(root: Path) -> set[str]:
    found = (path for path in root.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path.relative_to(root)) for path in found} - {"var/lib/dpkg/status"}


def test_what_the_wanted_packages_depend_on_stays_and_all_else_goes(root: Path) -> None:
    bare(root, ["python3"])
    kept = {"base-files", "libc-bin", "libc6", "libstdc++6", "zlib1g", "python3", "python3.13", "openblas"}
    notes = {f"var/lib/dpkg/info/{name}.{end}" for name in (*kept, "libgcc-s1:amd64") for end in ("list", "postinst")}
    assert left(root) - notes == {
        "bin", "sbin", "etc/os-release", "usr/bin/ldd", "usr/bin/py3clean", "usr/bin/python3", "usr/bin/python3.13",
        "usr/lib/libc.so.6", "usr/lib/libgcc_s.so.1", "usr/lib/libopenblas.so", "usr/lib/libstdc++.so.6",
        "usr/lib/libz.so.1", "usr/lib/ssl/openssl.cnf", "usr/sbin/ldconfig",
    }  # fmt: skip
    assert notes <= left(root)


def test_what_is_said_to_be_installed_is_installed(root: Path) -> None:
    bare(root, ["python3"])
    status = (root / "var/lib/dpkg/status").read_text()
    assert status.count("Package: ") == 9
    assert "Package: python3\nStatus: install ok installed\n" in status
    assert "and more\n\nPackage: " in status
    assert "python3-pip" not in status


def test_what_python_compiled_goes_with_its_source(root: Path) -> None:
    put(root / "usr/lib/python3/dist-packages/pip/__pycache__/cli.cpython-313.pyc")
    put(root / "usr/lib/python3/dist-packages/kept.py")
    bare(root, ["python3"])
    assert not (root / "usr/lib/python3/dist-packages/pip").exists()
    assert (root / "usr/lib/python3/dist-packages/kept.py").exists()


def test_links_to_what_is_gone_and_scripts_without_their_interpreter_go(root: Path) -> None:
    (root / "etc/alternatives/awk").symlink_to("/usr/bin/mawk")
    (root / "usr/bin/awk").symlink_to("/etc/alternatives/awk")
    (root / "usr/bin/python").symlink_to("python3")
    (root / "usr/bin/ldd").write_text("#! /bin/sh\n")
    (root / "usr/bin/py3clean").write_text("#!/usr/bin/env python3\n")
    bare(root, ["python3"])
    assert {"awk", "ldd"}.isdisjoint(path.name for path in root.rglob("*"))
    assert (root / "usr/bin/python").exists()
    assert (root / "usr/bin/py3clean").exists()


def test_caches_logs_and_commands_of_libraries_go_and_their_folders_stay(root: Path) -> None:
    for name in ("tmp/bare.py", "var/cache/apt/pkgcache.bin", "var/log/dpkg.log", "usr/local/bin/hf"):
        put(root / name)
    bare(root, ["python3"])
    assert all((root / folder).is_dir() and not [*(root / folder).iterdir()] for folder in ("tmp", "var/cache"))
    assert not (root / "usr/local/bin/hf").exists()


def test_where_certificate_authorities_are_looked_for_stays(root: Path) -> None:
    put(root / "etc/ssl/certs/one.pem")
    (root / "usr/lib/ssl/certs").symlink_to("/etc/ssl/certs")
    (root / "var/lib/dpkg/info/openssl.list").write_text(
        "/usr/bin/openssl\n/usr/lib/ssl/certs\n/usr/lib/ssl/openssl.cnf"
    )
    bare(root, ["python3"])
    assert (root / "usr/lib/ssl/certs").is_symlink()
    assert (root / "usr/lib/ssl/openssl.cnf").exists()
    assert not (root / "usr/bin/openssl").exists()


def test_a_package_that_is_not_installed_is_named(root: Path) -> None:
    with pytest.raises(LookupError, match="python4"):
        bare(root, ["python3", "python4"])
    assert (root / "usr/bin/sh").exists()
