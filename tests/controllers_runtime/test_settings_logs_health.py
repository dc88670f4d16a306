import socket
import subprocess
import sys
from pathlib import Path

import pytest

from controllers.runtime.health import STALLED_AFTER_S, STUCK_AFTER_S, Health
from controllers.runtime.interface import Key
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.resync import due_between, place_in_period
from controllers.settings import Settings, SettingsError, load_settings
from kube.informer import Informer, lean
from kube.resources import PODS
from tests.fakes import FakeClient

ROOT = Path(__file__).parents[2]


def test_without_a_file_the_defaults_hold() -> None:
    assert load_settings(None) == Settings()


def test_a_file_is_yaml_or_json(tmp_path: Path) -> None:
    file = tmp_path / "operator.yaml"
    file.write_text("namespace: other\nworkers: 4\n")
    assert (load_settings(file).namespace, load_settings(file).workers) == ("other", 4)
    file.write_text('{"namespace": "json"}')
    assert load_settings(file).namespace == "json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wrokers: 4", "wrokers: Extra inputs are not permitted"),
        ("workers: 0", "workers: Input should be greater than or equal to 1"),
        ("images: {pull_policy: Sometimes}", "images.pull_policy"),
        ("forecasting: {history_days: 0.005}", "history_days of 0.005 is less than one step of 600 s"),
        ("[1, 2]", "file: Input should be a valid dictionary"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "operator.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml' cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--port", "eighty"], "invalid int value: 'eighty'"),
        (["--manage", "pools"], "'pools' is nothing to manage"),
        (["--log-level", "loud"], "'loud' is no log level"),
        (["--config", "/nowhere.yaml"], "Configuration file '/nowhere.yaml' cannot be read"),
        (["--kubeconfig", "/nowhere"], "Kubeconfig '/nowhere' cannot be used"),
    ],
)
def test_the_operator_refuses_a_wrong_start_with_a_sentence(arguments: list[str], said: str) -> None:
    assert said in refused(arguments)


def test_what_the_environment_names_to_manage_is_checked_like_the_flag() -> None:
    assert "'gpu_pools' is nothing to manage: services or gpu-pools." in refused([], FORETIDE_MANAGE="gpu_pools")


def test_a_port_that_another_process_has_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        """{apiVersion: v1, kind: Config, current-context: x, users: [{name: u, user: {token: t}}],
        clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}],
        contexts: [{name: x, context: {cluster: c, user: u}}]}"""
    )
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused([f"--kubeconfig={config}", "--host=127.0.0.1", f"--port={port}"])
    assert f"Nothing can be served at port {port} of 127.0.0.1: Address already in use." in said


def refused(arguments: list[str], **environment: str) -> str:
    """What the process says as it ends, of which no line is a trace."""
    command = [sys.executable, str(ROOT / "operator" / "main.py"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT), **environment}, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_folder_of_the_process_holds_nothing_that_could_be_imported_by_mistake() -> None:
    # Python puts it first on the path, where `types.py` or `operator/__init__.py` would replace the standard library's.
    assert [file.name for file in (ROOT / "operator").glob("*.py")] == ["main.py"]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_reconcile_that_does_not_end_and_a_cache_that_does_nothing_are_unhealthy() -> None:
    clock = Clock()
    queue = ReconcileQueue(clock)
    informer = Informer(FakeClient(), PODS, keep=lean, clock=clock)
    health = Health(queue, {"pods": informer})
    assert health.problems() == []
    assert health.unready() == ["The first list of pods is not complete."]
    queue.add(Key("InferenceService", "demo", "chat"))
    await queue.get()
    clock.now_s = STALLED_AFTER_S + 1
    assert health.problems() == ["The cache of pods has done nothing for 91 s (at most 90)."]
    clock.now_s = STUCK_AFTER_S + 1
    assert "InferenceService demo/chat has been in work for 301 s (at most 300)." in health.problems()


def test_every_key_has_one_turn_in_a_period_and_the_turns_are_spread() -> None:
    keys = [Key("InferenceService", "demo", f"s{at}") for at in range(1000)]
    slices = [due_between(keys, 300 + at, 305 + at, 300.0) for at in range(0, 300, 5)]
    seen = [key for one in slices for key in one]
    assert sorted(seen) == sorted(keys)
    assert max(len(one) for one in slices) < 40
    assert all(0 <= place_in_period(key, 300.0) < 300 for key in keys)


def test_a_pause_longer_than_the_period_looks_at_everything() -> None:
    keys = [Key("InferenceService", "demo", "a"), Key("Tenant", None, "b")]
    assert due_between(keys, 0.0, 1000.0, 300.0) == keys
