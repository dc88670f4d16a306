"""A cluster of kind where Docker runs: made, given the product's images, and deleted, always by its name."""

import shutil
import subprocess
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.images import PRODUCT, content_tag
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run

NAME = "foretide"
MODELS = "/srv/models"
CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  extraMounts:
  - {{hostPath: {models}, containerPath: {inside}, readOnly: true}}
"""


def is_possible() -> bool:
    docker = shutil.which("docker") if shutil.which("kind") else None
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def exists() -> bool:
    return is_possible() and NAME in run(["kind", "get", "clusters"]).split()


def kubeconfig() -> Path:
    """Where `up` writes it."""
    return paths.state_dir().with_name("kind.kubeconfig")


def up(models: Path, progress: Progress) -> None:
    """One node, with the folder `models` at MODELS."""
    if not exists():
        with progress.step("Create the kind cluster"):
            made = CONFIG.format(models=models, inside=MODELS)
            run(["kind", "create", "cluster", "--name", NAME, "--config", "-"], stdin=made)
    kubeconfig().parent.mkdir(parents=True, exist_ok=True)
    kubeconfig().write_text(run(["kind", "get", "kubeconfig", "--name", NAME]))


def load_images(progress: Progress) -> str:
    """Their tag, another one after each edit of what they are made from."""
    tag = content_tag()
    for name, folder in PRODUCT.items():
        image, dockerfile = f"foretide/{name}:{tag}", paths.REPOSITORY / folder / "Dockerfile"
        with progress.step(f"Build {image}"):
            run(["docker", "build", "-q", "-t", image, "-f", dockerfile, paths.REPOSITORY])
        with progress.step(f"Load {image}"):
            run(["kind", "load", "docker-image", image, "--name", NAME])
    return tag


def down() -> None:
    """Does nothing where there is none."""
    if exists():
        run(["kind", "delete", "cluster", "--name", NAME])
    kubeconfig().unlink(missing_ok=True)
