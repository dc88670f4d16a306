"""The control-plane benchmark: its small parts alone, and a whole small run against a real API server."""

import math
from pathlib import Path

import pytest

from benchmarks.control_plane import __main__ as program
from benchmarks.control_plane import fleet
from benchmarks.control_plane.api import Writes, since
from benchmarks.control_plane.edits import Latencies, quantile, round_of
from benchmarks.control_plane.exposition import parse, total
from benchmarks.control_plane.rows import WORDS
from benchmarks.control_plane.scale import Scale
from benchmarks.control_plane.stand_in import POD_BYTES, Seen, pod_of
from benchmarks.report import RESULTS, Report, render

SMALL = Scale(objects=20, pods=200, edits=10)


def deployment(*, replicas: int = 10, arguments: tuple[str, ...] = (), of_peer: bool = False) -> Seen:
    return Seen("team-00", "chat-0000-1f", "chat-0000", of_peer, replicas, 1, 1, replicas, arguments)


def test_services_are_spread_evenly_and_refer_to_what_is_declared() -> None:
    declared = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in _everything()}
    services = list(fleet.services(SMALL))
    assert len(services) == SMALL.objects
    for one in services:
        namespace, spec = one["metadata"]["namespace"], one["spec"]
        assert ("Model", namespace, spec["model"]) in declared
        assert ("SLA", namespace, spec["sla"]) in declared
        assert ("Tenant", None, namespace) in declared


def _everything() -> list[dict[str, object]]:
    return [*fleet.foundations(SMALL), *fleet.declarations(SMALL)]  # type: ignore[list-item]


def test_a_scale_without_a_pod_for_each_object_is_refused() -> None:
    with pytest.raises(ValueError, match="100 objects and 10 pods"):
        Scale(objects=100, pods=10)


def test_every_other_edit_asks_for_workers_and_the_rest_for_a_new_revision() -> None:
    first, second = round_of(fleet.service_names(SMALL), 0, SMALL, of_peer=False)[:2]
    assert first.is_followed_by(deployment(replicas=11))
    assert not first.is_followed_by(deployment(replicas=10))
    assert second.is_followed_by(deployment(arguments=("serve", "--max-num-seqs", "16")))
    assert not second.is_followed_by(deployment(arguments=("serve", "--max-num-seqs", "8")))


def test_an_edit_is_not_followed_by_the_other_subjects_deployment() -> None:
    edit = round_of(fleet.service_names(SMALL), 0, SMALL, of_peer=True)[0]
    assert not edit.is_followed_by(deployment(replicas=11))
    assert edit.is_followed_by(deployment(replicas=11, of_peer=True))


def test_rounds_never_ask_for_the_same_value_twice() -> None:
    rounds = [round_of(fleet.service_names(SMALL), number, SMALL, of_peer=False)[0] for number in range(4)]
    assert len({edit.spec["replicas"] for edit in rounds}) == 4


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(one) for one in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]


def test_an_edit_that_was_never_followed_counts_as_lost_and_not_as_fast() -> None:
    found = Latencies(ms=[5.0, math.inf])
    assert found.lost == 1
    assert math.isinf(found.quantile(0.99))


def test_writes_are_told_apart_by_what_was_written() -> None:
    before, after = Writes({"deployments": 3, "leases": 5}), Writes({"deployments": 4, "leases": 9})
    made = since(before, after)
    assert (made.without_leases, made.leases) == (1, 4)


def test_counters_are_read_back_with_their_labels() -> None:
    text = 'a_total{kind="X",result="ok"} 3\na_total{kind="Y",result="ok"} 4.0\n# HELP b\nb 1e3\n'
    assert total(parse(text), "a_total", kind="Y") == 4
    assert total(parse(text), "a_total", result="ok") == 7
    assert parse(text, "b") == {"b": [({}, 1000.0)]}


def test_a_worker_pod_has_the_size_of_a_real_one() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "worker"}]}}
    meta = {"namespace": "team-00", "name": "chat-1f", "uid": "u"}
    pod = pod_of({"metadata": meta, "spec": {"template": template}}, 0, 7, SMALL)
    assert len(pod["metadata"]["annotations"]["example.com/sidecar-state"]) < POD_BYTES
    assert pod["spec"]["nodeName"] == "node-07"


@pytest.mark.apiserver
def test_a_small_run_measures_both_and_writes_its_results(tmp_path: Path) -> None:
    small = ["--objects", "20", "--pods", "200", "--edits", "10", "--window", "1", "--restarts", "1"]
    assert program.main([*small, "--out", str(tmp_path)]) == 0
    found = Report.read(tmp_path / "control_plane.json").rows
    assert all(row.ours is not None and row.peer is not None for row in found)
    quiet = [row for row in found if row.metric.startswith("API writes") and row.goal == 0]
    assert [row.ours for row in quiet] == [0.0, 0.0]
    assert "## " in (tmp_path / "control_plane.md").read_text(encoding="utf-8")


def test_the_published_page_is_made_from_the_published_numbers() -> None:
    numbers = Report.read(RESULTS / "control_plane.json")
    assert (RESULTS / "control_plane.md").read_text(encoding="utf-8") == render(numbers, WORDS)
