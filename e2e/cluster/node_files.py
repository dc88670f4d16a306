"""The files a node is started from: pure functions from its layout to text.

The settings that look odd were each needed: an unprivileged root without CAP_SYS_RESOURCE, cgroup v1, swap, a disk that
is nearly full with other things, and kernels whose limits belong to somebody else.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join, quote

from e2e.cluster.layout import DNS_VIP, POD_CIDR, NodeLayout
from e2e.cluster.pki import Pair

PAUSE_IMAGE = "localhost/foretide-pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_PROGRAMS = "/usr/lib/cni"


def containerd_config(node: NodeLayout) -> str:
    return f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE runc may not lower a score, and dies of it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{node.etc / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def cni_conflist(node: NodeLayout) -> str:
    addresses = {"type": "host-local", "ranges": [[{"subnet": node.pod_cidr}]], "routes": [{"dst": "0.0.0.0/0"}]}
    # Pods have routes in every direction they may go, so their own addresses are seen everywhere: no masquerading.
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}, indent=1)


def kubelet_config(node: NodeLayout, authority: Path, serving: Pair) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_VIP],
            "resolvConf": str(node.etc / "resolv.conf"),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{node.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            # Local images cannot be pulled again.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "nodeStatusUpdateFrequency": "4s",
        },
        indent=1,
    )


def kube_proxy_config(node: NodeLayout, kubeconfig: Path) -> str:
    # 0 leaves the kernel's values, which are the whole machine's, as they are.
    conntrack = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "hostnameOverride": node.name,
            "mode": "nftables",
            "clusterCIDR": POD_CIDR,
            "conntrack": conntrack,
        },
        indent=1,
    )


def init_script(node: NodeLayout, programs: Mapping[str, Sequence[str]]) -> str:
    """Process 1 of the node. It gives the node folders of its own, waits for its network, and keeps `programs` running.

    Everything in the node is its descendant, and every mount is in its namespace: the kernel ends all of it with it.
    """
    supervised = "\n".join(f"supervise {name} {join(argv)} &" for name, argv in programs.items())
    return f"""\
#!/bin/sh
set -eu
mount --make-rshared /
mount --bind {quote(str(node.var_lib))} /var/lib
mount --bind {quote(str(node.log))} /var/log
mount -t tmpfs -o mode=0755 tmpfs /run
hostname {node.name}
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
until ip -4 address show dev eth0 2>/dev/null | grep -q inet; do sleep 0.1; done

supervise() {{
    name=$1
    shift
    while :; do
        "$@" >>"/var/log/$name.log" 2>&1 || true
        sleep 1
    done
}}
{supervised}
# The shell's wait also collects what was left to process 1.
while :; do wait || true; sleep 1; done
"""
