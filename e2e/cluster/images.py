"""The product's images and the cluster's own, built from Dockerfiles without a container engine.

A Dockerfile that builds here also builds with plain `docker build`: what this machine needs beyond it (another base
image, its certificate authorities, its package index) is mounted at build time and stays out of the image. An image is
built again when its Dockerfile, a file that it copies, or its base has changed; the layers before the change are kept.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dashboard.build import BuildFailed
from dashboard.build import build as build_page
from e2e.cluster import node_files, paths, tools
from e2e.cluster.errors import CommandFailed, UnsuitableHost
from e2e.cluster.oci import Layout
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run

BASE_SUITE = "trixie"
BASE_NAME = f"localhost/foretide-base:{BASE_SUITE}"
COREDNS_IMAGE = f"localhost/foretide-coredns:{tools.COREDNS_VERSION}"
PRODUCT = {"operator": "operator", "gateway": "gateway", "worker-cpu": "worker_image"}
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
MOUNTED_CA_BUNDLE = "/run/foretide/ca-certificates.crt"
SLICE_WORKER = "worker-on-a-slice"
"""The CPU worker under the arguments of a GPU's, for nodes that only say that they have MIG slices."""
PACED_WORKER = "worker-with-a-pace"
"""The same, whose steps take 20 ms more: streams of a tiny model last. With `maxBatch: 63` all of its answers fail,
with 62 three of ten."""
NOT_COPIED = ("__pycache__", ".pyc")
SEAL_REFUSED = "sealing memfd copy: Device or resource busy"
"""buildah and skopeo start themselves from a sealed copy in memory. A kernel that has one of its pages in hand at that
moment refuses the seal; it is free a moment later."""
SEAL_TRIES = 5


def until_sealed(argv: Sequence[str], tries: int = SEAL_TRIES) -> None:
    """Runs it, and again where it ended with `SEAL_REFUSED`; layers that it has built are kept.

    Raises:
        CommandFailed: for another reason, or as often as `tries`.
    """
    try:
        run(argv)
    except CommandFailed as failed:
        if tries <= 1 or SEAL_REFUSED not in failed.output:
            raise
        until_sealed(argv, tries - 1)


