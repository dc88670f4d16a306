"""Names and addresses of everything in the cluster: arithmetic on a node's number. It never touches the machine."""

from dataclasses import dataclass
from pathlib import Path

BRIDGE = "foretide0"
LINK_PREFIX = "ftide-"
CGROUP_PREFIX = "foretide-node-"

NODE_NETWORK = "10.246.0"
HOST_ADDRESS = f"{NODE_NETWORK}.1"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.245.0.0/16"
SERVICE_VIP = "10.245.0.1"
DNS_VIP = "10.245.0.10"
# What pods may call this host, for instance to fetch something that a test serves.
HOST_NAME = "host.foretide.internal"
MAX_NODES = 9


@dataclass(frozen=True)
class NodeLayout:
    number: int
    """From 1."""
    directory: Path
    """What this node does not share with the others."""

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def zone(self) -> str:
        return f"zone-{self.number}"

    @property
    def address(self) -> str:
        return f"{NODE_NETWORK}.{10 + self.number}"

    @property
    def pod_cidr(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The host's end of its network cable."""
        return f"{LINK_PREFIX}{self.name}"

    @property
    def cgroup(self) -> str:
        return f"{CGROUP_PREFIX}{self.number}"

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def log(self) -> Path:
        """The node's /var/log."""
        return self.directory / "log"

    @property
    def var_lib(self) -> Path:
        """The node's /var/lib: containers, volumes, and whatever a hostPath below it names."""
        return self.directory / "lib"
