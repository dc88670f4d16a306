"""Which services claim their devices, what their pods then look like, and what stands and goes beside them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from controllers.plans.mig.claims import Giver, allocation_of, claim_of, givers_of
from controllers.plans.mig.offers import GpuNode
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Revision, Snapshot
from controllers.plans.worker_pod import WorkerImages
from crds.gpu_pool import GPUPoolSpec
from crds.inference_service import Accelerator, Allocation
from tests.gen import SETTINGS, plan, service_spec, snapshot
from tests.plans.mig.pool_world import node

PLUGIN, CLAIMS = Allocation.DEVICE_PLUGIN, Allocation.RESOURCE_CLAIMS
ON_GPUS = dataclasses.replace(SETTINGS, images=WorkerImages("cpu:1", "gpu:1", "Never"))
SLICE = Accelerator.model_validate({"mig": {"profile": "1g.10gb"}})
BOTH = frozenset({"1g.10gb", "gpu"})


def claimed(**fields: Any) -> Snapshot:
    """A service on a slice, in a cluster with the API and one pool that gives devices by claims."""
    values: dict[str, Any] = {
        "spec": service_spec(accelerator={"mig": {"profile": "1g.10gb"}}),
        "givers": (Giver(CLAIMS, BOTH),),
        "optional_kinds": frozenset({"ResourceClaimTemplate"}),
    }
    return snapshot(**values | fields)


def planned(seen: Snapshot) -> ServicePlan:
    return plan(seen, settings=ON_GPUS)


def child(made: ServicePlan, kind: str) -> dict[str, Any]:
    (found,) = (one for one in made.children if one["kind"] == kind)
    return found


def test_the_first_pool_by_name_that_has_the_profile_decides() -> None:
    pools = {
        "b": GPUPoolSpec(node_selector={"pool": "claims"}, allocation=CLAIMS),
        "a": GPUPoolSpec(node_selector={"pool": "plugin"}, profiles=["3g.40gb"]),
    }
    nodes = []
    for pool in ("claims", "plugin"):
        one = node(pool)
        one["metadata"]["labels"]["pool"] = pool
        view = GpuNode.of(one)
        assert view is not None
        nodes.append(view)
    givers = givers_of(pools, nodes, {})
    assert [one.allocation for one in givers] == [PLUGIN, CLAIMS]
    assert allocation_of(SLICE, givers, PLUGIN) is CLAIMS
    large = Accelerator.model_validate({"mig": {"profile": "3g.40gb"}})
    assert allocation_of(large, givers, PLUGIN) is PLUGIN
    assert givers_of(pools, nodes, {"pool": "claims"}) == (givers[1],)


@pytest.mark.parametrize("former", [PLUGIN, CLAIMS])
def test_what_stands_stays_while_a_pool_gives_it_so_or_none_gives_it_at_all(former: Allocation) -> None:
    assert allocation_of(SLICE, (), former) is former
    assert allocation_of(SLICE, (Giver(PLUGIN, BOTH), Giver(CLAIMS, BOTH)), former) is former
    other = CLAIMS if former is PLUGIN else PLUGIN
    assert allocation_of(SLICE, (Giver(other, BOTH),), former) is other
    assert allocation_of(SLICE, (Giver(other, frozenset({"gpu"})),), former) is former


@pytest.mark.parametrize("on", [{"cpu": {}}, {"shared": {"strategy": "mps", "gigabytes": 20}}])
def test_cores_and_shares_of_gpus_are_never_claimed(on: dict[str, Any]) -> None:
    accelerator = Accelerator.model_validate(on)
    assert allocation_of(accelerator, (Giver(CLAIMS, BOTH),), CLAIMS) is PLUGIN
    assert claim_of(accelerator) is None


def test_a_claim_names_the_class_and_the_profile_as_the_driver_publishes_it() -> None:
    media = Accelerator.model_validate({"mig": {"profile": "1g.10gb.me"}})
    (request,) = (claim_of(media) or {})["devices"]["requests"]
    assert request["exactly"] == {
        "deviceClassName": "mig.nvidia.com",
        "allocationMode": "ExactCount",
        "count": 1,
        "selectors": [{"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '1g.10gb+me'"}}],
    }
    (whole,) = (claim_of(Accelerator.model_validate({"gpu": {"count": 4}})) or {})["devices"]["requests"]
    assert whole["exactly"] == {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 4}


def test_workers_claim_instead_of_asking_for_resources() -> None:
    made = planned(claimed())
    template, deployment = child(made, "ResourceClaimTemplate"), child(made, "Deployment")
    name = deployment["metadata"]["name"]
    assert template["metadata"]["name"] == name
    assert template["metadata"]["ownerReferences"][0]["uid"] == "uid-chat"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == [{"name": "accelerator", "resourceClaimTemplateName": name}]
    resources = pod["containers"][0]["resources"]
    assert resources["claims"] == [{"name": "accelerator"}]
    assert not [one for one in (*resources["requests"], *resources["limits"]) if "nvidia" in one]
    kinds = [one["kind"] for one in made.children]
    assert kinds.index("ResourceClaimTemplate") < kinds.index("Deployment")
    assert made.status is not None
    assert made.status["allocation"] == "resourceClaims"


def test_another_way_to_get_devices_is_another_revision_and_the_plugins_is_as_it_always_was() -> None:
    by_claims, plugin = planned(claimed()), planned(claimed(givers=()))
    names = {child(one, "Deployment")["metadata"]["name"] for one in (by_claims, plugin)}
    assert len(names) == 2
    assert "ResourceClaimTemplate" not in {one["kind"] for one in plugin.children}
    assert plugin.status is not None
    assert "allocation" not in plugin.status
    limits = child(plugin, "Deployment")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/mig-1g.10gb"] == "1"


def test_a_template_goes_after_its_deployment_and_not_before() -> None:
    seen = claimed(revisions=(Revision("old", 1, "2026-01-01T00:00:00Z"),))
    current = child(planned(seen), "Deployment")["metadata"]["labels"]["foretide.dev/revision"]
    seen = dataclasses.replace(seen, claim_templates=frozenset({"old", "older", current}))
    assert planned(seen).remove_claims == ("older",)


def test_a_cluster_without_the_api_is_named_and_no_worker_is_started() -> None:
    made = planned(claimed(optional_kinds=frozenset()))
    assert {one["kind"] for one in made.children}.isdisjoint({"Deployment", "ResourceClaimTemplate"})
    ready = next(one for one in made.conditions if one.type == "Ready")
    assert ready.reason == "NoResourceClaims"
    assert "from 1.34 on" in ready.message
    assert "devicePlugin" in ready.message


def test_a_service_that_ends_still_says_how_its_workers_have_their_devices() -> None:
    seen = claimed(deleting=True, allocation=CLAIMS, revisions=(Revision("old", 1, "2026-01-01T00:00:00Z"),))
    made = planned(seen)
    assert made.status is not None
    assert made.status["allocation"] == "resourceClaims"
