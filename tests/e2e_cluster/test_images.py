"""What makes an image be built again, and what of it is sent to a node."""

import contextlib
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from e2e.cluster.errors import CommandFailed
from e2e.cluster.images import SEAL_REFUSED, Builder, Image, copied_paths, until_sealed
from e2e.cluster.oci import CONTAINERD_NAME, REF_NAME, Layout
from e2e.cluster.progress import Progress

DOCKERFILE = """\
ARG BASE=debian:trixie-slim
FROM ${BASE}
COPY room/requirements.txt /app/requirements.txt
COPY --chown=0:0 room \\
     shared /app/
COPY --from=elsewhere /bin/tool /bin/tool
"""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    for name in ("room/requirements.txt", "room/main.py", "shared/types.py", "other/main.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return Image("localhost/room:dev", tmp_path / "Dockerfile", tmp_path, {"BASE": "localhost/base:1"})


def test_copied_paths_are_those_taken_from_the_context() -> None:
    assert copied_paths(DOCKERFILE) == ["room/requirements.txt", "room", "shared"]


@pytest.mark.parametrize("changed", ["room/main.py", "shared/types.py", "Dockerfile"])
def test_a_change_of_what_is_copied_is_another_image(image: Image, changed: str) -> None:
    before = image.key()
    path = image.context / changed
    path.write_text(path.read_text() + "\n# edited\n")
    assert image.key() != before


def test_a_new_file_in_a_copied_folder_is_another_image(image: Image) -> None:
    before = image.key()
    (image.context / "room" / "new.py").write_text("")
    assert image.key() != before


def test_another_base_is_another_image(image: Image) -> None:
    assert Image(image.name, image.dockerfile, image.context, {"BASE": "localhost/base:2"}).key() != image.key()


def test_an_image_is_built_again_when_its_base_was(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    builder = Builder(Progress())
    builder._remember("localhost/base:1", "of monday")
    before = builder._key(image)
    builder._remember("localhost/base:1", "of tuesday")
    assert builder._key(image) != before


@pytest.mark.parametrize(
    ("says", "fails", "ends_well", "runs"),
    [
        (SEAL_REFUSED, 2, True, 3),
        (SEAL_REFUSED, 9, False, 3),
        ("no space left on device", 1, False, 1),
    ],
)
def test_a_build_whose_memory_could_not_be_sealed_is_run_again(
    tmp_path: Path, says: str, fails: int, ends_well: bool, runs: int
) -> None:
    script = f'echo >> runs; [ $(wc -l < runs) -gt {fails} ] || {{ echo "Close_Fd {says}" >&2; exit 1; }}'
    outcome = contextlib.nullcontext() if ends_well else pytest.raises(CommandFailed, match=says)
    with contextlib.chdir(tmp_path), outcome:
        until_sealed(["sh", "-c", script], tries=3)
    assert (tmp_path / "runs").read_text() == "\n" * runs


def test_what_is_not_copied_or_only_compiled_or_touched_changes_nothing(image: Image) -> None:
    before = image.key()
    (image.context / "other" / "main.py").write_text("edited")
    (image.context / "room" / "__pycache__").mkdir()
    (image.context / "room" / "__pycache__" / "main.cpython-313.pyc").write_bytes(b"compiled")
    (image.context / "room" / "main.py").touch()
    assert image.key() == before


def blob(layout: Layout, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path = layout.blob(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def add(layout: Layout, name: str | None, layers: list[bytes]) -> list[str]:
    """Puts an image into the layout as an export does; answers with its blobs, the manifest last."""
    digests = [blob(layout, layer) for layer in layers]
    config = blob(layout, json.dumps({"layers": digests}).encode())
    manifest = {"config": {"digest": config}, "layers": [{"digest": digest} for digest in digests]}
    digests += [config, blob(layout, json.dumps(manifest).encode())]
    index = layout.directory / "index.json"
    entries = json.loads(index.read_text())["manifests"] if index.exists() else []
    entry = {"digest": digests[-1], "annotations": {} if name is None else {REF_NAME: name}}
    index.write_text(json.dumps({"manifests": [*entries, entry]}))
    return digests


def sent(layout: Layout, names: list[str], known: set[str]) -> tarfile.TarFile:
    out = io.BytesIO()
    layout.write_archive(out, names, known)
    out.seek(0)
    return tarfile.open(fileobj=out)


def test_a_node_that_has_the_lower_layers_is_sent_the_rest(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    base, edited, config, manifest = add(layout, "localhost/room:dev", [b"base", b"edited source"])
    archive = sent(layout, ["localhost/room:dev"], known={base})
    blobs = [name for name in archive.getnames() if name.startswith("blobs/")]
    assert blobs == [f"blobs/{digest.replace(':', '/')}" for digest in (edited, config, manifest)]


def test_an_archive_names_its_images_for_containerd(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = add(layout, "localhost/a:dev", [b"a"])
    add(layout, "localhost/not-wanted:dev", [b"n"])
    second = add(layout, "localhost/b:dev", [b"b"])
    index = sent(layout, ["localhost/a:dev", "localhost/b:dev"], known=set()).extractfile("index.json")
    assert index is not None
    entries = json.load(index)["manifests"]
    assert [(entry["digest"], entry["annotations"]) for entry in entries] == [
        (first[-1], {CONTAINERD_NAME: "localhost/a:dev"}),
        (second[-1], {CONTAINERD_NAME: "localhost/b:dev"}),
    ]


def test_blobs_of_a_replaced_image_are_deleted_and_shared_ones_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    old = add(layout, None, [b"base", b"old source"])
    new = add(layout, "localhost/room:dev", [b"base", b"new source"])
    layout.forget_unused()
    assert all(layout.blob(digest).exists() for digest in new)
    assert not any(layout.blob(digest).exists() for digest in set(old) - set(new))
    assert layout.digest("localhost/room:dev") == new[-1]


def test_an_unknown_name_has_no_digest_and_no_blobs(tmp_path: Path) -> None:
    assert Layout(tmp_path).digest("localhost/nothing:dev") is None
    assert Layout(tmp_path).blobs("localhost/nothing:dev") == []


def layer(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in names:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            made.addfile(member)
    return out.getvalue()


def test_the_files_of_an_image_are_those_that_no_later_layer_takes_away(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    base = layer("usr/", "usr/bin/", "usr/bin/sh", "usr/bin/python3", "usr/lib/apt/solvers/dump", "var/cache/old")
    bared = layer("usr/bin/.wh.sh", "usr/lib/.wh.apt", "var/cache/.wh..wh..opq", "var/cache/new")
    add(layout, "localhost/room:dev", [base, bared, layer("app/main.py")])
    assert layout.files("localhost/room:dev") == {"usr/bin/python3", "var/cache/new", "app/main.py"}


def test_what_a_later_layer_brings_again_is_there(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    add(layout, "localhost/room:dev", [layer("usr/bin/sh"), layer("usr/bin/.wh.sh"), layer("./usr/bin/sh")])
    assert layout.files("localhost/room:dev") == {"usr/bin/sh"}
