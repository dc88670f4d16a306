"""One cgroup per node, below the root of every controller: a node's pods are counted there, and removed with it."""

import os
from functools import partial
from pathlib import Path

from e2e.cluster.layout import CGROUP_PREFIX
from e2e.cluster.shell import wait_until

ROOT = Path("/sys/fs/cgroup")
INHERITED = ("cpuset.cpus", "cpuset.mems")
DELEGATED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def make(name: str) -> None:
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        if hierarchy == ROOT:
            _delegate(hierarchy)
            _delegate(group)
        else:
            _inherit(hierarchy, group)


def remove_all() -> None:
    """The processes in them must have ended; the kernel may take a moment to agree that they have."""
    for group in ours():
        wait_until(partial(_removed, group), f"the removal of {group}", 10)


def ours() -> list[Path]:
    """In every hierarchy, also in those where none was made here: runc makes its own where it misses one."""
    return [*sorted(ROOT.glob(f"{CGROUP_PREFIX}*")), *sorted(ROOT.glob(f"*/{CGROUP_PREFIX}*"))]


def _hierarchies() -> list[Path]:
    """The one of version 2, or every mounted one of version 1."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    # "cpu" may be a link to "cpu,cpuacct"; "unified" is a version 2 without controllers, used by nobody here.
    mounted = [path for path in sorted(ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]
    return [path for path in mounted if (path / "cgroup.procs").exists() and path.name != "unified"]


def _inherit(parent: Path, group: Path) -> None:
    # A new cpuset is empty, and no process may enter an empty one.
    for file in INHERITED:
        if (parent / file).exists():
            (group / file).write_text((parent / file).read_text())


def _delegate(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in DELEGATED if name in available))


def _removed(group: Path) -> bool:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    except OSError:
        return not group.exists()
    return True
