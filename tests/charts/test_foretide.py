"""The chart as an administrator meets it: senseless values are refused, rights are few, pods are restricted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import decisions
from controllers.model_cache import settings as agent_settings
from controllers.settings import load_settings
from crds.contract import GROUP
from crds.kinds import KINDS
from e2e.cluster import tools
from gateway import settings as gateway_settings
from gateway.http1.limits import MIB

CHART = Path(__file__).parent.parent.parent / "charts/foretide"
Object = dict[str, Any]


def template(*flags: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    command = [
        str(tools.helm()),
        "template",
        "foretide",
        str(chart),
        "-n",
        "foretide-system",
        "--kube-version",
        "1.35.0",
    ]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60, check=False)


def objects(*flags: str, chart: Path = CHART) -> list[Object]:
    done = template(*flags, chart=chart)
    assert done.returncode == 0, done.stderr
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    for obj in found:
        if obj["kind"] in ("Deployment", "DaemonSet"):
            yield obj["metadata"]["name"], obj["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("gateway.replcas=2", "additional properties 'replcas' not allowed"),
        ("operator.replicas=0", "/operator/replicas"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("gateway.url=example.com", "/gateway/url"),
        ("image.tag=a b", "/image/tag"),
        ("image.registry=registry.example.com/", "/image/registry"),
        ("image.repository=foretide/", "/image/repository"),
        ("modelCache.path=models", "/modelCache/path"),
        ("modelCache.path=/var/lib/a: b", "/modelCache/path"),
        ("modelCache.keepFreePercent=100", "/modelCache/keepFreePercent"),
        ("modelCache.allowPrivateNetworks[0]=10.0.0.1", "/modelCache/allowPrivateNetworks/0"),
        ("modelCache.allowPrivateNetworks[0]=10.0.0.0/99", "/modelCache/allowPrivateNetworks/0"),
        ("alerting.allowPrivateNetworks[0]=fd00::/129", "/alerting/allowPrivateNetworks/0"),
        ("alerting.allowPrivateNetworks[0]=10.0.0.256/8", "/alerting/allowPrivateNetworks/0"),
        ("gateway.logLevel=loud", "/gateway/logLevel"),
        (
            "gatewayAPI.parentRefs[0].name=edge,gatewayAPI.parentRefs[0].namespace=ingress",
            "gatewayAPI.parentRefs needs gateway.endpointPicker.enabled",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_path(flag: str, says: str) -> None:
    done = template("--set", flag)
    assert done.returncode != 0
    assert says in done.stderr


def test_names_of_images_that_registries_give_are_accepted() -> None:
    flags = ["image.registry=localhost:5000/team/ml", "image.repository=fore_tide/a__b"]
    flags += [f"image.tag=v1.2.3-rc.1@sha256:{'0' * 64}"]
    found = dict(pods(objects("--set", ",".join(flags))))
    image = found["foretide-gateway"]["containers"][0]["image"]
    assert image == f"localhost:5000/team/ml/fore_tide/a__b/gateway:v1.2.3-rc.1@sha256:{'0' * 64}"


def test_networks_and_folders_are_read_as_they_are_written(tmp_path: Path) -> None:
    values = {"allowPrivateNetworks": ["10.1.2.3/8", "FD00:1::1/128"]}
    folder = {"path": "/srv/my # models"}
    flags = [f"alerting={json.dumps(values)}", f"modelCache={json.dumps(values | folder)}"]
    found = objects("--set-json", flags[0], "--set-json", flags[1])
    config = next(obj for obj in found if obj["kind"] == "ConfigMap" and "operator.yaml" in obj["data"])
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    settings = load_settings(file)
    assert [str(one) for one in settings.alerting.allow_private_networks] == ["10.0.0.0/8", "fd00:1::1/128"]
    pod = dict(pods(found))["foretide-model-cache"]
    agent = agent_settings.parse(pod["containers"][0]["args"])
    for address in ("10.200.0.1", "fd00:1::1"):
        agent.access.guard.check("models.example.com", address)
    mounted = next(one["mountPath"] for one in pod["containers"][0]["volumeMounts"] if one["name"] == "models")
    assert {str(agent.root), settings.model_cache.path, mounted} == {folder["path"]}


def test_every_default_value_is_described_by_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    def undescribed(value: Any, node: Object, path: str) -> Iterator[str]:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        for name, inner in value.items() if isinstance(value, dict) else ():
            known = node.get("properties", {})
            if name in known:
                yield from undescribed(inner, known[name], f"{path}.{name}")
            elif node.get("additionalProperties", True) is False:
                yield f"{path}.{name}"

    assert list(undescribed(values, schema, "")) == []


def test_no_right_is_a_wildcard_and_none_reaches_beyond_its_need() -> None:
    rules = [(obj, rule) for obj in objects() if obj["kind"] in ("ClusterRole", "Role") for rule in obj["rules"]]
    assert rules
    for obj, rule in rules:
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "*" not in words
        assert words.isdisjoint({"escalate", "bind", "impersonate", "pods/exec", "nodes/proxy"})
        assert obj["kind"] == "Role" or "secrets" not in rule["resources"], "no cluster-wide secrets"


def test_operator_and_gateway_are_restricted_pods() -> None:
    for name, pod in pods(objects()):
        container = pod["containers"][0]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        if name != "foretide-model-cache":
            assert pod["securityContext"]["runAsNonRoot"]
            assert not any("hostPath" in volume for volume in pod["volumes"])


def test_the_operator_accepts_the_configuration_that_the_chart_writes(tmp_path: Path) -> None:
    flags = [
        "--set",
        "operator.monitoringNamespace=monitoring",
        "--set",
        "workers.gpu.image=registry.example.com/gpu:1",
    ]
    config = next(obj for obj in objects(*flags) if obj["kind"] == "ConfigMap")
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    settings = load_settings(file)
    assert settings.images.worker_gpu == "registry.example.com/gpu:1"
    assert settings.monitoring_namespace == "monitoring"
    assert settings.gateway_url == "http://foretide-gateway.foretide-system.svc:8080/v1"


def test_what_images_are_pulled_with_is_named_to_the_operator_for_its_workers(tmp_path: Path) -> None:
    found = objects("--set", "image.pullSecrets={registry,mirror}")
    config = next(obj for obj in found if obj["kind"] == "ConfigMap")
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    assert load_settings(file).images.pull_secrets == ("registry", "mirror")
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}] for _, pod in pods(found))


def test_the_operator_is_told_which_nodes_have_an_agent(tmp_path: Path) -> None:
    found = objects("--set-string", "modelCache.nodeSelector.cache=true")
    config = next(obj for obj in found if obj["kind"] == "ConfigMap")
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    selector = dict(pods(found))["foretide-model-cache"]["nodeSelector"]
    assert load_settings(file).model_cache.node_selector == selector == {"cache": "true"}


def test_pod_monitors_stand_only_where_their_kind_is_known() -> None:
    assert not any(obj["kind"] == "PodMonitor" for obj in objects())
    known = objects("--api-versions", "monitoring.coreos.com/v1/PodMonitor")
    assert sum(obj["kind"] == "PodMonitor" for obj in known) == 4


def of_version(chart: Path, version: str, folder: Path) -> Path:
    """A copy of the chart with another version, as Flux makes one with `reconcileStrategy: Revision`."""
    made = Path(shutil.copytree(chart, folder / version / chart.name))
    about = yaml.safe_load((made / "Chart.yaml").read_text())
    (made / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": version}))
    return made


def labels_in(value: Any) -> Iterator[str]:
    """Every label that an object, or what it is a template of, gets."""
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    ):
        if name == "metadata" and isinstance(inner, dict):
            yield from inner.get("labels", {}).values()
        yield from labels_in(inner)


@pytest.mark.parametrize("version", ["0.1.0+2fcd4af0e1b7", f"0.1.0-{'long-' * 8}.x+{'2fcd4af0e1b7' * 4}", "0.1.0-rc.1"])
@pytest.mark.parametrize("chart", [CHART, CHART.parent / "foretide-crds"], ids=["foretide", "foretide-crds"])
def test_with_any_version_of_the_chart_every_label_is_one_that_the_api_server_takes(
    chart: Path, version: str, tmp_path: Path
) -> None:
    flags = ("--set", "gpuPools.enabled=true", "--set", "grafana.enabled=true") if chart == CHART else ()
    found = [*labels_in(objects(*flags, chart=of_version(chart, version, tmp_path)))]
    assert [one for one in found if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", one)] == []


def test_another_version_of_the_chart_replaces_no_pod(tmp_path: Path) -> None:
    def templates(version: str) -> dict[str, Object]:
        found = objects("--set", "gpuPools.enabled=true", chart=of_version(CHART, version, tmp_path))
        return {one["metadata"]["name"]: one["spec"]["template"] for one in found if "template" in one.get("spec", {})}

    before, after = templates("0.1.0+a"), templates("0.1.0+b")
    assert len(before) == 5
    assert before == after


def test_file_roots_are_mounted_read_only_and_named_to_the_agent() -> None:
    found = dict(pods(objects("--set", "modelCache.fileRoots={/srv/models}")))
    agent = found["foretide-model-cache"]["containers"][0]
    assert "--file-root=/srv/models" in agent["args"]
    mount = next(m for m in agent["volumeMounts"] if m["mountPath"] == "/srv/models")
    assert mount["readOnly"]
    volume = next(v for v in found["foretide-model-cache"]["volumes"] if v["name"] == mount["name"])
    assert volume["hostPath"] == {"path": "/srv/models", "type": "DirectoryOrCreate"}, "a node may lack it"


def test_every_process_accepts_the_arguments_that_the_chart_gives_it() -> None:
    found = {name: pod["containers"][0]["args"] for name, pod in pods(objects("--set", "gateway.accessLog=false"))}
    gateway = gateway_settings.parse(found["foretide-gateway"])
    assert (gateway.system_namespace, gateway.access_log_share) == ("foretide-system", 0.0)
    agent = agent_settings.parse([one.replace("$(NODE_NAME)", "node-1") for one in found["foretide-model-cache"]])
    assert agent.node_name == "node-1"
    assert (agent.cache_bytes, agent.keep_free_percent) == (200 * 2**30, 16)


def test_the_gateway_api_is_led_to_the_picker_and_the_operator_may_write_its_kinds(tmp_path: Path) -> None:
    flags = ["--set", "gatewayAPI.parentRefs[0].name=edge", "--set", "gatewayAPI.parentRefs[0].namespace=ingress"]
    flags += ["--set", "gateway.endpointPicker.enabled=true", "--set", "gateway.endpointPicker.tlsSecret=picker"]
    found = objects(*flags)
    file = tmp_path / "operator.yaml"
    config = next(obj for obj in found if obj["kind"] == "ConfigMap" and "operator.yaml" in obj["data"])
    file.write_text(config["data"]["operator.yaml"])
    chosen = load_settings(file).gateway_api
    assert [(one.name, one.namespace) for one in chosen.parents] == [("edge", "ingress")]
    service = next(obj for obj in found if obj["metadata"]["name"] == chosen.picker_service)
    pod = dict(pods(found))["foretide-gateway"]["containers"][0]
    gateway = gateway_settings.parse(pod["args"])
    assert gateway.picker is not None
    assert gateway.picker.port == service["spec"]["ports"][0]["port"]
    assert gateway.picker.certificate is not None
    granted = {
        name for obj in found if obj["kind"] == "ClusterRole" for rule in obj["rules"] for name in rule["resources"]
    }
    assert {"inferencepools", "httproutes"} <= granted
    usual = {
        name for obj in objects() if obj["kind"] == "ClusterRole" for rule in obj["rules"] for name in rule["resources"]
    }
    assert usual.isdisjoint({"inferencepools", "httproutes"})


@pytest.mark.parametrize(("secret", "protocol"), [("", "kubernetes.io/h2c"), ("picker", None)])
def test_a_picker_with_a_certificate_is_not_said_to_speak_plain_text(secret: str, protocol: str | None) -> None:
    flags = ["--set", "gateway.endpointPicker.enabled=true", "--set", f"gateway.endpointPicker.tlsSecret={secret}"]
    (service,) = (one for one in objects(*flags) if one["metadata"]["name"] == "foretide-endpoint-picker")
    assert service["spec"]["ports"][0].get("appProtocol") == protocol


def test_a_collector_is_named_to_the_gateway_with_the_share_of_requests() -> None:
    flags = ["--set", "gateway.tracing.endpoint=http://collector:4318", "--set-json", "gateway.tracing.sampleRatio=0.5"]
    gateway = gateway_settings.parse(dict(pods(objects(*flags)))["foretide-gateway"]["containers"][0]["args"])
    assert gateway.tracing == gateway_settings.TracingSettings("http://collector:4318", 0.5)


def test_a_stopping_gateway_gets_the_time_that_its_drain_may_take() -> None:
    pod = dict(pods(objects()))["foretide-gateway"]
    gateway = gateway_settings.parse(pod["containers"][0]["args"])
    assert pod["terminationGracePeriodSeconds"] > gateway.drain_grace_s + gateway.drain_timeout_s


def test_only_gpu_pools_and_their_agent_may_write_nodes_and_both_are_off_by_default() -> None:
    assert not any(obj["metadata"]["name"] == "foretide-gpu-pools" for obj in objects())
    found = objects("--set", "gpuPools.enabled=true")
    writers = {
        obj["metadata"]["name"]
        for obj in found
        if obj["kind"] == "ClusterRole"
        for rule in obj["rules"]
        if "nodes" in rule["resources"] and "patch" in rule["verbs"]
    }
    assert writers == {"foretide-gpu-pools", "foretide-gpu-agent"}
    roles = {obj["metadata"]["name"]: obj["rules"] for obj in found if obj["kind"] == "ClusterRole"}
    assert [rule["resources"] for rule in roles["foretide-gpu-agent"]] == [["nodes"]]
    pod = dict(pods(found))["foretide-gpu-pools"]
    assert pod["serviceAccountName"] == "foretide-gpu-pools"
    assert "--manage=gpu-pools" in pod["containers"][0]["args"]


def test_the_configuration_of_the_mig_manager_is_all_that_gpu_pools_may_write_beside() -> None:
    flags = ["--set", "gpuPools.enabled=true", "--set", "gpuPools.migManager.namespace=nvidia"]
    roles = [obj for obj in objects(*flags) if obj["kind"] == "Role" and obj["metadata"]["namespace"] == "nvidia"]
    verbs = {verb for role in roles for rule in role["rules"] for verb in rule["verbs"] if rule.get("resourceNames")}
    assert verbs == {"list", "watch", "patch"}
    config = next(obj for obj in objects(*flags) if obj["kind"] == "ConfigMap")
    assert yaml.safe_load(config["data"]["operator.yaml"])["gpu_pools"]["manager_namespace"] == "nvidia"


def test_alertmanagers_and_secrets_of_receivers_are_reached_only_where_it_is_asked_for(tmp_path: Path) -> None:
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in objects()}
    assert ("Service", "foretide-alerts") not in names
    assert ("Role", "foretide-alert-receivers") not in names
    flags = ["--set", "alerting.webhookSecret=am", "--set", "alerting.secretNamespaces={demo}"]
    found = objects(*flags, "--set", "alerting.allowPrivateNetworks={10.0.0.0/8}")
    role = next(obj for obj in found if obj["metadata"]["name"] == "foretide-alert-receivers")
    assert role["metadata"]["namespace"] == "demo"
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    service = next(obj for obj in found if obj["metadata"]["name"] == "foretide-alerts")
    assert service["spec"]["selector"]["foretide.dev/leader"] == "true"
    config = next(obj for obj in found if obj["kind"] == "ConfigMap" and "operator.yaml" in obj["data"])
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    settings = load_settings(file).alerting
    assert settings.webhook_secret == "am"
    assert [str(one) for one in settings.allow_private_networks] == ["10.0.0.0/8"]


def test_the_operator_reads_numbers_and_names_of_a_values_file_as_they_were_meant(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "quality: {leastAnswers: 1000000}\n"
        'operator: {monitoringNamespace: "123"}\n'
        "forecasting: {refreshSeconds: 1200000}\n"
    )
    config = next(one for one in objects("-f", str(values)) if "operator.yaml" in one.get("data", {}))
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    settings = load_settings(file)
    assert settings.quality.least_answers == 1_000_000
    assert settings.monitoring_namespace == "123"
    assert settings.forecasting.refresh_s == 1_200_000


def test_readers_may_read_what_is_ours_and_ask_the_leader_and_nothing_else() -> None:
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects()}
    role, own = found["ClusterRole", "foretide-reader"], found["Role", "foretide-reader"]
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    (ours,) = (rule["resources"] for rule in role["rules"] if rule["apiGroups"] == [GROUP])
    assert set(ours) == {kind.plural for kind in KINDS}
    assert "secrets" not in {name for rule in (*role["rules"], *own["rules"]) for name in rule["resources"]}
    service = found["Service", "foretide-operator"]
    (port,) = service["spec"]["ports"]
    assert f"{service['metadata']['name']}:{port['name']}" == decisions.LEADER
    assert own["rules"] == [
        {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": [decisions.LEADER], "verbs": ["get"]}
    ]
    pod = dict(pods(objects()))["foretide-operator"]
    assert port["targetPort"] in {one["name"] for one in pod["containers"][0]["ports"]}
    assert ("ClusterRoleBinding", "foretide-reader") not in found


def test_those_who_are_named_are_readers() -> None:
    people = [
        {"kind": "Group", "name": "ml-team"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"},
    ]
    found = objects("--set-json", f"readers={json.dumps(people)}")
    bindings = [one for one in found if one["metadata"]["name"] == "foretide-reader" and "subjects" in one]
    assert {one["kind"] for one in bindings} == {"ClusterRoleBinding", "RoleBinding"}
    for one in bindings:
        assert one["subjects"] == [
            {"kind": "Group", "name": "ml-team", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"},
        ]


def test_gateways_hear_each_other_on_every_process_and_nobody_else_is_heard() -> None:
    found = objects("--set", "gateway.processes=4", "--set", "gateway.endpointPicker.enabled=true")
    (policy,) = (
        one for one in found if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "foretide-gateway"
    )
    admin, peers = (rule for rule in policy["spec"]["ingress"] if "from" in rule)
    assert peers["ports"] == [{"port": 8082, "endPort": 8085, "protocol": "UDP"}]
    assert peers["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    (clients,) = (rule for rule in policy["spec"]["ingress"] if "from" not in rule)
    assert [one["port"] for one in clients["ports"]] == ["http", "picker"]
    assert [one["port"] for one in admin["ports"]] == ["admin"]
    assert admin["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "foretide-operator"}}}]
    (service,) = (one for one in found if one["metadata"]["name"] == "foretide-gateway-peers")
    assert service["spec"]["publishNotReadyAddresses"] is True
    settings = gateway_settings.parse(dict(pods(found))["foretide-gateway"]["containers"][0]["args"])
    assert (settings.processes, settings.peer_port) == (4, service["spec"]["ports"][0]["port"])


def test_a_prometheus_reaches_the_gateways_admin_port_where_its_namespace_is_named() -> None:
    found = objects("--set", "operator.monitoringNamespace=watch")
    (policy,) = (
        one for one in found if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "foretide-gateway"
    )
    (admin,) = (rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == "admin")
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}} in admin["from"]


def operators_policy(*flags: str) -> list[Object]:
    """What the operator's NetworkPolicy lets in."""
    found = objects("--set", "operator.networkPolicy.enabled=true", *flags)
    (policy,) = (
        one for one in found if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "foretide-operator"
    )
    pod = dict(pods(found))["foretide-operator"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "foretide-operator"}}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    rules: list[Object] = policy["spec"]["ingress"] or []
    assert {one["port"] for rule in rules for one in rule["ports"]} <= {
        one["name"] for one in pod["containers"][0]["ports"]
    }
    return rules


