from pathlib import Path

import pytest

from worker_image.engine.memory import free_memory_bytes

GIB = 2**30


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_a_containers_limit_counts_in_both_versions_of_cgroups(tmp_path: Path, limit: str, used: str) -> None:
    assert free_memory_bytes(_write(tmp_path, {limit: f"{GIB // 4}\n", used: f"{GIB // 16}\n"})) == GIB * 3 // 16


@pytest.mark.parametrize(
    ("folder", "limit", "used", "prefix"),
    [("", "memory.max", "memory.current", ""), ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")],
)
def test_pages_of_files_that_were_read_count_as_free_as_the_kernel_gives_them_back(
    tmp_path: Path, folder: str, limit: str, used: str, prefix: str
) -> None:
    """A container that has read its weights stands at its limit, whatever it needs of it."""
    pages = f"anon 1\n{prefix}active_file {GIB // 16}\n{prefix}inactive_file {GIB // 8}\n{prefix}unevictable 7\n"
    files = {limit: str(GIB // 4), used: str(GIB // 4), "memory.stat": pages}
    root = _write(tmp_path, {folder + name: text for name, text in files.items()})
    assert free_memory_bytes(root) == GIB * 3 // 16


def test_more_use_than_the_limit_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    assert free_memory_bytes(_write(tmp_path, {"memory.max": "100", "memory.current": "101"})) == 0


@pytest.mark.parametrize("limit", [{"memory.max": "max\n"}, {"memory/memory.limit_in_bytes": str(2**62)}, {}])
def test_without_a_limit_the_machine_decides(tmp_path: Path, limit: dict[str, str]) -> None:
    files = limit | ({"memory/memory.usage_in_bytes": "0"} if limit else {})
    assert free_memory_bytes(_write(tmp_path, files)) > GIB // 4
