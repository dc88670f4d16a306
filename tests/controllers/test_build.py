"""The operator's one list, put together."""

from __future__ import annotations

import subprocess
import sys

from controllers.build import build
from controllers.settings import Settings
from kube.events import Recorder
from tests.controllers.running import Keys
from tests.fakes import FakeClient


async def test_each_kind_has_a_reconciler_and_each_cache_a_name_of_its_own() -> None:
    client = FakeClient()
    assembly = build(client, Settings(), Keys(), Recorder(client, controller="test", instance="test"))
    assert {one.kind for one in assembly.reconcilers} == set(assembly.owned)
    names = [one.name for one in (*assembly.owned.values(), *assembly.children)]
    assert len(set(names)) == len(names)
    assert "the keyring" in {one.name for one in assembly.background}


def test_the_operator_does_not_pay_for_the_models_that_only_its_children_run() -> None:
    code = "import controllers.build, sys; print([one for one in ('statsmodels', 'pandas') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
