"""`foretide top`: the busiest first, and a dash where nobody has said so."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cli.fleet import Service
from cli.top_text import busiest, row_of, top_lines
from forecasting.policy import to_json
from tests.cli.cluster import LEADER, broken, chat, demo, forecast, run, with_record
from tests.cli.decided import HELD

NOW = datetime(2026, 3, 2, 12, 6, tzinfo=UTC)

TOP = """\
SERVICE     READY  PLAN  LOAD/S  USED  REQ/S  IN/S  OUT/S  RUN  WAIT  KV   AGE
chat        8/8    8     5.1k    71%   12     4k    4.1k   90   3     40%  1m2s
chat-small  0/1    -     -       -     -      -     -      -    -     -    -"""


def test_the_busiest_is_first_and_what_nobody_measured_is_a_dash() -> None:
    services = busiest([Service(broken()), Service(chat(), forecast())])
    rows = [row_of(one, {("demo", "chat"): HELD}, NOW) for one in services]
    assert "\n".join(top_lines(rows)) == TOP


@pytest.mark.parametrize(
    ("load", "shown"),
    [("999.4", "999"), ("999.6", "1k"), ("99400", "99k"), ("99960", "100k"), ("999700", "1M"), ("123456789", "123M")],
)
def test_a_number_that_is_rounded_up_to_the_next_unit_is_told_in_it(load: str, shown: str) -> None:
    busy = forecast()
    busy["status"]["load"] = load
    assert top_lines([row_of(Service(chat(), busy), {}, NOW)])[1].split()[3] == shown


def test_a_long_name_of_many_namespaces_still_fits() -> None:
    far = chat()
    far["metadata"] = {"name": "a" * 40, "namespace": "production-of-a-long-name"}
    rows = [row_of(one, {}, NOW) for one in (Service(far, forecast()), Service(chat(), forecast()))]
    said = top_lines(rows)
    assert max(map(len, said)) <= 80
    assert said[2].startswith("demo/chat ")


def test_the_newest_record_of_each_scaled_service_is_read_and_no_other() -> None:
    cluster = with_record(demo(), to_json(HELD))
    shown = run(cluster, "top", "-o", "json")
    said = json.loads(shown.stdout)
    assert said["total"] == 2
    assert [(row["name"], (row["measured"] or {}).get("running")) for row in said["services"]] == [
        ("chat", 90.0),
        ("chat-small", None),
    ]
    assert sum("decisions" in asked[2] for asked in cluster.asked) == 1


def test_who_may_not_reach_the_operator_sees_what_the_objects_say() -> None:
    cluster = with_record(demo())
    forbidden = 'Error from server (Forbidden): services "foretide-operator:admin" is forbidden'
    cluster.errors[f"{LEADER}/demo/chat?limit=1"] = forbidden
    shown = run(cluster, "top")
    assert "could not be read" in shown.stderr
    assert "5.1k" in shown.stdout


def test_only_so_many_are_shown_and_the_rest_is_counted() -> None:
    shown = run(with_record(demo()), "top", "--most", "1").stdout
    assert "chat-small" not in shown
    assert shown.endswith("1 more have less load; --most shows more.\n")
