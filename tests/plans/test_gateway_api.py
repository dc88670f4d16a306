from controllers.plans.children import Surroundings, surrounding_children
from controllers.plans.gateway_api import KINDS, Parent, Routes
from crds.contract import LABEL_SERVICE
from tests.gen import snapshot

EDGE = Routes((Parent("edge", "ingress"),), "foretide-endpoint-picker.foretide-system.svc.cluster.local")
AROUND = Surroundings("foretide-system", routes=EDGE)


def made(around: Surroundings, kinds: frozenset[str] = KINDS) -> dict[tuple[str, str], dict]:  # type: ignore[type-arg]
    children = surrounding_children(snapshot(optional_kinds=kinds), around)
    return {(child["kind"], child["metadata"]["name"]): child for child in children}


def test_nothing_of_it_stands_without_a_gateway_to_attach_to() -> None:
    assert not any(kind in KINDS for kind, _ in made(Surroundings("foretide-system")))


def test_nothing_of_it_stands_while_one_of_the_kinds_is_unknown_to_the_cluster() -> None:
    for missing in KINDS:
        children = made(AROUND, KINDS - {missing})
        assert not any(kind in KINDS for kind, _ in children)
        assert ("Service", "chat-worker-picker") not in children


def test_the_pool_selects_the_workers_and_fails_closed_without_our_picker() -> None:
    children = made(AROUND)
    pool = children["InferencePool", "chat-worker"]["spec"]
    assert pool["selector"]["matchLabels"][LABEL_SERVICE] == "chat"
    assert pool["targetPorts"] == [{"number": 8000}]
    picker = pool["endpointPickerRef"]
    assert picker["failureMode"] == "FailClose"
    service = children["Service", picker["name"]]["spec"]
    assert service["type"] == "ExternalName"
    assert service["externalName"] == EDGE.picker_host
    assert service["ports"][0]["port"] == picker["port"]["number"]


def test_a_route_leads_to_the_pool_by_path_and_by_the_model_header() -> None:
    route = made(AROUND)["HTTPRoute", "chat-worker"]["spec"]
    assert route["parentRefs"][0]["name"] == "edge"
    assert route["parentRefs"][0]["namespace"] == "ingress"
    by_path, by_header = route["rules"]
    assert by_path["matches"][0]["path"]["value"] == "/demo/chat/v1"
    assert by_path["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] == "/v1"
    assert by_header["matches"][0]["headers"] == [{"type": "Exact", "name": "X-Gateway-Model-Name", "value": "chat"}]
    assert all(rule["backendRefs"][0]["kind"] == "InferencePool" for rule in route["rules"])


def test_the_proxies_of_the_named_gateways_may_reach_the_workers_and_no_other_namespace_more() -> None:
    from_pods = made(AROUND)["NetworkPolicy", "chat-worker"]["spec"]["ingress"][0]["from"]
    namespaces = [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in from_pods]
    assert namespaces == ["foretide-system", "ingress"]
