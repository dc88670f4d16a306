"""From the release before to this one and back, under load: no request fails, and no worker that serves is touched.

No part of CI (`make e2e-upgrade` runs it): it builds the images of another commit, `PREVIOUS` or else the one before
this, and wants a cluster in which Foretide is not installed yet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import paths
from e2e.install import install, namespace, resource, tenant_key
from e2e.load import Load
from e2e.scenarios.world import MODEL, World, until
from e2e.target import Target

Measured = Callable[[str, str], None]
NAME = "upgraded"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=paths.REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def before(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The charts of the release before, and the tag of its images, which the cluster has."""
    assert target.cluster is not None, "this campaign needs a cluster of its own: unset KUBECONFIG"
    commit = _git("rev-parse", "--short=12", os.environ.get("PREVIOUS", "HEAD~1"))
    tree, tag = tmp_path_factory.mktemp("before") / "tree", f"before-{commit}"
    _git("worktree", "add", "--detach", str(tree), commit)
    try:
        command = [sys.executable, "-m", "e2e.cluster", "images", "--tag", tag]
        subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True)
        yield tree / "charts", tag
    finally:
        _git("worktree", "remove", "--force", str(tree))


@pytest.fixture(scope="module")
def old_world(target: Target, before: tuple[Path, str], digest: str) -> Iterator[World]:
    """Foretide as it was, with a tenant and a model."""
    charts, tag = before
    install(target.kubectl, _values(target, tag, charts), charts)
    keys = {"acme": tenant_key(target.kubectl, "acme")}
    target.kubectl.apply(
        namespace("demo"), resource("Tenant", "acme", namespaces=["demo"], apiKeys=[{"secret": "acme-key"}])
    )
    target.kubectl.apply(resource("Model", MODEL, "demo", source=target.model_source, digest=digest))
    with target.gateway() as url:
        it = World(target.kubectl, url, keys)
        it.wait(f"model/{MODEL}", "Ready", 300)
        yield it


def _values(target: Target, tag: str, charts: Path) -> dict[str, Any]:
    """Without what those charts do not know yet."""
    known = yaml.safe_load((charts / "foretide" / "values.yaml").read_text())["modelCache"]
    cache = {name: value for name, value in target.chart_values["modelCache"].items() if name in known}
    return target.chart_values | {"image": {"tag": tag}, "modelCache": cache}


def test_an_upgrade_and_its_rollback_fail_no_request_and_touch_no_worker(
    target: Target, before: tuple[Path, str], old_world: World, measured: Measured
) -> None:
    charts, tag = before
    world = old_world
    with world.serving(NAME, replicas=2, rollout={"drainTimeout": "20s"}):
        world.rolled(NAME, 2)
        workers = _uids(world)
        with world.load(NAME, clients=4, stream=True) as load:
            install(target.kubectl, target.chart_values)
            world.wait(f"inferenceservice/{NAME}", "WorkersOutdated", 120)
            _goes_on(world, load)
            assert _uids(world) == workers, "the upgrade replaced workers"
            install(target.kubectl, _values(target, tag, charts), charts)
            _goes_on(world, load)
            assert _uids(world) == workers, "going back replaced workers"
            install(target.kubectl, target.chart_values)
            _goes_on(world, load)
            assert _uids(world) == workers
            at = "2026-01-01T00:00:00Z"
            world.kubectl.apply(world.service(NAME, replicas=2, rollout={"drainTimeout": "20s", "restartedAt": at}))
            world.rolled(NAME, 2)
            assert not _uids(world) & workers, "a restart replaces every worker"
            assert not world.condition(f"inferenceservice/{NAME}", "WorkersOutdated")
            _goes_on(world, load)
    account = load.account()
    measured(f"upgrade from {tag}, rollback, upgrade, restart", str(account))
    assert not account.troubles


def _uids(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.pods(NAME)}


def _goes_on(world: World, load: Load) -> None:
    """The service is well in the eyes of the operator that is there now, and answers a while longer."""
    world.wait(f"inferenceservice/{NAME}")
    world.rolled(NAME, 2)
    enough = load.answered + 30
    until(lambda: load.answered >= enough, "30 further answers", 120)
