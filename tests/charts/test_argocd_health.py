"""Argo CD's view of our objects, run in a real Lua."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

MANIFEST = Path(__file__).parent.parent.parent / "examples/argocd/argocd-cm.yaml"


def health(status: dict[str, Any] | None, generation: int = 1) -> tuple[str, str]:
    """Status and message that the script gives an object with this status."""
    customizations = yaml.safe_load(MANIFEST.read_text())["data"]["resource.customizations"]
    script = yaml.safe_load(customizations)["foretide.dev/*"]["health.lua"]
    lua = LuaRuntime()
    judge = lua.eval(f"function(obj)\n{script}\nend")
    obj = {"metadata": {"generation": generation}} | ({"status": status} if status else {})
    found = judge(lua.table_from(obj, recursive=True))
    return found["status"], found["message"]


def conditions(**states: str) -> dict[str, Any]:
    return {
        "observedGeneration": 1,
        "conditions": [
            {"type": t, "status": s, "reason": "Because", "message": f"{t} is {s}"} for t, s in states.items()
        ],
    }


def test_an_object_nobody_looked_at_is_progressing() -> None:
    assert health(None)[0] == "Progressing"


def test_an_edit_nobody_looked_at_is_progressing_whatever_the_old_status_says() -> None:
    assert health(conditions(Ready="True", Servable="True"), generation=2)[0] == "Progressing"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"Ready": "True", "Servable": "True"}, ("Healthy", "Servable is True")),
        ({"Ready": "True"}, ("Healthy", "Ready is True")),
        ({"Ready": "True", "Servable": "False", "Reconciling": "True"}, ("Progressing", "Servable is False")),
        ({"Ready": "False", "Servable": "True", "Reconciling": "True"}, ("Progressing", "Servable is True")),
        ({"Ready": "False", "Servable": "False", "Stalled": "True"}, ("Degraded", "Stalled is True")),
        ({"Ready": "False", "Servable": "False"}, ("Degraded", "Ready is False")),
    ],
)
def test_the_conditions_decide(states: dict[str, str], expected: tuple[str, str]) -> None:
    assert health(conditions(**states)) == expected


def test_the_api_server_takes_every_key_of_the_config_map() -> None:
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", key) for key in yaml.safe_load(MANIFEST.read_text())["data"])
