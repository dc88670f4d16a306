"""Whatever of a cluster is still on this host. Empty when there is none, and after one was removed."""

from collections.abc import Iterator
from pathlib import Path

from e2e.cluster import cgroups, network
from e2e.cluster.tools import COMPONENTS


def found(directory: Path) -> list[str]:
    """Processes, mounts, links, cgroups and files of the cluster whose state is below `directory`."""
    lines = [f"process {pid}: {reason}" for pid, reason in _processes(str(directory))]
    lines += [f"mount: {line}" for line in _lines_naming(Path("/proc/mounts"), str(directory))]
    lines += [f"link: {name}" for name in network.ours()]
    lines += [f"cgroup: {path}" for path in cgroups.ours()]
    return [*lines, f"folder: {directory}"] if directory.exists() else lines


def _processes(text: str) -> Iterator[tuple[int, str]]:
    """Components started with a path below the folder, and whatever is on a node: it has the folder mounted."""
    for folder in Path("/proc").glob("[0-9]*"):
        argv = _content(folder / "cmdline").split("\0")
        # A client that was only told where the kubeconfig is does not count.
        component = Path(argv[0]).name in COMPONENTS and any(text in word for word in argv)
        if component or _lines_naming(folder / "mountinfo", text):
            yield int(folder.name), " ".join(argv).strip()


def _lines_naming(file: Path, text: str) -> list[str]:
    return [line for line in _content(file).splitlines() if text in line]


def _content(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        # It ended while we looked.
        return ""