def test_the_operator_is_reached_by_all_unless_its_policy_is_asked_for() -> None:
    names = {one["metadata"]["name"] for one in objects() if one["kind"] == "NetworkPolicy"}
    assert names == {"foretide-gateway"}, "the API server's own addresses, by which `explain` comes, are not known here"


def test_the_operators_admin_port_lets_in_those_who_are_named_and_a_rule_without_peers_is_none() -> None:
    dashboard = {"ports": [{"port": "dashboard", "protocol": "TCP"}]}
    assert operators_policy() == [dashboard]
    assert operators_policy("--set", "dashboard.enabled=false") == []
    named = ["--set", "operator.monitoringNamespace=watch"]
    named += ["--set-json", 'operator.networkPolicy.from=[{"ipBlock": {"cidr": "10.0.0.1/32"}}]']
    others, admin = operators_policy(*named)
    assert others == dashboard
    assert admin["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert admin["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}},
        {"ipBlock": {"cidr": "10.0.0.1/32"}},
    ]
    done = template("--set-json", 'operator.networkPolicy={"enabled": true, "from": [{}]}')
    assert "/operator/networkPolicy/from/0" in done.stderr, "a peer that says nothing"


def test_the_priority_classes_of_every_pod_are_in_a_quota_without_which_some_clusters_refuse_them() -> None:
    found = objects("--set", "gpuPools.enabled=true")
    (quota,) = (one for one in found if one["kind"] == "ResourceQuota")
    (scope,) = quota["spec"]["scopeSelector"]["matchExpressions"]
    used = {spec["priorityClassName"] for _, spec in pods(found) if "priorityClassName" in spec}
    assert used == set(scope["values"])