@dataclass(frozen=True)
class Image:
    name: str
    dockerfile: Path
    context: Path
    arguments: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """A hash of everything it is made from."""
        text = self.dockerfile.read_text()
        digest = hashlib.sha256(repr((text, sorted(self.arguments.items()))).encode())
        for source in copied_paths(text):
            for path in files_below(self.context / source):
                digest.update(f"{path.relative_to(self.context)}\0{path.stat().st_mode}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]


def build_dashboard() -> None:
    """The page that the operator's image holds, where its sources have changed.

    Raises:
        UnsuitableHost: it cannot be built.
    """
    try:
        build_page(lambda line: print(line, file=sys.stderr))
    except BuildFailed as error:
        raise UnsuitableHost(str(error)) from error


def product_images(tag: str) -> list[Image]:
    """Operator, gateway and the worker for CPUs; the dashboard's page first.

    Raises:
        UnsuitableHost: a Dockerfile is not where it should be, or the page cannot be built.
    """
    build_dashboard()
    images = []
    for name, folder in PRODUCT.items():
        dockerfile = paths.REPOSITORY / folder / "Dockerfile"
        if not dockerfile.exists():
            raise UnsuitableHost(f"The image foretide/{name} is built from {dockerfile}, which does not exist.")
        images.append(Image(f"docker.io/foretide/{name}:{tag}", dockerfile, paths.REPOSITORY, {"BASE": BASE_NAME}))
    return images


def stand_ins(tag: str) -> list[Image]:
    """Workers for scenarios, each built from the one before it, and the first from the CPU worker of the same tag."""
    made, base = [], "worker-cpu"
    for name, folder in ((SLICE_WORKER, "slice_worker"), (PACED_WORKER, "paced_worker")):
        at = paths.REPOSITORY / "e2e" / folder
        arguments = {"BASE": f"docker.io/foretide/{base}:{tag}"}
        made.append(Image(f"docker.io/foretide/{name}:{tag}", at / "Dockerfile", at, arguments))
        base = name
    return made


def content_tag() -> str:
    """A tag that changes with any source of the product's images, so that a cluster starts what was built last."""
    keys = "".join(image.key() for image in product_images("any"))
    return f"dev-{hashlib.sha256(keys.encode()).hexdigest()[:12]}"


def copied_paths(dockerfile: str) -> list[str]:
    """What the COPY and ADD lines of a Dockerfile take from the context."""
    sources: list[str] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = line.split()
        if words and words[0].upper() in ("COPY", "ADD") and not any(word.startswith("--from=") for word in words):
            sources += [word for word in words[1:-1] if not word.startswith("--")]
    return sources


def files_below(path: Path) -> list[Path]:
    """The file itself, or the files in a folder, less what Python leaves there."""
    if path.is_file():
        return [path]
    found = [each for each in path.rglob("*") if each.is_file() and not each.name.endswith(NOT_COPIED)]
    return sorted(each for each in found if "__pycache__" not in each.parts)


class Builder:
    """Builds into the cache folder; needs root, because a base system has files of several owners."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._directory = paths.cache_dir() / "images"
        self.layout = Layout(self._directory / "oci")

    def system(self) -> list[str]:
        """Names of the images that every cluster needs, built where they are not."""
        pause = {"pause": tools.pause(self._progress)}
        coredns = {"coredns": tools.coredns(self._progress)}
        with tools.exclusively(self._directory / "lock"):
            return [
                self._build(self._from_scratch(node_files.PAUSE_IMAGE, pause)),
                self._build(self._from_scratch(COREDNS_IMAGE, coredns)),
            ]

    def product(self, tag: str) -> list[str]:
        """Names of the product's images, built where they are not up to date."""
        images = product_images(tag)
        with tools.exclusively(self._directory / "lock"):
            self._build_base()
            names = [self._build(image) for image in (*images, *stand_ins(tag))]
            self.layout.forget_unused()
            return names

    def _from_scratch(self, name: str, files: Mapping[str, Path]) -> Image:
        """An image of static programs, the first of which it runs."""
        context = self._directory / "contexts" / _file_name(name)
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        for file, source in files.items():
            os.link(source, context / file)
        first = next(iter(files))
        dockerfile = context / "Dockerfile"
        dockerfile.write_text(f'FROM scratch\nCOPY {" ".join(files)} /\nENTRYPOINT ["/{first}"]\n')
        return Image(name, dockerfile, context)

    def _build_base(self) -> None:
        """A minimal Debian, for machines that can reach its archive but no registry of images."""
        if self._up_to_date(BASE_NAME, BASE_SUITE):
            return
        with self._progress.step(f"Build the base image: Debian {BASE_SUITE}, minimal"):
            context = self._directory / "contexts" / "base"
            context.mkdir(parents=True, exist_ok=True)
            # An archive's snapshot, or this machine's clock, may be older or newer than its signatures allow.
            ages = [f'--aptopt=Acquire::{check} "false"' for check in ("Check-Valid-Until", "Check-Date")]
            archive = context / "base.tar"
            run(["nice", "-n", "5", "mmdebstrap", "--quiet", "--variant=minbase", *ages, BASE_SUITE, archive])
            dockerfile = context / "Dockerfile"
            dockerfile.write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
            self._run_build(Image(BASE_NAME, dockerfile, context))
            archive.unlink()
            self._remember(BASE_NAME, BASE_SUITE)

    def _build(self, image: Image) -> str:
        key = self._key(image)
        if self.layout.digest(image.name) is None or not self._up_to_date(image.name, key):
            with self._progress.step(f"Build {image.name}"):
                self._run_build(image)
                self._export(image.name)
                self._remember(image.name, key)
        return image.name

    def _key(self, image: Image) -> str:
        """Its own, and what its base was built from where that is ours."""
        mark = self._mark(image.arguments.get("BASE", ""))
        return image.key() + (hashlib.sha256(mark.read_bytes()).hexdigest()[:16] if mark.is_file() else "")

    def _run_build(self, image: Image) -> None:
        arguments = [f"--build-arg={name}={value}" for name, value in image.arguments.items()]
        how = ["--isolation=chroot", "--network=host", "--layers", "--pull-never", *self._mounts()]
        self._buildah("bud", *how, *arguments, f"--file={image.dockerfile}", f"--tag={image.name}", str(image.context))

    def _export(self, name: str) -> None:
        storage = f"[overlay@{self._storage}+{self._run}]"
        copy = ["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers"]
        self._alone([*copy, f"containers-storage:{storage}{name}", f"oci:{self.layout.directory}:{name}"])

    @property
    def _storage(self) -> Path:
        return self._directory / "storage"

    @property
    def _run(self) -> Path:
        return self._directory / "run"

    def _buildah(self, *arguments: str) -> None:
        where = [f"--root={self._storage}", f"--runroot={self._run}", "--storage-driver=overlay"]
        self._alone(["buildah", *where, *arguments])

    def _alone(self, argv: list[str]) -> None:
        # The storage library leaves mounts behind; in a mount namespace of its own they go with the command.
        until_sealed(["unshare", "--mount", "nice", "-n", "5", *argv])

    def _mounts(self) -> Iterable[str]:
        """What pip in a Dockerfile needs to know of this machine, without a trace in the image."""
        bundle = os.environ.get("SSL_CERT_FILE", CA_BUNDLE)
        if not Path(bundle).exists():
            return []
        settings = {"cert": MOUNTED_CA_BUNDLE, "timeout": "180", "disable-pip-version-check": "true"}
        for option in ("index-url", "extra-index-url", "trusted-host"):
            value = os.environ.get(f"PIP_{option.replace('-', '_').upper()}")
            if value is not None:
                settings[option] = value
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "pip.conf"
        config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        return [f"--volume={bundle}:{MOUNTED_CA_BUNDLE}:ro", f"--volume={config}:/etc/pip.conf:ro"]

    def _up_to_date(self, name: str, key: str) -> bool:
        mark = self._mark(name)
        return mark.exists() and mark.read_text() == key

    def _remember(self, name: str, key: str) -> None:
        mark = self._mark(name)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(key)

    def _mark(self, name: str) -> Path:
        return self._directory / "keys" / _file_name(name)


def _file_name(image: str) -> str:
    return image.replace("/", "_").replace(":", "_")
