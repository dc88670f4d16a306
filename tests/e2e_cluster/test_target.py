"""Which cluster the demo uses, and what it puts there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e import checkpoint, install, target
from e2e.cluster import kind
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import Progress


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("KUBECONFIG", "FORETIDE_IMAGE_REGISTRY", "FORETIDE_IMAGE_TAG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `choose` would start."""
    seen: list[str] = []

    def start(name: str) -> target.Target:
        seen.append(name)
        return target.Target(name, install.Kubectl(Path()), {}, "", True, None, lambda: seen.append(f"no {name}"))

    monkeypatch.setattr(target, "_own", lambda *_: start("own"))
    monkeypatch.setattr(target, "_kind", lambda *_: start("kind"))
    return seen


@pytest.mark.parametrize("kind_is_possible", [True, False])
def test_without_a_kubeconfig_it_is_kind_where_that_runs_and_else_our_own(
    started: list[str], monkeypatch: pytest.MonkeyPatch, kind_is_possible: bool
) -> None:
    monkeypatch.setattr(kind, "is_possible", lambda: kind_is_possible)
    target.choose(1, Progress()).remove()
    name = "kind" if kind_is_possible else "own"
    assert started == [name, f"no {name}"]


def test_the_kubeconfig_that_the_demo_says_to_set_names_the_cluster_it_made_which_stays(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kubeconfig in (Cluster().kubeconfig, kind.kubeconfig()):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        target.choose(1, Progress()).remove()
    assert started == ["own", "kind"]


def test_a_cluster_that_was_given_takes_its_images_from_the_registry_that_was_named(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/elsewhere/config")
    monkeypatch.setenv("FORETIDE_IMAGE_REGISTRY", "registry.example.com")
    chosen = target.choose(1, Progress())
    assert (started, chosen.name) == ([], "the cluster of /elsewhere/config")
    assert chosen.chart_values == {"image": {"registry": "registry.example.com", "tag": ""}}


@pytest.mark.parametrize(
    ("kubeconfig", "said"),
    [("/elsewhere/config", "FORETIDE_IMAGE_REGISTRY"), ("/one:/two", "several files, /one:/two")],
)
def test_a_cluster_that_cannot_be_used_as_it_is_given_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: str, said: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    with pytest.raises(ClusterError, match=said):
        target.choose(1, Progress())


def test_the_checkpoint_that_models_name_is_the_same_for_every_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for checkout in ("first", "second"):
        original = tmp_path / checkout / "tiny.gguf"
        original.parent.mkdir()
        original.write_bytes(b"weights" * 100)
        monkeypatch.setattr(checkpoint, "path", lambda original=original: original)
        found.add(checkpoint.kept())
    (kept,) = found
    assert kept.read_bytes() == original.read_bytes()
    kept.write_bytes(b"garbage" * 100)
    assert checkpoint.kept().read_bytes() == original.read_bytes()


@pytest.mark.parametrize(
    ("status", "undone"),
    [
        (None, []),
        ("pending-install", ["uninstall"]),
        ("pending-upgrade", ["rollback"]),
        ("pending-rollback", ["rollback"]),
    ],
)
def test_a_release_that_was_left_half_done_is_undone_before_helm_goes_on(
    monkeypatch: pytest.MonkeyPatch, status: str | None, undone: list[str]
) -> None:
    called: list[str] = []

    def helm(argv: list[Any], **_: Any) -> str:
        called.append(argv[1])
        return json.dumps([{"name": "foretide", "status": status}] if status else [])

    monkeypatch.setattr(install, "run", helm)
    install._undo_half(["helm"], "foretide")
    assert called == ["list", *undone]
