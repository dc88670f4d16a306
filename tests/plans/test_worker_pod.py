"""What makes a revision, and what a worker's pod looks like."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from controllers.plans.worker_pod import WorkerImages, check_image, worker_template
from crds.inference_service import Scheduling as SchedulingSpec
from tests.gen import IMAGES, model_view, service_spec, snapshot, target_of
from worker_image import settings
from worker_image.engine.scheduler.settings import Batching, Packing, PolicyName, Scheduling

BOTH = WorkerImages(cpu="cpu:1", gpu="gpu:1", pull_policy="Never")


def container(**fields: Any) -> dict[str, Any]:
    seen = snapshot(spec=service_spec(**fields))
    assert seen.model
    found: dict[str, Any] = worker_template(seen, seen.model, BOTH).manifest["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 7},
        {"scaling": {"min": 2, "max": 9}},
        {"rollout": {"maxSurge": 2, "maxUnavailable": 1, "revisionHistoryLimit": 0}},
        {"sla": "interactive"},
    ],
)
def test_numbers_and_words_do_not_make_a_revision(fields: dict[str, Any]) -> None:
    assert target_of(snapshot(spec=service_spec(**fields))) == target_of(snapshot())


@pytest.mark.parametrize(
    "fields",
    [
        {"accelerator": {"cpu": {"cores": 2}}},
        {"accelerator": {"cpu": {"memory": "3Gi"}}},
        {"engine": {"maxModelLen": 512}},
        {"engine": {"kvCache": "512Mi"}},
        {"nodeSelector": {"zone": "a"}},
        {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
        {"priorityClassName": "serving"},
        {"rollout": {"drainTimeout": "5m"}},
    ],
)
def test_what_makes_a_worker_makes_a_revision(fields: dict[str, Any]) -> None:
    assert target_of(snapshot(spec=service_spec(**fields))) != target_of(snapshot())


def test_another_model_another_source_and_another_digest_make_a_revision() -> None:
    base = snapshot()
    others = [
        snapshot(model=model_view("n")),
        snapshot(model=model_view(source="https://models.example/n.gguf")),
        snapshot(model=model_view(digest="sha256:" + "2" * 64)),
        snapshot(model=model_view(node_selector={"disk": "big"})),
    ]
    assert len({target_of(one) for one in (base, *others)}) == 5


def test_another_image_makes_a_revision() -> None:
    seen = snapshot()
    assert seen.model
    assert worker_template(seen, seen.model, BOTH).revision != worker_template(seen, seen.model, IMAGES).revision


def test_the_revision_is_the_same_in_every_process() -> None:
    assert target_of(snapshot()) == target_of(snapshot())
    assert len(target_of(snapshot())) == 10


def test_only_a_service_that_names_a_priority_class_has_one() -> None:
    usual, named = snapshot(), snapshot(spec=service_spec(priorityClassName="serving"))
    assert usual.model
    before, after = (worker_template(one, usual.model, BOTH) for one in (usual, named))
    assert after.manifest["spec"] == before.manifest["spec"] | {"priorityClassName": "serving"}
    assert "priorityClassName" not in before.manifest["spec"]
    assert before.asked != after.asked


def test_the_arguments_name_the_model_the_ports_and_the_cores() -> None:
    assert container(accelerator={"cpu": {"cores": "1500m"}}, engine={"maxNumSeqs": 4, "kvCache": "1Ki"})["args"] == [
        *("serve", "/models/m.gguf"),
        *("--served-model-name", "chat", "--served-model-name", "demo/chat"),
        *("--port", "8000", "--admin-port", "8001", "--device", "cpu", "--threads", "2"),
        *("--drain-timeout-s", "120", "--log-format", "json"),
        *("--scratch", "/tmp", "--scratch-bytes", "1073741824"),
        *("--max-num-seqs", "4", "--kv-cache-bytes", "1024"),
    ]


def test_a_step_holds_a_token_of_every_request_and_some_of_a_prompt() -> None:
    arguments = container(engine={"maxNumSeqs": 300})["args"]
    assert arguments[-4:] == ["--max-num-seqs", "300", "--max-num-batched-tokens", "600"]


def test_only_a_users_own_claim_is_verified_by_the_worker() -> None:
    seen = snapshot(model=model_view(source="pvc://weights/m.gguf"))
    assert seen.model
    spec = worker_template(seen, seen.model, IMAGES).manifest["spec"]
    assert spec["containers"][0]["args"][-2:] == ["--digest", seen.model.digest]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}


def test_cpu_is_requested_and_not_limited_and_memory_is_both() -> None:
    assert container()["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}


def test_gpus_and_mig_slices_are_requested_and_limited() -> None:
    gpu = container(accelerator={"gpu": {"count": 2}})
    assert gpu["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
    mig = container(accelerator={"mig": {"profile": "1g.10gb"}})
    assert mig["resources"]["requests"]["nvidia.com/mig-1g.10gb"] == "1"
    assert "cuda" in mig["args"]
    assert mig["image"] == "gpu:1"


def test_a_worker_on_a_share_is_placed_by_its_size_and_told_to_keep_to_it() -> None:
    accelerator = {"shared": {"strategy": "mps", "gigabytes": 20}}
    seen = snapshot(spec=service_spec(accelerator=accelerator))
    assert seen.model
    pod = worker_template(seen, seen.model, BOTH).manifest["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "8Gi", "nvidia.com/gpu.shared": "1"}
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--gpu-memory-bytes") + 1] == "20000000000"
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[2]["matchExpressions"][1:] == [
        {"key": "nvidia.com/gpu.replicas", "operator": "In", "values": ["4"]},
        {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["76293"]},
    ]


def test_the_pod_keeps_to_the_restricted_profile() -> None:
    seen = snapshot()
    assert seen.model
    pod = worker_template(seen, seen.model, IMAGES).manifest["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = pod["containers"][0]["securityContext"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert all(mount["readOnly"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "model")


def test_a_leaving_worker_gets_the_drain_timeout_and_ten_seconds() -> None:
    seen = snapshot(spec=service_spec(rollout={"drainTimeout": "2m"}))
    assert seen.model
    pod = worker_template(seen, seen.model, IMAGES).manifest["spec"]
    assert pod["terminationGracePeriodSeconds"] == 130
    assert pod["containers"][0]["lifecycle"]["preStop"]["httpGet"]["path"] == "/drain"


def test_a_worker_without_progress_is_dead_in_six_seconds_and_ended_in_one() -> None:
    probe = container()["livenessProbe"]
    assert probe["failureThreshold"] * probe["timeoutSeconds"] == 6
    parser = argparse.ArgumentParser()
    settings.add_serve_arguments(parser)
    stall_limit_s = settings.serve_settings(parser.parse_args(["/m"])).stall_limit_s
    assert stall_limit_s + (probe["failureThreshold"] - 1) * probe["periodSeconds"] == 6
    assert probe["terminationGracePeriodSeconds"] == 1


def test_node_selectors_of_model_and_service_are_joined() -> None:
    seen = snapshot(spec=service_spec(nodeSelector={"a": "1"}), model=model_view(node_selector={"b": "2"}))
    assert seen.model
    assert worker_template(seen, seen.model, IMAGES).manifest["spec"]["nodeSelector"] == {"a": "1", "b": "2"}


def test_an_accelerator_without_an_image_says_which_value_to_set() -> None:
    finding = check_image(service_spec(accelerator={"mig": {"profile": "1g.10gb"}}), IMAGES)
    assert finding
    assert finding.reason == "NoWorkerImage"
    assert finding.message == (
        "No worker image is configured for accelerator 'mig'; set Helm value workers.gpu.image, "
        "or ask for accelerator.cpu."
    )


def test_what_is_said_of_scheduling_becomes_flags_and_no_more() -> None:
    arguments = container(engine={"scheduling": {"policy": "fair", "maxBatch": 64, "maxWait": "20ms"}})["args"]
    assert arguments[-6:] == ["--scheduling-policy", "fair", "--max-batch", "64", "--max-wait-s", "0.02"]


def test_the_worker_understands_every_argument() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    settings.add_serve_arguments(parser)
    scheduling = {
        "policy": "priority", "batching": "adaptive", "packing": "first-fit", "minBatch": 2, "maxBatch": 9,
        "batchBase": 5, "minWait": "5ms", "maxWait": "1s", "ageing": "1m",
    }  # fmt: skip
    shared = {"shared": {"strategy": "timeSlicing", "gigabytes": 20}}
    on_a_share = container(accelerator=shared)["args"]
    assert settings.serve_settings(parser.parse_args(on_a_share[1:])).model.gpu_memory_bytes == 20 * 10**9
    engine = {"maxNumSeqs": 300, "kvCache": "64Mi", "maxModelLen": 512, "kvSwap": "1Mi", "scheduling": scheduling}
    arguments = container(engine=engine)["args"]
    parsed = settings.serve_settings(parser.parse_args(arguments[1:]))
    assert parsed.names == ("chat", "demo/chat")
    assert (parsed.model.max_num_seqs, parsed.model.kv_cache_bytes, parsed.drain_timeout_s) == (300, 64 * 2**20, 120.0)
    assert parsed.model.swap_bytes == 2**20
    assert parsed.model.scheduling == Scheduling(
        PolicyName.PRIORITY, Batching.ADAPTIVE, Packing.FIRST_FIT, 2, 9, 5, 0.005, 1.0, 60.0
    )


def test_the_schemas_choices_are_the_workers() -> None:
    fields = SchedulingSpec.model_json_schema()["properties"]
    for name, kind in (("policy", PolicyName), ("batching", Batching), ("packing", Packing)):
        assert fields[name]["enum"] == list(kind)