def test_the_priority_class_of_each_workload_is_a_value_and_may_be_none() -> None:
    workloads = ("operator", "gateway", "modelCache", "gpuPools", "gpuPools.agent")
    for name, expected in (("ours", {"ours"}), ("", {None})):
        flags = [f"{workload}.priorityClassName={name}" for workload in workloads]
        found = dict(pods(objects("--set", ",".join(["gpuPools.enabled=true", *flags]))))
        assert len(found) == len(workloads)
        assert {pod.get("priorityClassName") for pod in found.values()} == expected


@pytest.mark.parametrize(("value", "expected"), [("0", None), ("1250000000", 1.25e9)])
def test_a_gateways_own_bandwidth_is_limited_where_the_value_says_so(value: str, expected: float | None) -> None:
    found = objects("--set", f"gateway.bytesPerSecond={value}")
    settings = gateway_settings.parse(dict(pods(found))["foretide-gateway"]["containers"][0]["args"])
    assert settings.bytes_per_second == expected


@pytest.mark.parametrize(
    ("limits", "processes", "mebibytes"),
    [
        ('{"memory": "512Mi"}', 1, (128, 64)),
        ('{"memory": "4Gi"}', 8, (128, 64)),
        ('{"memory": 1073741824}', 2, (128, 64)),
        ('{"memory": "64Mi"}', 4, (8, 2)),
        ('{"memory": "1Gi"}', 4, (64, 32)),
        ('{"memory": "1.5Gi"}', 4, (96, 48)),
        ('{"memory": "512M"}', 1, (512e6 / MIB / 4, 512e6 / MIB / 8)),
        ('{"memory": "1e9"}', 1, (1e9 / MIB / 4, 1e9 / MIB / 8)),
        ('{"memory": "1E9"}', 1, (1e9 / MIB / 4, 1e9 / MIB / 8)),
        ('{"memory": "1e+9"}', 1, (1e9 / MIB / 4, 1e9 / MIB / 8)),
        ('{"memory": "536870912000m"}', 1, (128, 64)),
        ('{"memory": "0.001P"}', 1, (1e12 / MIB / 4, 1e12 / MIB / 8)),
        ('{"memory": "1E"}', 64, (1e18 / 64 / MIB / 4, 1e18 / 64 / MIB / 8)),
        ('{"memory": "1Pi"}', 64, (1 << 22, 1 << 21)),
        ('{"memory": "1Ei"}', 64, (1 << 32, 1 << 31)),
        ("null", 1, (512, 256)),
    ],
)
def test_bodies_and_journals_of_all_processes_leave_most_of_a_gateways_memory_free(
    limits: str, processes: int, mebibytes: tuple[float, float]
) -> None:
    flags = ["--set-json", f"gateway.resources.limits={limits}", "--set", f"gateway.processes={processes}"]
    settings = gateway_settings.parse(dict(pods(objects(*flags)))["foretide-gateway"]["containers"][0]["args"])
    assert (settings.limits.buffered_bytes / MIB, settings.streams.journal_bytes / MIB) == pytest.approx(mebibytes)


@pytest.mark.parametrize("memory", ["1GB", "512mi", "much", "1 Gi", "1e", "1.2.3", "Mi"])
def test_a_memory_limit_that_is_no_quantity_is_refused(memory: str) -> None:
    done = template("--set-json", f"gateway.resources.limits={json.dumps({'memory': memory})}")
    assert done.returncode != 0
    assert f'"{memory}" is no quantity of memory, such as 512Mi or 2G' in done.stderr
