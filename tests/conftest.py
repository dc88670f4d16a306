"""What all tests share: kernels run in Triton's interpreter, and the control-plane tier is started once.

The control-plane tier: one real kube-apiserver for a whole test session, started when the first test asks for it.

A test that asks for `apiserver` carries `pytest.mark.apiserver`. Tests share the server, so each works in a namespace
with a name of its own. A test that stops the server starts a `ControlPlane` for itself instead.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane

# Triton reads it when it is imported, which any test may be the first to do; there is no card here to compile for.
os.environ["TRITON_INTERPRET"] = "1"

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("foretide", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("foretide")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Kubernetes is built once, which takes minutes: before the first test, and with its progress in sight."""
    if not session.config.option.collectonly and any(one.get_closest_marker("apiserver") for one in session.items):
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            tools.kubernetes()


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running
