"""`foretide status`: what a person reads, and what they read when it cannot be known."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.errors import CliError
from cli.fleet import joined, read_fleet
from cli.kubectl import Answer, Kubectl
from cli.main import main
from cli.status_text import fleet_lines, service_lines
from crds.conditions import DEGRADED, QUALITY_DRIFT, WEAK_ISOLATION, WORKERS_OUTDATED
from tests.cli.cluster import SERVICES, FakeKubectl, NoKubectl, broken, chat, demo, forecast, policy, run, sla

NOON = datetime(2026, 3, 2, 12, 5, tzinfo=UTC)

FLEET = """\
SERVICE     MODEL         READY  SERVABLE  REPLICAS  REVISION  ROLLOUT    ALERTS
chat        smollm2-135m  True   True      8/8       7f3c9     Analysing  1 P0
chat-small  smollm2-135   False  False     0/1       -         -          -

demo/chat-small: Servable is False, ModelNotFound
  Model 'smollm2-135' is not in namespace 'demo'; did you mean 'smollm2-135m'?
"""

CHAT = """\
demo/chat serves smollm2-135m
  Ready        True since 11:58: 8 of 8 workers of revision 7f3c9 are ready.
  Servable     True since 11:58: A probe through the gateway was answered.
  replicas     8 ready of 8 wanted, 9 exist
  revisions    7f3c9 (current) 1 of 1 ready; 55aa0 7 of 8 ready
  rollout      Analysing since 11:58: 7f3c9 at 10 %
  SLA          interactive: P1, TTFT ≤ 1s and TPOT ≤ 50ms for 99 %; 99.9% over
               28d allows 40m19s of full outage
  load         5100.5 tok/s (measured)
  forecast     +10m 5900 tok/s, p95 7100 → 8 replicas; +2h 4000 tok/s, p95 5500
               → 7 replicas; peak 9 in 45m (made 11:58)
  scaling      predictive; it calls for 8
  last change  11:58  6 → 8, Forecast: 8 replicas: p95 load 7.1k tok/s at +360 s
               ÷ 900 tok/s each
  alert        P0 budget firing since 11:58: 2.1 % of requests fail, 14.4 × the
               rate that the budget allows
"""

NO_PLUGIN = """\
E0302 12:00:00.000000 memcache.go:265] "Unhandled Error" err="getting credentials: exec: executable aws-iam not found"
Unable to connect to the server: getting credentials: exec: executable aws-iam not found

It looks like you are trying to use a client-go credential plugin that is not installed.

To learn more about this feature, consult the documentation available at:
      https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""


def test_the_fleet_is_a_table_and_the_reasons_below_it() -> None:
    assert run(demo(), "status").stdout == FLEET


def test_one_service_says_everything_that_its_objects_know() -> None:
    one = joined([chat()], [forecast()], [sla()], [policy()])[0]
    assert "\n".join(service_lines(one, NOON)) + "\n" == CHAT


def test_what_alerts_ask_of_a_service_is_told_with_who_asked_and_until_when() -> None:
    asked = chat()
    message = "alert 'QueueGrows' fires, and reaction 'stand-by' of AlertPolicy demo/shop asks for 6 while it does."
    asked["status"]["scaling"]["floor"] = {"workers": 6, "until": "2026-03-02T12:30:00Z", "message": message}
    causes = [{"cause": "WorkerHung", "evidence": "no step for 2.4 s", "advice": "Read its log."}] * 3
    times = {"since": "2026-03-02T11:58:00Z", "time": "2026-03-02T11:59:00Z"}
    asked["status"]["diagnosis"] = {"alert": "QueueGrows", "policy": "demo/shop", "causes": causes, **times}
    said = " ".join(" ".join(service_lines(joined([asked], [], [], [])[0], NOON)).split())
    assert f"floor 6 workers at least, until 12:30: {message}" in said
    assert "diagnosis 11:59 WorkerHung: no step for 2.4 s (and 2 more)" in said


@pytest.mark.parametrize("type_", [QUALITY_DRIFT, WORKERS_OUTDATED, WEAK_ISOLATION, DEGRADED])
def test_a_condition_that_only_stands_while_it_is_true_is_shown(type_: str) -> None:
    one = chat()
    said = {"type": type_, "status": "True", "reason": "X", "lastTransitionTime": "2026-03-02T11:58:00Z"}
    one["status"]["conditions"].append(said | {"message": "It is so."})
    lines = service_lines(joined([one], [], [], [])[0], NOON)
    assert f"{type_} True since 11:58: It is so." in [" ".join(line.split()) for line in lines]


def test_no_line_is_longer_than_80_columns_and_no_name_is_cut_before_a_model() -> None:
    far = chat()
    far["metadata"] = {"name": "a-service-of-forty-characters-forty-char", "namespace": "production"}
    said = fleet_lines(joined([chat(), far], [], [], []))
    assert max(map(len, said)) == 80
    assert said[0].startswith("NAMESPACE  SERVICE")


def test_the_longest_names_fit_too() -> None:
    long = broken()
    long["metadata"] = {"name": "n" * 40, "namespace": "s" * 63}
    services = joined([long, chat()], [], [], [])
    assert max(map(len, [*fleet_lines(services), *service_lines(services[1], NOON)])) <= 80


