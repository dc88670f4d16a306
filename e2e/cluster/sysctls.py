"""Settings of the whole kernel that a kubelet changes: written down before it starts, and put back at the end."""

import json
from pathlib import Path

PROC = Path("/proc/sys")
CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def save(file: Path) -> None:
    if not file.exists():
        file.write_text(json.dumps({name: (PROC / name).read_text().strip() for name in CHANGED_BY_KUBELET}))


def restore(file: Path) -> None:
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        if (PROC / name).read_text().strip() != value:
            (PROC / name).write_text(value)
