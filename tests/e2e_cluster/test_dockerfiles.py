"""What goes into the images: no root, packages by their hashes, and no tool without a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCKERFILES: Final = (
    "operator/Dockerfile", "gateway/Dockerfile", "worker_image/Dockerfile", "worker_image/Dockerfile.cuda"
)  # fmt: skip
WHY: Final = {
    "ca-certificates": "TLS to registries, API servers and receivers of alerts",
    "python3": "the program",
    "python3-pip": "installs what is pinned, while the image is built; it does not stay",
    "tini": "passes SIGTERM on",
    "tzdata": "schedule windows have time zones",
    "python3-torch": "the engine on CPUs, built with Debian's numpy",
    "python3-numpy": "the same",
    "libopenblas0-pthread": "the engine on CPUs",
    "gcc": "Triton compiles a launcher for each kernel",
    "libc6-dev": "the same",
    "python3-dev": "the same",
}


def text_of(name: str) -> str:
    return (ROOT / name).read_text().replace("\\\n", " ")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_and_starts_no_shell(name: str) -> None:
    text = text_of(name)
    assert re.findall(r"^USER (.*)$", text, re.M) == ["65532:65532"]
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.M)
    assert entrypoint.startswith('["tini", "--", "python3",')
    assert not re.search(r"^(CMD|ADD|SHELL) ", text, re.M)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_package_of_debian_has_a_reason_and_every_other_a_hash(name: str) -> None:
    text = text_of(name)
    (asked,) = re.findall(r"apt-get install --yes --no-install-recommends ([^&]*)&&", text)
    assert set(asked.split()) <= set(WHY)
    installs = re.findall(r"pip install ([^\n]*)", text)
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--no-deps" in installs[0]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_bared_of_what_it_was_built_with_before_our_source_comes_in(name: str) -> None:
    text = text_of(name)
    (asked,) = re.findall(r"apt-get install --yes --no-install-recommends ([^&]*)&&", text)
    (kept,) = re.findall(r"^RUN python3 /tmp/bare.py (.*)$", text, re.M)
    assert set(kept.split()) == set(asked.split()) - {"python3-pip"}
    after = text.partition("/tmp/bare.py " + kept)[2]
    assert "COPY crds" in after
    assert all(line.startswith("RUN [") for line in after.splitlines() if line.startswith("RUN"))
