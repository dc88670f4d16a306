"""The whole cluster: control plane, nodes, images and cluster names, brought up step by step and ended without a trace.

Every step looks before it acts, so `up` after an interrupted `up`, after a crash, or on a running cluster does what is
missing and no more. Where things are is written below one state folder, which is gone when the cluster is.
"""

import io
import json
import signal
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from string import Template

from e2e.cluster import cgroups, layout, leftovers, network, packages, paths, sysctls, tools
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.cluster.errors import ClusterError, CommandFailed, UnsuitableHost
from e2e.cluster.images import COREDNS_IMAGE, Builder
from e2e.cluster.layout import NodeLayout
from e2e.cluster.node import Node
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run, wait_until

READY_S = 120.0
SENDINGS = 3
HIDDEN_ON_NODES = (Path("/run"), Path("/var/lib"), Path("/var/log"))
SETTINGS = Settings(
    address=layout.HOST_ADDRESS,
    service_cidr=layout.SERVICE_CIDR,
    service_vip=layout.SERVICE_VIP,
    pod_cidr=layout.POD_CIDR,
    controller_manager=True,
    scheduler=True,
    leash=False,
    audited="foretide-system",
)


class Cluster:
    def __init__(self, progress: Progress | None = None, directory: Path | None = None) -> None:
        self.directory = directory or paths.state_dir()
        self.progress = progress or Progress()
        self.builder = Builder(self.progress)
        self.control_plane = ControlPlane(self.directory / "control-plane", SETTINGS, self.progress)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.control_plane.kubeconfig

    def nodes(self) -> list[Node]:
        """Those that were ever started here, in order."""
        numbers = [int(path.name.removeprefix("node-")) for path in self.directory.glob("node-*")]
        return [self._node(number) for number in sorted(numbers)]

    def node(self, name: str) -> Node:
        """Raises:
        ClusterError: there is no node of that name.
        """
        found = {node.layout.name: node for node in self.nodes()}
        if name not in found:
            raise ClusterError(f"No node {name!r} in this cluster; it has {', '.join(found) or 'none'}.")
        return found[name]

    def up(self, count: int = 1) -> None:
        """At least `count` nodes, Ready, with names for Services. Nodes beyond that stay as they are."""
        self._check_host(count)
        packages.install_missing(self.progress)
        network.check_routes()
        binaries = tools.kubernetes(self.progress)
        system_images = self.builder.system()
        with self._exclusively():
            with self.progress.step("Start the control plane"):
                self.directory.mkdir(parents=True, exist_ok=True)
                sysctls.save(self.directory / "sysctls.json")
                network.make_bridge()
                self.control_plane.start()
            nodes = [self._node(number + 1) for number in range(max(count, len(self.nodes())))]
            with self.progress.step(f"Start {', '.join(node.layout.name for node in nodes)}"):
                self._start(nodes, binaries)
            self.load(system_images, nodes)
            with self.progress.step("Wait until nodes are Ready and names resolve"):
                self._apply_dns()
                what = f"Ready nodes and cluster names (kubelets' logs: {self.directory}/node-*/log/kubelet.log)"
                wait_until(lambda: self._ready(nodes), what, READY_S)

    def down(self) -> None:
        """End everything; returns when the host is as it was before. Does nothing where there is no cluster.

        Raises:
            ClusterError: something is left; the message lists it.
        """
        with self._exclusively():
            with self.progress.step("Remove the cluster"):
                for node in self.nodes():
                    node.stop()
                self.control_plane.remove()
                network.remove()
                cgroups.remove_all()
                sysctls.restore(self.directory / "sysctls.json")
                # Unpacked images are tens of thousands of files; rm takes a fraction of what shutil.rmtree does.
                run(["rm", "--recursive", "--force", "--one-file-system", self.directory])
            left = leftovers.found(self.directory)
        if left:
            raise ClusterError("The cluster was removed, but these are left:\n" + "\n".join(left))

    def load(self, names: Iterable[str], nodes: Iterable[Node] | None = None) -> None:
        """Give nodes the images that they lack or have in another version. Running containers keep theirs."""
        names = list(names)
        for node in self.nodes() if nodes is None else nodes:
            node.wait_for_containerd()
            present = _images(node)
            wanted = [name for name in names if present.get(name) != self.builder.layout.digest(name)]
            if wanted:
                short = ", ".join(name.rpartition("/")[2] for name in wanted)
                with self.progress.step(f"Load {short} into {node.layout.name}"):
                    self._send(node, wanted)

    def cut(self, name: str) -> None:
        """Pull a node's network cable. What runs on it goes on, unheard."""
        network.cut(self.node(name).layout)

    def heal(self, name: str) -> None:
        network.heal(self.node(name).layout)

    def power_off(self, name: str) -> None:
        """Switch a node off without a word to what runs on it."""
        self.node(name).stop()

    def power_on(self, name: str) -> None:
        self._start([self.node(name)], tools.kubernetes(self.progress))

    def restart_apiserver(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.control_plane.restart_apiserver(how)

    def is_running(self) -> bool:
        return self.directory.exists() and all(pid is not None for pid in self.control_plane.pids().values())

    def status(self) -> list[str]:
        """One line per process of the control plane and per node."""
        if not self.directory.exists():
            return ["No cluster."]
        lines = [f"{name}: {_state(pid)}" for name, pid in self.control_plane.pids().items()]
        for node in self.nodes():
            lines.append(f"{node.layout.name}: {_state(node.pid())}, {node.layout.address}, logs in {node.layout.log}")
        return lines

    def _node(self, number: int) -> Node:
        return Node(NodeLayout(number, self.directory / f"node-{number}"))

    def _exclusively(self) -> AbstractContextManager[None]:
        return tools.exclusively(paths.cache_dir() / "cluster.lock")

    def _start(self, nodes: list[Node], binaries: Path) -> None:
        for node in nodes:
            node.start(binaries, self.control_plane.pki, self.control_plane.url)
        running = [(node.layout, pid) for node in self.nodes() if (pid := node.pid()) is not None]
        network.route(running)

    def _send(self, node: Node, names: list[str]) -> None:
        """What containerd's garbage collection takes away between two steps, as no image names it yet, is sent anew."""
        for _ in range(SENDINGS - 1):
            with suppress(CommandFailed):
                return self._send_once(node, names)
        return self._send_once(node, names)

    def _send_once(self, node: Node, names: list[str]) -> None:
        images = self.builder.layout
        known = set(node.ctr("content", "ls", "--quiet").split())
        for digest in dict.fromkeys(digest for name in names for digest in images.layers(name)):
            if digest not in known:
                node.adopt(digest, images.blob(digest))
                known.add(digest)
        archive = io.BytesIO()
        images.write_archive(archive, names, known)
        node.ctr("images", "import", "-", stdin=archive.getvalue())

    def _apply_dns(self) -> None:
        values = {"COREDNS_IMAGE": COREDNS_IMAGE, "DNS_VIP": layout.DNS_VIP}
        host = {"HOST_NAME": layout.HOST_NAME, "HOST_ADDRESS": layout.HOST_ADDRESS}
        manifest = Template((paths.SOURCES / "coredns.yaml").read_text()).substitute(values | host)
        self._kubectl("apply", "--server-side", "--filename=-", stdin=manifest)

    def _ready(self, nodes: list[Node]) -> bool:
        listed = json.loads(self._kubectl("get", "nodes", "--output=json"))["items"]
        ready = {item["metadata"]["name"] for item in listed if _condition(item, "Ready")}
        dns = json.loads(self._kubectl("get", "deployment", "coredns", "--namespace=kube-system", "--output=json"))
        return ready >= {node.layout.name for node in nodes} and _condition(dns, "Available")

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run([tools.kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments], stdin=stdin)

    def _check_host(self, count: int) -> None:
        if not 1 <= count <= layout.MAX_NODES:
            raise UnsuitableHost(f"{count} nodes are asked for; from 1 to {layout.MAX_NODES} are possible.")
        for path in (self.directory, paths.cache_dir()):
            hiding = [str(hidden) for hidden in HIDDEN_ON_NODES if path.is_relative_to(hidden)]
            if hiding:
                raise UnsuitableHost(
                    f"{path} lies below {hiding[0]}, of which each node has its own. "
                    "Set XDG_STATE_HOME and XDG_CACHE_HOME to folders elsewhere."
                )


def _images(node: Node) -> dict[str, str]:
    rows = [line.split() for line in node.ctr("images", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def _condition(item: dict[str, dict[str, list[dict[str, str]]]], kind: str) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def _state(pid: int | None) -> str:
    return "stopped" if pid is None else f"running as process {pid}"
