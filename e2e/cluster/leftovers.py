"""Whatever of a cluster is still on this host. Empty when there is none, and after one was removed."""

import os
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster import cgroups, network


def found(directory: Path) -> list[str]:
    """Processes, mounts, links, cgroups and files of the cluster whose state is below `directory`."""
    lines = [f"process {pid}: {reason}" for pid, reason in _processes(str(directory))]
    lines += [f"mount: {line}" for line in _lines_naming(Path("/proc/mounts"), str(directory))]
    lines += [f"link: {name}" for name in network.ours()]
    lines += [f"cgroup: {path}" for path in cgroups.ours()]
    return [*lines, f"folder: {directory}"] if directory.exists() else lines


def _processes(text: str) -> Iterator[tuple[int, str]]:
    """Those started with a path below the folder, and those on a node: they have it mounted."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        command = _content(folder / "cmdline").replace("\0", " ").strip()
        if pid != os.getpid() and (text in command or _lines_naming(folder / "mountinfo", text)):
            yield pid, command


def _lines_naming(file: Path, text: str) -> list[str]:
    return [line for line in _content(file).splitlines() if text in line]


def _content(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        # It ended while we looked.
        return ""
