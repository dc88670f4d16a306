"""One node: process, mount, network and host-name namespaces of its own around containerd, kubelet and kube-proxy.

All of it is below one process, which the kernel takes as process 1 of the node: when that is killed, every process,
mount and network device of the node goes with it, as with the power of a real machine. A second node is the same again.
"""

import errno
import os
import shutil
import signal
from pathlib import Path

from e2e.cluster import cgroups, kubeconfig, network, node_files
from e2e.cluster.layout import NodeLayout
from e2e.cluster.pki import Authority
from e2e.cluster.process import Process, start_time
from e2e.cluster.shell import program, run, wait_until

CHILDREN_S = 10.0
END_S = 30.0


class Node:
    def __init__(self, layout: NodeLayout) -> None:
        self.layout = layout
        self._holder = Process(layout.name, layout.directory)

    def pid(self) -> int | None:
        """The host's number for the node's process 1, if the node is on."""
        holder = self._holder.pid()
        return _child(holder) if holder is not None else None

    def start(self, binaries: Path, authority: Authority, server: str) -> None:
        """Switch it on unless it is; returns when it has a network, before it is Ready."""
        if self.pid() is None:
            self._prepare(binaries, authority, server)
            new = ["unshare", "--mount", "--propagation=slave", "--net", "--uts", "--pid", "--fork", "--mount-proc"]
            self._holder.start([*new, "/bin/sh", self.layout.directory / "init.sh"])
            wait_until(lambda: self.pid() is not None, f"the first process of {self.layout.name}", CHILDREN_S)
        pid = self.pid()
        assert pid is not None
        network.attach(self.layout, pid)

    def stop(self) -> None:
        """Switch it off, without a word to what runs on it."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: start_time(pid) is None, f"the end of {self.layout.name}", END_S)
        self._holder.stop()
        network.detach(self.layout)

    def inside(self, *argv: str) -> list[str]:
        """The command that runs `argv` on the node."""
        pid = self.pid()
        assert pid is not None, f"{self.layout.name} is off"
        return ["nsenter", f"--target={pid}", "--mount", "--net", "--uts", "--pid", "--", *argv]

    def ctr(self, *arguments: str, stdin: bytes | Path | None = None) -> str:
        """Call containerd's own client, in the namespace that holds Kubernetes' images and containers."""
        socket = f"--address={node_files.CONTAINERD_SOCKET}"
        return run(self.inside(program("ctr"), socket, "--namespace=k8s.io", *arguments), stdin=stdin)

    def adopt(self, digest: str, blob: Path) -> None:
        """Put a blob into containerd's store by a link: what it finds there it need not be sent, only told of."""
        store = self.layout.var_lib / "containerd/io.containerd.content.v1.content/blobs"
        kept = store / digest.replace(":", "/")
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _link(blob, kept)
        size = f"--expected-size={blob.stat().st_size}"
        self.ctr("content", "ingest", f"--expected-digest={digest}", size, f"adopt-{digest}", stdin=blob)

    def wait_for_containerd(self) -> None:
        wait_until(self._containerd_answers, f"containerd on {self.layout.name}", END_S)

    def _containerd_answers(self) -> bool:
        self._holder.check()
        return os.path.exists(f"/proc/{self.pid()}/root{node_files.CONTAINERD_SOCKET}")

    def _prepare(self, binaries: Path, authority: Authority, server: str) -> None:
        layout = self.layout
        for folder in (layout.etc / "cni", layout.log, layout.var_lib):
            folder.mkdir(parents=True, exist_ok=True)
        cgroups.make(layout.cgroup)
        self._write("containerd.toml", node_files.containerd_config(layout))
        self._write("cni/pods.conflist", node_files.cni_conflist(layout))
        self._write("resolv.conf", "nameserver 127.0.0.1\n")
        kubelet_user = f"system:node:{layout.name}"
        names = [layout.name, layout.address]
        serving = authority.server(f"kubelet-{layout.name}", kubelet_user, names, "system:nodes")
        self._write("kubelet.json", node_files.kubelet_config(layout, authority.certificate, serving))
        kubeconfig.write(layout.etc / "kubelet.kubeconfig", "node", server, authority.certificate, serving)
        proxy = authority.client("kube-proxy", "system:kube-proxy")
        proxy_config = kubeconfig.write(
            layout.etc / "kube-proxy.kubeconfig", "node", server, authority.certificate, proxy
        )
        self._write("kube-proxy.json", node_files.kube_proxy_config(layout, proxy_config))
        script = node_files.init_script(layout, self._programs(binaries))
        (layout.directory / "init.sh").write_text(script)

    def _programs(self, binaries: Path) -> dict[str, list[str]]:
        layout = self.layout
        kubelet = [
            str(binaries / "kubelet"),
            f"--config={layout.etc / 'kubelet.json'}",
            f"--kubeconfig={layout.etc / 'kubelet.kubeconfig'}",
            f"--hostname-override={layout.name}",
            f"--node-ip={layout.address}",
            f"--node-labels=topology.kubernetes.io/zone={layout.zone}",
        ]
        return {
            "containerd": [program("containerd"), f"--config={layout.etc / 'containerd.toml'}"],
            "kubelet": kubelet,
            "kube-proxy": [str(binaries / "kube-proxy"), f"--config={layout.etc / 'kube-proxy.json'}"],
        }

    def _write(self, file: str, content: str) -> None:
        (self.layout.etc / file).write_text(content)


def _child(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)
