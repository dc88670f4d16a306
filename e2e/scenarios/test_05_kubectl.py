"""The object behaves under every verb that people and pipelines use."""

from __future__ import annotations

import json
import subprocess
import time

from e2e.cluster import tools
from e2e.install import SYSTEM
from e2e.scenarios.world import SERVICE_LABEL, Object, World, until

CHILDREN = (
    "deployments",
    "services",
    "serviceaccounts",
    "poddisruptionbudgets",
    "networkpolicies",
    "pods",
    "replicasets",
)


def test_diff_is_empty_after_apply_and_shows_an_edit_before_it(world: World) -> None:
    with world.serving("compared") as wanted:
        assert _diff(world, wanted).returncode == 0
        wanted["spec"]["replicas"] = 2
        shown = _diff(world, wanted)
        assert shown.returncode == 1
        assert "+  replicas: 2" in shown.stdout


def _diff(world: World, wanted: dict[str, object]) -> subprocess.CompletedProcess[str]:
    command = [str(tools.kubectl()), "--kubeconfig", str(world.kubectl.kubeconfig), "diff", "--server-side", "-f", "-"]
    return subprocess.run(command, input=json.dumps(wanted), capture_output=True, text=True, timeout=60, check=False)


def test_wait_scale_and_rollback_by_applying_again(world: World) -> None:
    with world.serving("versatile") as wanted:
        world.kubectl("-n", "demo", "wait", "--for=condition=Servable", "inferenceservice/versatile", "--timeout=60s")
        first = world.rolled("versatile", 1)
        world.kubectl("-n", "demo", "scale", "isvc/versatile", "--replicas=2")
        world.rolled("versatile", 2)
        edited = json.loads(json.dumps(wanted))
        edited["spec"]["engine"]["maxNumSeqs"] = 4
        world.kubectl.apply(edited)
        assert world.rolled("versatile", 1) != first
        del edited["spec"]["engine"]["maxNumSeqs"]
        world.kubectl.apply(edited)
        assert world.rolled("versatile", 1) == first


def test_replace_loses_nothing(world: World) -> None:
    with world.serving("replaced") as wanted:
        before = world.rolled("replaced", 1)
        uids = {pod["metadata"]["uid"] for pod in world.pods("replaced")}
        world.kubectl("replace", "-f", "-", stdin=json.dumps(wanted))
        world.wait("inferenceservice/replaced")
        assert world.rolled("replaced", 1) == before
        assert {pod["metadata"]["uid"] for pod in world.pods("replaced")} == uids


def test_a_child_that_was_deleted_or_edited_comes_back(world: World) -> None:
    with world.serving("repaired"):
        world.kubectl("-n", "demo", "delete", "service", "repaired-worker")
        until(lambda: world.get("service/repaired-worker"), "the Service again", 20)
        patch = json.dumps({"spec": {"maxUnavailable": 7}})
        world.kubectl("-n", "demo", "patch", "pdb", "repaired-worker", "--type=merge", "-p", patch)
        until(
            lambda: (world.get("pdb/repaired-worker") or {})["spec"]["maxUnavailable"] == 1, "the budget of 1 again", 20
        )
        world.wait("inferenceservice/repaired")


def test_delete_leaves_nothing_behind(world: World) -> None:
    with world.serving("gone", replicas=2):
        assert all(world.select(kind, f"{SERVICE_LABEL}=gone") for kind in CHILDREN)
    left = until(
        lambda: "nothing" if not any(world.select(kind, f"{SERVICE_LABEL}=gone") for kind in CHILDREN) else "",
        "the end of all children",
        60,
    )
    assert left == "nothing"


def test_nothing_is_written_while_nothing_changes(world: World) -> None:
    with world.serving("quiet"):
        world.rolled("quiet", 1)
        kinds = (
            "inferenceservices,models,slas,deployments,services,poddisruptionbudgets,networkpolicies,serviceaccounts"
        )

        def ours() -> dict[str, Object]:
            items = world.kubectl.items("-n", "demo", kinds)
            return {f"{one['kind']}/{one['metadata']['name']}": _without_others(one) for one in items}

        def standing() -> dict[str, Object]:
            first = ours()
            time.sleep(2.0)
            return first if ours() == first else {}

        before = until(standing, "an end of all writing")
        # A restart of the leader is the hardest quiet moment: every object is looked at again.
        old = world.leader()
        world.kubectl("-n", SYSTEM, "delete", "pod", old)
        until(lambda: world.leader() not in ("", old), "another leader", 60)
        world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/foretide-operator", "--timeout=60s")
        assert ours() == before


def _without_others(obj: Object) -> Object:
    """Kubernetes' own controllers write the status of its own kinds when they come to it."""
    ours = obj["apiVersion"].startswith("foretide.dev/")
    metadata = {k: v for k, v in obj["metadata"].items() if ours or k not in ("resourceVersion", "managedFields")}
    return {k: v for k, v in obj.items() if ours or k != "status"} | {"metadata": metadata}
