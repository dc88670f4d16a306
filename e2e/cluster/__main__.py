"""`python -m e2e.cluster`: up, down, images, kubeconfig, status."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import images, kind, packages, paths, tools
from e2e.cluster.cluster import Cluster
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import Progress

KEPT_BY_SUDO = (
    "PATH,HOME,PYTHONPATH,XDG_CACHE_HOME,XDG_STATE_HOME,SSL_CERT_FILE,PIP_INDEX_URL,PIP_EXTRA_INDEX_URL,"
    "PIP_TRUSTED_HOST,http_proxy,https_proxy,no_proxy,HTTP_PROXY,HTTPS_PROXY,NO_PROXY"
)


def main(arguments: Sequence[str]) -> int:
    chosen = _parser().parse_args(arguments)
    try:
        return _dispatch(chosen, arguments)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description="A real Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it, or what is missing of it, and print its kubeconfig")
    up.add_argument("--nodes", type=int, default=1, help="at least so many (default: 1)")
    up.add_argument("--control-plane-only", action="store_true", help="etcd and the API server alone; needs no root")
    down = commands.add_parser("down", help="end it and leave nothing behind")
    down.add_argument("--kind", action="store_true", help="then the demo's cluster of kind, too")
    load = commands.add_parser("images", help="build the product's images and load them into the running cluster")
    load.add_argument("--tag", default=os.environ.get("TAG", "dev"), help="default: TAG, or dev")
    commands.add_parser("kubeconfig", help="print where the kubeconfig is")
    commands.add_parser("status", help="say what runs, and where its logs are")
    return parser


def _dispatch(chosen: argparse.Namespace, arguments: Sequence[str]) -> int:
    progress = Progress()
    cluster = Cluster(progress)
    alone = ControlPlane(paths.state_dir().with_name("control-plane"), Settings(leash=False), progress)
    if chosen.command == "kubeconfig":
        print(cluster.kubeconfig if cluster.kubeconfig.exists() else alone.kubeconfig)
    elif chosen.command == "status":
        print("\n".join([*cluster.status(), *_status_alone(alone)]))
    elif chosen.command == "up" and chosen.control_plane_only:
        with progress.step("Start a control plane without nodes"):
            alone.start()
        print(alone.kubeconfig)
    elif chosen.command == "down" and not cluster.directory.exists() and os.geteuid() != 0:
        alone.remove()
        if chosen.kind:
            kind.down()
    elif os.geteuid() != 0:
        return _as_root(chosen.command, arguments, progress)
    elif chosen.command == "up":
        cluster.up(chosen.nodes)
        _give_to_caller(cluster.kubeconfig)
        print(cluster.kubeconfig)
    elif chosen.command == "down":
        alone.remove()
        cluster.down()
        if chosen.kind:
            kind.down()
    elif chosen.command == "images":
        _images(cluster, chosen.tag)
    return 0


def _status_alone(control_plane: ControlPlane) -> list[str]:
    running = [f"{name} as process {pid}" for name, pid in control_plane.pids().items() if pid is not None]
    return [f"Control plane without nodes: {', '.join(running)}, {control_plane.kubeconfig}"] if running else []


def _images(cluster: Cluster, tag: str) -> None:
    packages.install_missing(cluster.progress)
    names = cluster.builder.product(tag)
    if cluster.is_running():
        cluster.load(names)


def _give_to_caller(file: Path) -> None:
    """Who called sudo may read the administrator's kubeconfig."""
    caller = os.environ.get("SUDO_UID")
    if caller is not None:
        os.chown(file, int(caller), -1)


def _as_root(command: str, arguments: Sequence[str], progress: Progress) -> int:
    """Call this command again through sudo; what is built from source is built before, and belongs to the caller."""
    sudo = packages.as_root()
    # Folders in the caller's home are the caller's, also when root fills them.
    for folder in (paths.cache_dir(), paths.state_dir().parent):
        folder.mkdir(parents=True, exist_ok=True)
    if command == "up":
        for build in (tools.kubernetes, tools.coredns, tools.pause):
            build(progress)
    if command == "images":
        images.build_dashboard()
    again = [*sudo, f"--preserve-env={KEPT_BY_SUDO}", sys.executable, "-m", "e2e.cluster", *arguments]
    return subprocess.run(again, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
