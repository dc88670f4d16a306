"""`foretide restart`: one field changes, and only it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.errors import CliError
from tests.cli.cluster import SERVICES, FakeKubectl, demo, run


def patched(cluster: FakeKubectl) -> Any:
    (asked,) = (each for each in cluster.asked if each[0] == "patch")
    assert asked[:6] == ["patch", SERVICES, "chat", "-n", "demo", "--type=json"]
    (change,) = json.loads(asked[asked.index("--patch") + 1])
    return change


def test_a_service_without_rollout_settings_gets_them() -> None:
    cluster = demo()
    shown = run(cluster, "restart", "chat")
    change = patched(cluster)
    assert (change["op"], change["path"], list(change["value"])) == ("add", "/spec/rollout", ["restartedAt"])
    assert "demo/chat: its workers are replaced now" in shown.stdout


def test_settings_that_a_service_has_stay_as_they_are() -> None:
    cluster = demo()
    cluster.objects[SERVICES][0]["spec"]["rollout"] = {"maxSurge": 2, "restartedAt": "2026-01-01T00:00:00Z"}
    run(cluster, "restart", "chat")
    assert patched(cluster)["path"] == "/spec/rollout/restartedAt"


def test_a_service_that_is_not_there_is_named() -> None:
    with pytest.raises(CliError, match="nothing"):
        run(demo(), "restart", "nothing")
