"""Starts or finds the cluster, installs Foretide into it, and prints at the end what the scenarios measured."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2e import checkpoint as checkpoints
from e2e.cluster.cluster import Cluster
from e2e.cluster.progress import Progress
from e2e.install import install, namespace, resource, tenant_key
from e2e.scenarios.world import MODEL, World
from e2e.target import Target, choose

MEASURED = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture(scope="session", autouse=True)
def began() -> str:
    """When this run did, in RFC 3339 and UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    chosen = choose(nodes=2, progress=Progress())
    yield chosen
    if os.environ.get("KEEP_CLUSTER", "") != "1":
        chosen.remove()


@pytest.fixture(scope="session")
def own_cluster(target: Target) -> Cluster | None:
    """The cluster, when it is ours to break."""
    return target.cluster


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The real checkpoint on this machine."""
    return checkpoints.path()


@pytest.fixture(scope="session")
def digest(checkpoint: Path) -> str:
    return "sha256:" + hashlib.sha256(checkpoint.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def model_source(target: Target) -> str:
    return target.model_source


@pytest.fixture(scope="session")
def world(target: Target, digest: str) -> Iterator[World]:
    kubectl = target.kubectl
    install(kubectl, target.chart_values)
    keys = {tenant: tenant_key(kubectl, tenant) for tenant in ("acme", "rival")}
    kubectl.apply(
        namespace("demo"),
        namespace("elsewhere"),
        resource("Tenant", "acme", namespaces=["demo"], apiKeys=[{"secret": "acme-key"}]),
        resource("Tenant", "rival", namespaces=["elsewhere"], apiKeys=[{"secret": "rival-key"}]),
    )
    known = {"digest": digest} if target.local_model else {}
    kubectl.apply(resource("Model", MODEL, "demo", source=target.model_source, **known))
    with target.gateway() as url:
        it = World(kubectl, url, keys)
        it.wait(f"model/{MODEL}", "Ready", 300)
        yield it


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Notes a figure for the report at the end."""
    rows = request.config.stash.setdefault(MEASURED, [])
    return lambda what, value: rows.append((what, value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(MEASURED, [])
    if rows:
        terminalreporter.section("measured")
        width = max(len(what) for what, _ in rows)
        for what, value in rows:
            terminalreporter.line(f"{what:<{width}}  {value}")
