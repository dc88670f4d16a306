"""Processes, locks, builds and progress lines."""

import io
import json
import os
import signal
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from e2e.cluster import network, paths, tools
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import CommandFailed, StartFailed, UnsuitableHost
from e2e.cluster.process import Process, start_time
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run, wait_until
from e2e.cluster.tools import Build

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def test_a_started_process_is_found_again_by_another_object(tmp_path: Path) -> None:
    first, second = Process("sleeper", tmp_path), Process("sleeper", tmp_path)
    first.start(["sleep", "600"])
    pid = first.pid()
    second.start(["sleep", "600"])
    assert second.pid() == pid
    second.stop()
    assert first.pid() is None


def test_an_id_that_now_belongs_to_another_process_is_not_believed(tmp_path: Path) -> None:
    process = Process("gone", tmp_path)
    (tmp_path / "gone.pid").write_text(f"{os.getpid()} 12345")
    assert process.pid() is None
    process.stop(signal.SIGKILL)
    assert start_time(os.getpid()) is not None


@pytest.mark.parametrize("content", ["", "12", "not a number"])
def test_a_damaged_pid_file_means_not_running(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.pid").write_text(content)
    assert Process("odd", tmp_path).pid() is None


def test_a_process_that_does_not_listen_is_killed_after_its_time(tmp_path: Path) -> None:
    process = Process("deaf", tmp_path)
    process.start([sys.executable, "-c", DEAF])
    wait_until(lambda: "deaf" in process.log.read_text(), "the process to stop listening", 10)
    process.stop(timeout_s=0.2)
    assert process.pid() is None


def test_a_process_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = Process("broken", tmp_path)
    process.start(["sh", "-c", "echo no such flag >&2; exit 3"])
    wait_until(lambda: process.pid() is None, "the end", 10)
    with pytest.raises(StartFailed, match=r"broken is not running(.|\n)*no such flag"):
        process.check()


def test_a_failed_program_is_reported_with_its_call_and_last_words() -> None:
    with pytest.raises(CommandFailed, match=r"`sh -c 'echo out; echo err >&2; exit 7'` ended with 7(.|\n)*out\nerr"):
        run(["sh", "-c", "echo out; echo err >&2; exit 7"])


def test_a_build_is_another_one_when_its_source_or_its_flags_change(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text("package main\n")
    build = Build("tool", ("build", "."), tmp_path)
    before = build.key()
    assert Build("tool", ("build", "-x", "."), tmp_path).key() != before
    (tmp_path / "main.go").write_text("package main // edited\n")
    assert build.key() != before


def test_a_step_is_one_line_with_its_outcome_and_time() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError), Progress(out).step("Break"):
        raise ValueError
    with Progress(out).step("Build"):
        pass
    lines = out.getvalue().splitlines()
    assert lines[1].startswith("Break: failed (0.")
    assert lines[3].startswith("Build: done (0.")


def test_more_nodes_than_there_are_addresses_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableHost, match="10 nodes are asked for; from 1 to 9 are possible"):
        Cluster(Progress(io.StringIO()), tmp_path / "cluster").up(10)


def test_a_state_folder_that_nodes_would_hide_is_refused() -> None:
    with pytest.raises(UnsuitableHost, match="/run/here lies below /run, of which each node has its own"):
        Cluster(Progress(io.StringIO()), Path("/run/here")).up()


def test_caches_and_state_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert paths.cache_dir() == tmp_path / "c" / "foretide"
    assert paths.state_dir() == tmp_path / "s" / "foretide" / "cluster"


def test_a_process_holds_no_file_of_its_starter_open(tmp_path: Path) -> None:
    process, kept = Process("sleeper", tmp_path), tmp_path / "lock"
    with kept.open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        process.start(["sleep", "600"])
        held = _open_files(process.pid())
    process.stop()
    assert str(process.log) in held
    assert str(kept) not in held


def _open_files(pid: int | None) -> list[str]:
    """Of a process that may open and close some meanwhile."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(fd))
    return found


WAITS = """
import sys, time
from pathlib import Path
at = Path(sys.argv[1])
(at / "begun").touch()
while not (at / "go").exists():
    time.sleep(0.01)
(at / "done").touch()
"""


def test_what_must_not_be_cut_short_ends_by_itself_before_an_interruption_goes_on(tmp_path: Path) -> None:
    def interrupt() -> None:
        try:
            wait_until((tmp_path / "begun").exists, "the program", 30)
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            (tmp_path / "go").touch()

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", WAITS, tmp_path], whole=True)
    waiting.join()
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(("version", "is_taken"), [("go1.19.8", False), ("go1.25.3", True), ("go1.26", True)])
def test_a_go_that_is_too_old_is_passed_over_where_the_environment_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_taken: bool
) -> None:
    on_path, beside = tmp_path / "path" / "go", tmp_path / "beside" / "go"
    for program in (on_path, beside):
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho go version {version} linux/amd64\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(on_path.parent), prepend=os.pathsep)
    monkeypatch.setattr(sys, "executable", str(beside.with_name("python")))
    tools.go.cache_clear()
    assert tools.go() == (on_path if is_taken else beside)
    tools.go.cache_clear()


@pytest.mark.parametrize(
    ("route", "is_ours"),
    [
        ({"dst": "default", "dev": "eth0"}, True),
        ({"dst": "10.0.0.0/8", "dev": "vpn0"}, True),
        ({"dst": "10.244.1.0/24", "dev": "foretide0"}, True),
        ({"dst": "10.244.1.0/24", "dev": "flannel.1"}, False),
        ({"dst": "10.246.0.7", "dev": "eth1"}, False),
    ],
)
def test_a_host_that_leads_the_clusters_addresses_elsewhere_is_not_touched(
    monkeypatch: pytest.MonkeyPatch, route: dict[str, str], is_ours: bool
) -> None:
    monkeypatch.setattr(network, "_ip", lambda *_: json.dumps([route]))
    with nullcontext() if is_ours else pytest.raises(UnsuitableHost, match=route["dst"]):
        network.check_routes()
