"""Which part is behind the alerts."""

from __future__ import annotations

import pytest

from controllers.plans.alerting.causes import Cause, Change, Symptom, clusters, rank
from controllers.plans.alerting.topology import THE_GATEWAY, Part, Pod, Reach, build, gpus_of, part_of
from tests.plans.alerting.build import fleet

GPU = {"gpu": "3", "node": "n1", "namespace": "demo", "pod": "s0-0"}


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (GPU, "gpu/n1/3"),
        ({"namespace": "demo", "pod": "s0-0", "node": "n1"}, "worker/demo/s0-0"),
        ({"namespace": "demo", "service": "chat", "revision": "r"}, "revision/demo/chat/r"),
        ({"namespace": "demo", "service": "chat"}, "service/demo/chat"),
        ({"namespace": "demo", "model": "m"}, "model/demo/m"),
        ({"node": "n1"}, "node/n1"),
        ({"component": "gateway"}, "gateway/foretide-gateway"),
        ({"alertname": "x", "severity": "P1"}, "unknown/alertname=x"),
    ],
)
def test_an_alert_is_about_the_narrowest_part_that_its_labels_name(labels: dict[str, str], part: str) -> None:
    assert str(part_of(labels)) == part


def test_shares_multiply_along_a_path_and_add_up_over_several() -> None:
    topology = fleet(services=1, workers=4, nodes=2)
    up = topology.upstream(Part("service", "demo/s0"))
    assert up[Part("worker", "demo/s0-0")] == 0.25
    assert up[Part("node", "n0")] == pytest.approx(1 - 0.75**2)
    assert up[THE_GATEWAY] == 1.0
    assert Part("service", "demo/s0") in topology.downstream(Part("node", "n1"))


def test_exporters_tell_which_pod_holds_a_gpu() -> None:
    gpus = gpus_of([GPU])
    topology = build({"demo/s0": None}, [Pod("demo", "s0-0", "s0", "r", "n1")], gpus)
    assert list(topology.upstream(Part("gpu", "n1/3"))) == [Part("gpu", "n1/3"), Part("node", "n1")]
    assert Part("gpu", "n1/3") in topology.upstream(Part("service", "demo/s0"))


def symptoms(*found: tuple[str, str, float]) -> list[Symptom]:
    return [Symptom(Part(kind, name), at_s) for kind, name, at_s in found]


def names(causes: list[Cause]) -> list[str]:
    return [str(one.part) for one in causes]


def test_a_node_explains_the_services_on_it_better_than_each_by_itself() -> None:
    reach = Reach(fleet(services=6, workers=1, nodes=3))
    seen = symptoms(("service", "demo/s0", 10), ("service", "demo/s3", 5), ("node", "n0", 0))
    best = rank(seen, reach, [])
    assert names(best)[0] == "node/n0"
    assert "3 of 3 parts that hang on it alert; it alerted first" in best[0].message


def test_a_gateway_is_not_blamed_while_most_of_its_services_are_well() -> None:
    reach = Reach(fleet(services=8, workers=1, nodes=4))
    assert names(rank(symptoms(("service", "demo/s0", 0), ("service", "demo/s4", 0)), reach, []))[0] == "node/n0"
    everyone = symptoms(*(("service", f"demo/s{n}", 0.0) for n in range(8)))
    assert names(rank(everyone, reach, []))[0] == str(THE_GATEWAY)


def test_a_change_shortly_before_is_suspicious_and_one_afterwards_is_not() -> None:
    reach = Reach(fleet(services=2, workers=2, nodes=2))
    seen = symptoms(("service", "demo/s0", 1000.0))
    revision = Part("revision", "demo/s0/r")
    assert names(rank(seen, reach, [Change(revision, 900.0, "it was rolled out")]))[0] == str(revision)
    late = rank(seen, reach, [Change(revision, 1100.0, "it was rolled out")])
    assert all("rolled out" not in one.message for one in late)


def test_two_faults_at_once_are_two_clusters() -> None:
    reach = Reach(fleet(services=6, workers=1, nodes=3))
    seen = symptoms(*(("service", f"demo/s{n}", 1.0) for n in (0, 3, 1, 4)), ("node", "n0", 0.0), ("node", "n1", 0.5))
    assert sorted(names(clusters(seen, reach, []))) == ["node/n0", "node/n1"]


def test_clusters_take_every_symptom_once() -> None:
    reach = Reach(fleet(services=5, workers=3, nodes=4))
    seen = symptoms(*(("worker", f"demo/s{n}-{k}", n + k) for n in range(5) for k in range(3)), ("unknown", "x", 0))
    found = clusters(seen, reach, [])
    taken = [part for one in found for part in one.explains]
    assert sorted(taken) == sorted(one.part for one in seen)