def test_json_holds_the_objects_own_words() -> None:
    said = json.loads(run(demo(), "status", "chat", "-o", "json").stdout)
    assert said["status"]["replicaStatus"] == "8/8"
    assert [alert["rule"] for alert in said["alerts"]] == ["budget"]
    assert [one["name"] for one in json.loads(run(demo(), "status", "-o", "json").stdout)["services"]] == [
        "chat",
        "chat-small",
    ]


def test_a_new_service_without_a_status_is_not_known_rather_than_well() -> None:
    new = {"metadata": {"name": "new", "namespace": "demo"}, "spec": {"model": "m"}}
    shown = run(FakeKubectl({SERVICES: [new]}), "status", "new").stdout
    assert "Unknown: the operator has not looked at it yet" in shown
    assert "not known yet" in shown


def test_one_service_of_all_namespaces_is_no_question() -> None:
    with pytest.raises(CliError, match="say -n NAMESPACE with 'chat', or -A alone"):
        run(demo(), "status", "chat", "-A")


def test_a_name_that_is_nearly_right_is_asked_back() -> None:
    with pytest.raises(CliError, match="no InferenceService 'chatt' in namespace 'demo'; did you mean 'chat'"):
        run(demo(), "status", "chatt")
    with pytest.raises(CliError, match="there are 'chat' and 'chat-small'"):
        run(demo(), "status", "zzz")


def test_no_service_at_all_is_said() -> None:
    assert run(FakeKubectl(), "status").stdout == "There is no InferenceService here. -A looks in all namespaces.\n"


def test_what_may_not_be_read_is_left_out_with_a_note() -> None:
    refused = 'Error from server (Forbidden): slas.foretide.dev is forbidden: User "dana" cannot list resource "slas"'
    shown = run(demo(slas=refused), "status", "chat")
    assert "Without slas: Error from server (Forbidden)" in shown.stderr
    assert "interactive: it was not found, or may not be read" in shown.stdout


def test_a_kind_that_an_older_release_did_not_install_is_left_out_with_a_note() -> None:
    missing = 'error: the server doesn\'t have a resource type "alertpolicies"'
    shown = run(demo(alertpolicies=missing), "status", "chat")
    assert "Without alertpolicies: error: the server doesn't have a resource type" in shown.stderr
    assert "none fires" in shown.stdout
    with pytest.raises(CliError, match="Foretide's kinds are not installed here"):
        run(demo(inferenceservices=missing), "status")


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ('Error from server (Forbidden): User "dana" cannot list', "Ask whoever runs the cluster for that right"),
        ("The connection to the server localhost:8080 was refused", "The cluster does not answer"),
        ("Unable to connect to the server: dial tcp: i/o timeout", "Check kubectl config current-context"),
        ('error: the server doesn\'t have a resource type "inferenceservices"', "kinds are not installed"),
        ("error: You must be logged in to the server (Unauthorized)", "Sign in"),
        ('error: context "x" does not exist', "get-contexts"),
        ("Error in configuration: context was not found for specified context: x", "get-contexts"),
        (NO_PLUGIN, "executable aws-iam not found. Install the login plugin that the kubeconfig names, or sign in"),
        ("Error from server: etcd is full\nsee https://kubernetes.io", "kubectl: Error from server: etcd is full"),
        ("", "nothing was said"),
    ],
)
def test_what_kubectl_says_becomes_what_a_person_can_do(stderr: str, says: str) -> None:
    with pytest.raises(CliError) as raised:
        run(FakeKubectl(errors={SERVICES: stderr}), "status")
    assert says in str(raised.value)


def test_a_machine_without_kubectl_is_told_where_to_get_it() -> None:
    with pytest.raises(CliError, match="no kubectl on the PATH"):
        run(NoKubectl(), "status")


def test_namespace_and_context_are_handed_on() -> None:
    cluster = demo()
    run(cluster, "status", "-n", "demo", "--context", "lab")
    assert cluster.asked[0][:6] == ["get", SERVICES, "-n", "demo", "-o", "json"]
    assert cluster.asked[0][6:8] == ["--context", "lab"]
    run(cluster, "status", "-A")
    assert "-A" in cluster.asked[-1]


def test_an_answer_that_is_no_json_is_said() -> None:
    with pytest.raises(CliError, match="no JSON"):
        read_fleet(Kubectl(lambda arguments: Answer(0, "hello", ""), None), None)


def test_the_broken_one_says_why() -> None:
    assert "did you mean 'smollm2-135m'" in "\n".join(service_lines(joined([broken()], [], [], [])[0], NOON))


def test_the_real_kubectl_is_run_with_its_errors_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\necho "warning: old" >&2\necho "Unable to connect to the server: EOF" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["kubectl-foretide", "status"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "foretide: The cluster does not answer: Unable to connect to the server: EOF."
        " Check kubectl config current-context.\n"
    )


def test_a_service_that_this_release_cannot_read_is_shown_with_a_sentence_in_every_command() -> None:
    odd = chat() | {"kind": "InferenceService"}
    odd["spec"] = odd["spec"] | {"accelerator": {"cpu": {}}, "rollout": {"strategy": "ofTomorrow"}}
    kubectl = demo()
    kubectl.objects[SERVICES] = [odd]
    for command in (["status"], ["status", "chat"], ["diagnose", "chat"], ["explain", "chat"]):
        shown = run(kubectl, *command)
        assert shown.exit_code == 0, shown.output
        assert "InferenceService 'demo/chat' is read in part: spec.rollout.strategy is 'ofTomorrow'" in shown.stderr
        assert "chat" in shown.stdout
