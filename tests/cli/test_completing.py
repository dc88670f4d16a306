"""TAB: kubectl's protocol for plugins, with names out of the cluster."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

from cli import completing
from tests.cli.cluster import chat


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that knows demo/chat; a file beside it has its last arguments."""
    listed = json.dumps({"items": [chat()]})
    program = tmp_path / "kubectl"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]))\nprint({listed!r})\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    monkeypatch.setattr("sys.argv", ["kubectl_complete-foretide", *words])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    completing.main()
    return capsys.readouterr().out.splitlines()


def test_commands_are_offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert offered(monkeypatch, capsys, "s") == ["status", "silence", "simulate", ":4"]
    assert "explain" in offered(monkeypatch, capsys, "")


def test_names_of_the_namespace_are_offered(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(monkeypatch, capsys, "explain", "-n", "demo", "ch") == ["chat", ":4"]
    assert " -n demo " in (kubectl / "asked").read_text()
    assert offered(monkeypatch, capsys, "silence", "") == ["chat", ":4"]
    assert "alertpolicies.foretide.dev" in (kubectl / "asked").read_text()


def test_where_nothing_is_known_the_shell_looks_for_files_and_no_error_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert offered(monkeypatch, capsys, "status", "ch") == [":0"]
    assert offered(monkeypatch, capsys, "simulate", "-f", "serv") == [":0"]


def test_a_cluster_that_is_silent_does_not_hang_the_shell(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completing, "ANSWERS_WITHIN_S", 0.1)
    (kubectl / "kubectl").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    assert offered(monkeypatch, capsys, "status", "ch") == [":0"]


def test_the_programs_have_the_names_that_kubectl_looks_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {"foretide", "kubectl-foretide", "kubectl_complete-foretide"} == set(project["scripts"])
