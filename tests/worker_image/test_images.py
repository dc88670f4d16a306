"""The two images of the worker are the same but for where torch comes from; neither can drift from the other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from worker_image import VERSION

ROOT = Path(__file__).parents[2]
CPU, CUDA = ((ROOT / "worker_image" / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Dockerfile.cuda"))
REQUIREMENT = re.compile(r"^([a-z0-9-]+)==([^ ]+)(?= )(?! ; sys_platform == 'none')", re.MULTILINE)
"""Name and version; not those that the marker `none` leaves out, because Debian has them."""


def lines(dockerfile: str, instruction: str) -> list[str]:
    return [line for line in dockerfile.splitlines() if line.startswith(instruction + " ")]


def requirements(name: str) -> dict[str, str]:
    return dict(REQUIREMENT.findall((ROOT / "worker_image" / name).read_text(encoding="utf-8")))


def test_both_images_copy_the_same_source() -> None:
    copied = [line.replace("requirements-cuda.txt", "requirements.txt") for line in lines(CUDA, "COPY")]
    assert copied == lines(CPU, "COPY")


def test_both_images_run_the_same_way() -> None:
    for instruction in ("ARG", "USER", "EXPOSE", "ENTRYPOINT", "WORKDIR"):
        assert lines(CUDA, instruction) == lines(CPU, instruction)
    assert lines(CPU, "USER") == ["USER 65532:65532"]
    assert lines(CUDA, "ENV")[0].startswith(lines(CPU, "ENV")[0]), "what one sets the other does"


def test_the_gpu_image_adds_torch_and_what_it_needs_and_nothing_else_differs() -> None:
    cpu, cuda = requirements("requirements.txt"), requirements("requirements-cuda.txt")
    assert {"torch", "triton", "numpy"} <= set(cuda) - set(cpu)
    assert {name: version for name, version in cuda.items() if name in cpu} == cpu


def test_every_package_of_the_gpu_image_has_its_digest() -> None:
    text = (ROOT / "worker_image/requirements-cuda.txt").read_text(encoding="utf-8")
    packages = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(packages) == len(requirements("requirements-cuda.txt"))
    assert all("--hash=sha256:" in package for package in packages)


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
