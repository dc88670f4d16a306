"""A process that leaks is told from one that warms up."""

from __future__ import annotations

from e2e.soak.levels import Level, Sample, level, read

PAGE = """\
# HELP process_resident_memory_bytes Resident memory size in bytes.
process_resident_memory_bytes 1.5e+08
process_open_fds 21.0
foretide_worker_engine_process_resident_memory_bytes 4.0e+08
foretide_worker_engine_process_open_fds 12.0
other_total{kind="x"} 3
"""


def test_every_process_of_a_page_is_read() -> None:
    assert read(PAGE) == {"": (1.5e8, 21.0), "foretide_worker_engine": (4.0e8, 12.0)}


def test_a_process_of_which_only_half_is_said_is_left_out() -> None:
    assert read("process_open_fds 3\n") == {}


def test_growth_while_it_warms_up_is_no_growth() -> None:
    warming = [Sample(float(t), 100.0 if t < 20 else 150.0, 10.0) for t in range(101)]
    found = level(warming)
    assert found
    assert (found.memory_growth, found.handles_growth) == (0.0, 0.0)


def test_a_leak_is_seen_in_memory_and_in_handles() -> None:
    leaking = [Sample(float(t), 100.0 + t, 10.0 + t / 10) for t in range(101)]
    found = level(leaking)
    assert found
    assert 0.3 < found.memory_growth < 0.4
    assert 4 < found.handles_growth < 6


def test_one_look_aside_changes_nothing() -> None:
    steady = [Sample(float(t), 1000.0 if t == 90 else 100.0, 10.0) for t in range(101)]
    assert level(steady) == Level(100.0, 100.0, 10.0, 10.0)


def test_a_process_that_came_late_or_ended_early_has_no_level() -> None:
    assert level([]) is None
    assert level([Sample(95.0, 1.0, 1.0), Sample(100.0, 1.0, 1.0)]) is None
