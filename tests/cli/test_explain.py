"""`foretide explain`: every number of a decision, and less where less can be known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cli.decisions import changes, parsed
from cli.errors import CliError
from cli.explain_text import explain_lines
from cli.fleet import Service
from forecasting.policy import Policy, to_json
from tests.cli.cluster import LEADER, chat, condition, demo, forecast, run, with_record
from tests.cli.decided import HELD, UP, decided

NOW = datetime(2026, 3, 2, 12, 10, tzinfo=UTC)
CHAT = Service(chat(), forecast())

RAISED = """\
demo/chat: predictive; 8 ready of 8 wanted, 9 exist (times are UTC)
12:05  8 replicas held  Forecast
       because      8 replicas: p95 load 7.1k tok/s at +0 s ÷ 900 tok/s each (as
                    the spec says)
       Forecast     p95 load 7.1k tok/s at +0 s ÷ 900 tok/s each (as the spec
                    says) = 7.89
       WorkRate     load 5.1k tok/s now ÷ 900 tok/s each (as the spec says) =
                    5.67
       KVCache      6 ready × 40% of the KV cache ÷ 80% = 3.00
       Concurrency  90 running + 3 waiting ÷ 40 each = 2.33
       measured     5.1k tok/s of work, 12 requests/s, 90 running, 3 waiting, 2
                    s before; 6 of 8 ready
       quantiles    at +272 s: p10 5.1k tok/s, p50 5.9k tok/s, p90 6.8k tok/s,
                    p95 7.1k tok/s
       limits       1…12; tenant 'acme': 12 of 16 GPUs
       lead time    a new worker takes 272 s
12:00  6 → 8 replicas  Forecast, ready by about 12:04
       because      8 replicas: p95 load 7.1k tok/s at +0 s ÷ 900 tok/s each (as
                    the spec says)
       Forecast     p95 load 7.1k tok/s at +0 s ÷ 900 tok/s each (as the spec
                    says) = 7.89
       WorkRate     load 5.1k tok/s now ÷ 900 tok/s each (as the spec says) =
                    5.67
       KVCache      6 ready × 40% of the KV cache ÷ 80% = 3.00
       Concurrency  90 running + 3 waiting ÷ 40 each = 2.33
       measured     5.1k tok/s of work, 12 requests/s, 90 running, 3 waiting, 2
                    s before; 6 of 6 ready
       quantiles    at +272 s: p10 5.1k tok/s, p50 5.9k tok/s, p90 6.8k tok/s,
                    p95 7.1k tok/s
       limits       1…12; tenant 'acme': 12 of 16 GPUs
       lead time    a new worker takes 272 s"""

WITHOUT_RECORD = """\
demo/chat: predictive; 8 ready of 8 wanted, 9 exist (times are UTC)
11:58  6 → 8 replicas  Forecast
       because  8 replicas: p95 load 7.1k tok/s at +360 s ÷ 900 tok/s each
now
       load                 5100.5 tok/s
       forecast             +10m 5900 tok/s, p95 7100 → 8 replicas; +2h 4000
                            tok/s, p95 5500 → 7 replicas; peak 9 in 45m (made
                            11:58)
       one replica carries  900 tok/s: as the spec says
       lead time            a new worker takes 4m32s"""


def test_a_change_is_told_with_every_number_it_was_made_from() -> None:
    assert "\n".join(explain_lines(CHAT, [UP, HELD], 3, NOW)) == RAISED


def test_without_the_record_the_objects_say_what_they_know() -> None:
    assert "\n".join(explain_lines(CHAT, [], 3, NOW)) == WITHOUT_RECORD


def test_a_limit_of_tenant_or_pool_is_told_now_and_ahead() -> None:
    limited, ahead = chat(), forecast()
    said = "GPUPool 'h100': room for 8 of 9 workers, so no more than 8 are started. Add nodes to the pool."
    limited["status"]["conditions"].append(condition("ScalingLimited", "True", "PoolExhausted", said))
    ahead["status"]["limitedBy"] = "GPUPool 'h100': room for 8 of 9 workers, so 8 of the 9 at the peak"
    told = " ".join(" ".join(explain_lines(Service(limited, ahead), [], 3, NOW)).split())
    assert f"limited {said}" in told
    assert f"limit ahead {ahead['status']['limitedBy']}" in told


def test_the_record_is_read_from_the_pod_that_leads() -> None:
    shown = run(with_record(demo(), to_json(UP), to_json(HELD)), "explain", "chat")
    assert shown.stderr == ""
    assert "6 → 8 replicas  Forecast" in shown.stdout


def test_an_arithmetic_that_the_policy_no_longer_makes_is_not_made_up() -> None:
    other = replace(UP, message="8 replicas: of another release")
    said = "\n".join(explain_lines(CHAT, [other], 3, NOW))
    assert "of another release" in said
    assert "WorkRate" not in said
    assert "limits" in said


def test_what_is_asked_for_again_and_again_is_one_change() -> None:
    again = [decided(after_s, 6) for after_s in (0, 300, 600)]
    assert changes(again) == again[:1]


def test_advice_is_told_as_advice() -> None:
    said = explain_lines(CHAT, [decided(0, 6, Policy.ADVISORY)], 3, NOW)
    assert said[1] == "12:00  6 replicas held, advice 8  Advisory"


def test_a_record_without_a_change_says_since_when() -> None:
    said = explain_lines(CHAT, [HELD], 3, NOW)
    assert said[-1] == "No other number was asked for since 12:05, where the record begins."


def test_only_so_many_changes_are_shown() -> None:
    said = "\n".join(explain_lines(CHAT, [UP, decided(60, 7), decided(120, 5)], 1, NOW))
    assert said.count("→ ") == 1


def test_json_has_the_decisions_as_replay_knows_them() -> None:
    said = json.loads(run(with_record(demo(), to_json(UP), to_json(HELD)), "explain", "chat", "-o", "json").stdout)
    assert said["newest"]["replicas"] == 8
    assert [each["inputs"]["current"] for each in said["changes"]] == [6]


def test_lines_of_another_release_are_counted() -> None:
    found = parsed([to_json(UP), "{}"])
    assert found.decisions == (UP,)
    assert found.notes[0].startswith("1 of 2 records are not of this release (ScalingDecision lacks")


def test_who_may_not_reach_the_operator_is_told_so_and_gets_the_rest() -> None:
    cluster = with_record(demo())
    said = 'Error from server (Forbidden): services "foretide-operator:admin" is forbidden: User "dana" cannot get it'
    cluster.errors[f"{LEADER}/demo/chat?limit=500"] = said
    shown = run(cluster, "explain", "chat")
    assert "could not be read: Error from server (Forbidden)" in shown.stderr
    assert "6 → 8 replicas" in shown.stdout


def test_an_operator_without_a_leader_is_said() -> None:
    cluster = with_record(demo())
    said = 'Error from server (ServiceUnavailable): no endpoints available for service "foretide-operator:admin"'
    cluster.errors[f"{LEADER}/demo/chat?limit=500"] = said
    assert "Nobody leads there now" in run(cluster, "explain", "chat").stderr


def test_a_fixed_number_has_nothing_to_explain() -> None:
    shown = run(demo(), "explain", "chat-small")
    assert "as many replicas as spec.replicas says (1)" in shown.stdout
    assert shown.stderr == ""


def test_an_unknown_service_is_asked_back() -> None:
    with pytest.raises(CliError, match="did you mean 'chat'"):
        run(demo(), "explain", "chatt")
