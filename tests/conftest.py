"""The control-plane tier: one real kube-apiserver for a whole test session, started when the first test asks for it.

A test that asks for `apiserver` carries `pytest.mark.apiserver`. Tests share the server, so each works in a namespace
with a name of its own. A test that stops the server starts a `ControlPlane` for itself instead.
"""

from collections.abc import Iterator

import pytest

from e2e.cluster.controlplane import ControlPlane


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running
