"""A real Prometheus and a real Alertmanager (Debian packages), each on a free port of the loopback, for tests.

Ends them when the block ends, and with this process if it is killed.
"""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster.packages import install_missing
from e2e.cluster.process import Process
from e2e.cluster.progress import Progress
from e2e.cluster.shell import wait_until
from e2e.ports import free_port

PROGRAMS: Final = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
READY_S: Final = 60.0


def installed() -> None:
    """Installs what is missing."""
    install_missing(Progress(), PROGRAMS)


def check_rules(groups: Mapping[str, Any], folder: Path) -> str:
    """What `promtool check rules` says of a rule file. Raises CalledProcessError when it refuses it."""
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(dict(groups), sort_keys=False))
    return _promtool("check", "rules", str(file))


def run_rule_tests(tests: Mapping[str, Any], folder: Path) -> str:
    """What `promtool test rules` says. Raises CalledProcessError when a test fails."""
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump(dict(tests), sort_keys=False))
    return _promtool("test", "rules", str(file))


def _promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def alertmanager(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Its address, `127.0.0.1:port`, while it is ready."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(dict(config)))
    flags = [
        f"--config.file={folder / 'alertmanager.yaml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with _running("prometheus-alertmanager", folder, flags, address):
        yield address


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Its address while it is ready."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(dict(config)))
    flags = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
    ]
    with _running("prometheus", folder, flags, address):
        yield address


@contextmanager
def _running(program: str, folder: Path, flags: Sequence[str], address: str) -> Iterator[None]:
    process = Process(program, folder, leash=True)
    process.start([program, *flags])
    try:
        wait_until(lambda: _ready(address, process), f"{program} on {address}", READY_S)
        yield
    finally:
        process.stop()


def _ready(address: str, process: Process) -> bool:
    process.check()
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
