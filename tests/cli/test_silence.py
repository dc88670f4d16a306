"""`foretide silence`: one silence more, for a time, with a reason, and nothing else changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from cli.errors import CliError
from cli.kubectl import Answer, Kubectl
from cli.silence import add, quiet_now, silence_of
from tests.cli.cluster import POLICIES, FakeKubectl, demo, policy, run

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
ASKED = ("silence", "on-call", "service=chat", "severity!=P2", "--for", "2h", "--reason", "new switches, Dana")


def patched(cluster: FakeKubectl) -> Any:
    (asked,) = (each for each in cluster.asked if each[0] == "patch")
    assert asked[:6] == ["patch", POLICIES, "on-call", "-n", "demo", "--type=json"]
    return json.loads(asked[asked.index("--patch") + 1])


def test_a_first_silence_begins_the_list_of_the_spec_that_was_read() -> None:
    cluster = demo()
    shown = run(cluster, *ASKED, "--name", "switches")
    unchanged, step = patched(cluster)
    assert unchanged == {"op": "test", "path": "/metadata/generation", "value": 7}
    assert (step["op"], step["path"]) == ("add", "/spec/silences")
    (value,) = step["value"]
    assert value["matchers"] == [
        {"label": "service", "value": "chat"},
        {"label": "severity", "value": "P2", "negate": True},
    ]
    assert (value["name"], value["comment"]) == ("switches", "new switches, Dana")
    assert "starts" not in value
    assert "service=chat and severity!=P2" in shown.stdout
    assert "  quiet now: P0 budget of service/demo/chat\n" in shown.stdout


def test_a_further_silence_is_added_at_the_end() -> None:
    cluster = demo()
    other = {"name": "old", "matchers": [{"label": "a", "value": "b"}], "ends": "2026-01-01T00:00:00Z"}
    cluster.objects[POLICIES][0]["spec"]["silences"] = [other]
    run(cluster, *ASKED)
    _, step = patched(cluster)
    assert step["path"] == "/spec/silences/-"
    with pytest.raises(CliError, match="has a silence 'old' already"):
        run(cluster, *ASKED, "--name", "old")


def test_it_ends_when_the_time_is_over() -> None:
    silence = silence_of(None, ["service=chat"], "90m", "why", NOW)
    assert (silence.name, silence.ends) == ("silence-20260302-120000", "2026-03-02T13:30:00Z")


def test_alerts_that_only_wait_or_do_not_match_are_not_counted_as_quiet() -> None:
    assert quiet_now(policy(), silence_of(None, ["service=ch*"], "1h", "why", NOW)) == [
        "P0 budget of service/demo/chat"
    ]
    assert quiet_now(policy(), silence_of(None, ["service=other"], "1h", "why", NOW)) == []


@pytest.mark.parametrize(
    ("matchers", "lasts", "reason", "name", "says"),
    [
        (["service"], "1h", "why", None, "label=value or label!=value is needed"),
        (["=x"], "1h", "why", None, "label=value or label!=value is needed"),
        (["9bad=x"], "1h", "why", None, "matchers.0.label"),
        (["a=b"], "soon", "why", None, "--for is 'soon'"),
        (["a=b"], "31d", "why", None, "from 1m to 30d"),
        (["a=b"], "500ms", "why", None, "from 1m to 30d"),
        (["a=b"], "1h", "  ", None, "--reason is empty"),
        (["a=b"], "1h", "x" * 201, None, "--reason: "),
        (["a=b"], "1h", "why", "Bad Name", "--name: "),
        (["a=b"] * 17, "1h", "why", None, "at most 16"),
    ],
)
def test_what_cannot_be_is_refused_before_the_cluster_is_asked(
    matchers: list[str], lasts: str, reason: str, name: str | None, says: str
) -> None:
    with pytest.raises(CliError) as raised:
        silence_of(name, matchers, lasts, reason, NOW)
    assert says in str(raised.value)


def test_a_policy_without_room_says_so() -> None:
    full = policy()
    full["spec"]["silences"] = [{"name": f"s{at}"} for at in range(50)]
    with pytest.raises(CliError, match="has 50 silences, and 50 are allowed"):
        add(Kubectl(demo(), None), full, silence_of(None, ["a=b"], "1h", "why", NOW))


@pytest.mark.parametrize(("generation", "says"), [(8, "was edited meanwhile"), (7, "kubectl: the server is broken")])
def test_an_edit_of_somebody_else_is_told_from_other_failures(generation: int, says: str) -> None:
    edited = policy()
    edited["metadata"]["generation"] = generation

    def cluster(arguments: Sequence[str]) -> Answer:
        if arguments[0] == "patch":
            return Answer(1, "", "the server is broken")
        return Answer(0, json.dumps(edited), "")

    with pytest.raises(CliError, match=says):
        add(Kubectl(cluster, None), policy(), silence_of(None, ["a=b"], "1h", "why", NOW))


def test_an_unknown_policy_is_asked_back_and_json_names_what_is_quiet() -> None:
    with pytest.raises(CliError, match="no AlertPolicy 'oncall' in namespace 'demo'; did you mean 'on-call'"):
        run(demo(), "silence", "oncall", *ASKED[2:])
    said = json.loads(run(demo(), *ASKED, "-o", "json").stdout)
    assert said["silencedNow"] == ["P0 budget of service/demo/chat"]
    assert said["silence"]["comment"] == "new switches, Dana"
