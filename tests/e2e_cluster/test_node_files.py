"""The files a node starts from, and the arithmetic of names and addresses."""

import json
import subprocess
import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from e2e.cluster import layout, node_files
from e2e.cluster.layout import NodeLayout
from e2e.cluster.pki import Pair

NODES = [NodeLayout(number, Path(f"/state/with a space/node-{number}")) for number in range(1, layout.MAX_NODES + 1)]


def test_no_two_nodes_share_a_name_an_address_or_a_cgroup() -> None:
    for attribute in ("name", "zone", "address", "pod_cidr", "link", "cgroup", "directory"):
        assert len({getattr(node, attribute) for node in NODES}) == len(NODES), attribute


def test_networks_do_not_overlap_and_link_names_fit_the_kernel() -> None:
    services, pods = IPv4Network(layout.SERVICE_CIDR), IPv4Network(layout.POD_CIDR)
    assert not services.overlaps(pods)
    assert {IPv4Address(layout.SERVICE_VIP), IPv4Address(layout.DNS_VIP)} <= set(services.hosts())
    for node in NODES:
        assert IPv4Network(node.pod_cidr).subnet_of(pods)
        assert not any(IPv4Address(node.address) in network for network in (services, pods))
        # IFNAMSIZ, less the byte that ends the name.
        assert len(node.link) <= 15


def test_containerd_runs_without_the_capability_to_raise_limits() -> None:
    config = tomllib.loads(node_files.containerd_config(NODES[0]))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == node_files.PAUSE_IMAGE


def test_pods_of_a_node_get_addresses_of_its_share() -> None:
    bridge = json.loads(node_files.cni_conflist(NODES[2]))["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": NODES[2].pod_cidr}]]


def test_a_kubelet_trusts_nobody_without_a_certificate_or_token() -> None:
    config = json.loads(node_files.kubelet_config(NODES[0], Path("/ca.crt"), Pair(Path("/k.crt"), Path("/k.key"))))
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert config["authorization"]["mode"] == "Webhook"
    assert config["cgroupRoot"] == f"/{NODES[0].cgroup}"


def test_the_first_process_of_a_node_is_a_valid_script_whatever_its_paths_hold(tmp_path: Path) -> None:
    programs = {"kubelet": ["/opt/a folder/kubelet", "--node-labels=a=$(reboot)", "it's"]}
    script = tmp_path / "init.sh"
    script.write_text(node_files.init_script(NODES[0], programs))
    subprocess.run(["/bin/sh", "-n", script], check=True)
    supervised = [line for line in script.read_text().splitlines() if line.startswith("supervise kubelet")]
    echoed = subprocess.run(
        ["/bin/sh", "-c", f'supervise() {{ printf "%s\\n" "$@"; }}; {supervised[0].removesuffix(" &")}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert echoed.stdout.splitlines() == ["kubelet", *programs["kubelet"]]
