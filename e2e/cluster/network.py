"""A bridge on the host and a virtual cable to each node. The host's firewall and its forwarding are left alone.

Pods are reached by routes, one per node's share of the pod addresses. The cluster addresses of Services are reached
from the host through the first node.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network

from e2e.cluster.errors import CommandFailed, UnsuitableHost
from e2e.cluster.layout import (
    BRIDGE,
    HOST_ADDRESS,
    LINK_PREFIX,
    NODE_NETWORK,
    POD_CIDR,
    SERVICE_CIDR,
    NodeLayout,
)
from e2e.cluster.shell import program, run, wait_until

DELETE_S = 10.0


def check_routes() -> None:
    """Raises:
    UnsuitableHost: the host leads addresses that nodes, pods or Services get elsewhere.
    """
    wanted = [IPv4Network(cidr) for cidr in (POD_CIDR, SERVICE_CIDR, f"{NODE_NETWORK}.0/24")]
    for one in json.loads(_ip("-4", "-json", "route", "show")):
        device = str(one.get("dev", ""))
        if one["dst"] == "default" or device == BRIDGE or device.startswith(LINK_PREFIX):
            continue
        for network in wanted:
            if IPv4Network(one["dst"]).subnet_of(network):
                raise UnsuitableHost(
                    f"This host has a route to {one['dst']} ({device or 'no device'}), which lies in {network} that the"
                    " cluster uses: another cluster may run here. End that, or take its route away."
                )


def make_bridge() -> None:
    if BRIDGE in links():
        return
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{HOST_ADDRESS}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def attach(node: NodeLayout, pid: int) -> None:
    """Connect the network namespace of process `pid`."""
    if node.link not in links():
        _ip("link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _ip("link", "set", node.link, "master", BRIDGE, "up")
    inside = ("nsenter", "--target", str(pid), "--net", program("ip"))
    run([*inside, "address", "replace", f"{node.address}/24", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "route", "replace", "default", "via", HOST_ADDRESS])


def route(nodes: Sequence[tuple[NodeLayout, int]]) -> None:
    """Routes to every node's pods, on the host and on each of the other nodes (given with their processes)."""
    for node, _ in nodes:
        _ip("route", "replace", node.pod_cidr, "via", node.address)
    _ip("route", "replace", SERVICE_CIDR, "via", nodes[0][0].address)
    for here, pid in nodes:
        for other, _ in nodes:
            if other != here:
                inside = ("nsenter", "--target", str(pid), "--net", program("ip"))
                run([*inside, "route", "replace", other.pod_cidr, "via", other.address])


def cut(node: NodeLayout) -> None:
    """Pull the node's cable: no packet in or out. What runs on the node goes on."""
    _ip("link", "set", node.link, "down")


def heal(node: NodeLayout) -> None:
    _ip("link", "set", node.link, "up")


def detach(node: NodeLayout) -> None:
    _delete([node.link])


def remove() -> None:
    """Routes go with the links they lead through."""
    _delete(ours())


def _delete(names: Sequence[str]) -> None:
    """The kernel also deletes the links of a node that ended, in its own time, so each may vanish before our turn."""
    for name in names:
        if name in links():
            with suppress(CommandFailed):
                _ip("link", "delete", name)
    wait_until(lambda: not set(names) & set(links()), f"the end of the links {', '.join(names)}", DELETE_S)


def ours() -> list[str]:
    return sorted(name for name in links() if name == BRIDGE or name.startswith(LINK_PREFIX))


def links() -> list[str]:
    return [str(link["ifname"]) for link in json.loads(_ip("-json", "link", "show"))]


def _ip(*arguments: str) -> str:
    return run([program("ip"), *arguments])
