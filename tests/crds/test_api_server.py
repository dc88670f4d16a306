"""The schemas as a person meets them: every example is taken, every invalid object is refused with a sentence."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml

from crds.contract import GROUP, VERSION
from crds.kinds import KINDS
from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane
from tests.crds.invalid import IMMUTABLE, NAMESPACE, WRITTEN, Case, derived, valid

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parent.parent.parent
KIND_BY_NAME = {kind.kind: kind for kind in KINDS}
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


class Cluster:
    """The API server, asked by kubectl and by plain requests."""

    def __init__(self, server: ControlPlane) -> None:
        self._api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(str(server.kubeconfig)))
        self._kubectl = [str(tools.kubectl()), "--kubeconfig", str(server.kubeconfig)]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._kubectl, *arguments], input=stdin, capture_output=True, text=True, timeout=60)

    def apply(self, obj: dict[str, Any] | str, *flags: str) -> subprocess.CompletedProcess[str]:
        text = obj if isinstance(obj, str) else json.dumps(obj)
        return self.run("apply", "--server-side", "--force-conflicts", "-f", "-", *flags, stdin=text)

    def refusal(self, case: Case) -> str:
        """The sentence with which the server refuses `case`, or an empty one when it accepts it."""
        kind = KIND_BY_NAME[case.obj["kind"]]
        where = (GROUP, VERSION, NAMESPACE) if kind.namespaced else (GROUP, VERSION)
        create = (
            self._api.create_namespaced_custom_object if kind.namespaced else self._api.create_cluster_custom_object
        )
        try:
            create(*where, kind.plural, case.obj, dry_run="All")
        except kubernetes.client.ApiException as refused:
            return str(json.loads(refused.body)["message"])
        return ""

    def unexpected(self, cases: list[Case]) -> dict[str, tuple[str, str]]:
        """Of the cases, those whose answer lacks what it must say: (must say, answer)."""
        answers = {case.name: (case.says, self.refusal(case)) for case in cases}
        return {name: pair for name, pair in answers.items() if pair[0] not in pair[1]}


@contextlib.contextmanager
def unruled(cluster: Cluster, plural: str) -> Iterator[None]:
    """A release whose CRD has no CEL rule; when it ends, the present one stands again and is in force."""
    text = (ROOT / f"crds/manifests/{GROUP}_{plural}.yaml").read_text()

    def stand(crd: str, wanted: bool) -> None:
        assert cluster.apply(crd).returncode == 0
        for _ in range(100):
            if bool(cluster.refusal(Case("", valid("InferenceService", accelerator={}), ""))) is wanted:
                return
            time.sleep(0.1)
        raise AssertionError("the CRD is not in force")

    stand(yaml.safe_dump(without(yaml.safe_load(text), "x-kubernetes-validations")), wanted=False)
    try:
        yield
    finally:
        stand(text, wanted=True)


def without(value: Any, key: str) -> Any:
    """The same without `key`, at any depth."""
    if isinstance(value, dict):
        return {name: without(inner, key) for name, inner in value.items() if name != key}
    return [without(one, key) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def cluster(apiserver: ControlPlane) -> Iterator[Cluster]:
    it = Cluster(apiserver)
    done = it.run("apply", "--server-side", "-f", str(ROOT / "crds/manifests"))
    assert done.returncode == 0, done.stderr
    done = it.run("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    assert done.returncode == 0, done.stderr
    for name in (NAMESPACE, "demo"):
        it.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield it
    it.run("delete", "namespace", NAMESPACE, "demo", "--wait=false")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_is_accepted_without_a_warning(cluster: Cluster, path: Path) -> None:
    done = cluster.run("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()


def test_every_rule_answers_with_its_sentence(cluster: Cluster) -> None:
    wrong = cluster.unexpected(WRITTEN)
    assert not wrong, json.dumps(wrong, indent=1)


def test_placement_that_a_pod_may_have_is_accepted(cluster: Cluster) -> None:
    tolerations = [{"operator": "Exists"}, {"key": "a"}, {"key": "a", "operator": "Exists", "effect": "NoExecute"}]
    tolerations += [{"key": "example.com/a", "value": "b.c_d-1"}]
    selector = {"a": "", "example.com/b": "v" * 63, f"{'a.' * 126}a/{'K' * 63}": "v"}
    spec = {"tolerations": tolerations, "nodeSelector": selector}
    assert cluster.refusal(Case("", valid("InferenceService", **spec), "")) == ""
    assert cluster.refusal(Case("", valid("Model", nodeSelector=selector), "")) == ""


@pytest.mark.parametrize("cores", [1, "500m", "0.1", "1k"])
def test_sizes_that_a_worker_may_have_are_accepted(cluster: Cluster, cores: Any) -> None:
    spec = {"accelerator": {"cpu": {"cores": cores, "memory": 2**31}}, "engine": {"kvCache": "1.5Gi", "kvSwap": "0"}}
    assert cluster.refusal(Case("", valid("InferenceService", **spec), "")) == ""


def test_what_was_stored_before_a_rule_can_still_have_its_status_written(cluster: Cluster) -> None:
    with unruled(cluster, "inferenceservices"):
        spec = {"accelerator": {"cpu": {"cores": "0"}}, "nodeSelector": {"a b": "c"}, "tolerations": [{"key": "d e"}]}
        assert cluster.apply(valid("InferenceService", name="older", **spec)).returncode == 0
    try:
        for what in ('{"status": {"tenant": "acme"}}', '{"metadata": {"finalizers": []}}', '{"spec": {"replicas": 2}}'):
            flags = ["--subresource=status"] if "status" in what else []
            patch = ["patch", "isvc", "older", "--type=merge", "-p", what, *flags]
            done = cluster.run("-n", NAMESPACE, *patch)
            assert done.returncode == 0, done.stderr
        wrong = '{"spec": {"nodeSelector": {"f g": "c"}}}'
        done = cluster.run("-n", NAMESPACE, "patch", "isvc", "older", "--type=merge", "-p", wrong)
        assert "keys of labels are names" in done.stderr
    finally:
        cluster.run("-n", NAMESPACE, "delete", "isvc", "older")


def test_every_bound_of_every_field_is_kept_and_named(cluster: Cluster) -> None:
    cases = list(derived())
    assert len(cases) > 200
    wrong = cluster.unexpected(cases)
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize(("field", "before", "after"), IMMUTABLE)
def test_what_a_model_serves_cannot_be_changed(cluster: Cluster, field: str, before: Any, after: Any) -> None:
    model = valid("Model", name="fixed", **before)
    assert cluster.apply(model).returncode == 0
    patch = json.dumps({"spec": after})
    done = cluster.run("-n", NAMESPACE, "patch", "model", "fixed", "--type=merge", "-p", patch)
    cluster.run("-n", NAMESPACE, "delete", "model", "fixed")
    assert f"{field} is immutable" in done.stderr
    assert "make another Model and point the InferenceService at it" in done.stderr


def test_a_misspelt_field_is_refused_by_name(cluster: Cluster) -> None:
    wrong = valid("InferenceService", replcas=2)
    done = cluster.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(wrong))
    assert 'unknown field "spec.replcas"' in done.stderr


def test_defaults_are_filled_in_so_that_the_object_says_what_holds(cluster: Cluster) -> None:
    done = cluster.apply(valid("InferenceService"), "--dry-run=server", "-o", "yaml")
    spec = yaml.safe_load(done.stdout)["spec"]
    assert spec["accelerator"]["cpu"] == {"cores": "1", "memory": "2Gi"}
    numbers = {"maxSurge": 1, "maxUnavailable": 0, "revisionHistoryLimit": 3, "drainTimeout": "2m"}
    assert spec["rollout"] == {"strategy": "rolling", "paused": False, **numbers}
    assert "replicas" not in spec


def test_the_scale_subresource_sets_replicas(cluster: Cluster) -> None:
    assert cluster.apply(valid("InferenceService", name="scaled", replicas=1)).returncode == 0
    done = cluster.run("-n", NAMESPACE, "scale", "inferenceservice/scaled", "--replicas=3")
    assert done.returncode == 0, done.stderr
    out = cluster.run("-n", NAMESPACE, "get", "isvc", "scaled", "-o", "jsonpath={.spec.replicas}")
    cluster.run("-n", NAMESPACE, "delete", "isvc", "scaled")
    assert out.stdout == "3"


def test_the_columns_answer_the_first_question(cluster: Cluster) -> None:
    assert cluster.apply(valid("InferenceService", name="seen")).returncode == 0
    header = cluster.run("-n", NAMESPACE, "get", "foretide").stdout.splitlines()[0].split()
    cluster.run("-n", NAMESPACE, "delete", "isvc", "seen")
    assert header == ["NAME", "MODEL", "READY", "SERVABLE", "REPLICAS", "REVISION", "SLA", "AGE"]
