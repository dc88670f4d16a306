import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from e2e.cluster.pki import Authority
from kube import resources
from kube.client import Client
from kube.connection import Connection, TokenFile
from kube.errors import LoginFailed, Unreachable
from kube.lease import LeaseCalls
from kube.resources import DEPLOYMENTS, LEASES, PODS, TENANTS, resource_of


def test_paths_follow_group_scope_and_subresource() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("demo", "a") == "/api/v1/namespaces/demo/pods/a"
    assert DEPLOYMENTS.path("demo", "a", "status") == "/apis/apps/v1/namespaces/demo/deployments/a/status"
    assert TENANTS.path(None, "acme") == "/apis/foretide.dev/v1alpha1/tenants/acme"


def test_an_object_of_a_namespaced_kind_without_a_namespace_is_refused() -> None:
    with pytest.raises(ValueError, match="Pod 'a' needs a namespace"):
        PODS.path(None, "a")


def test_every_resource_is_found_by_what_its_objects_carry() -> None:
    for one in resources.ALL:
        assert resource_of({"apiVersion": one.api_version, "kind": one.kind}) is one
    with pytest.raises(KeyError, match="v1 Nothing is not listed"):
        resource_of({"apiVersion": "v1", "kind": "Nothing"})


def test_a_token_is_read_again_after_a_while_and_kept_when_the_file_is_away(tmp_path: Path) -> None:
    now_s = 0.0
    file = tmp_path / "token"
    file.write_text("one\n")
    token = TokenFile(file, clock=lambda: now_s)
    file.write_text("two\n")
    assert token() == "one"
    now_s = 31.0
    assert token() == "two"
    file.unlink()
    now_s = 62.0
    assert token() == "two"


def test_without_any_configuration_the_message_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LoginFailed, match="Set KUBECONFIG or give --kubeconfig"):
        Connection.from_environment(environ={})


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoginFailed, match="nowhere"):
        Connection.from_environment(tmp_path / "nowhere", environ={})


def kubeconfig(
    path: Path, user: str, server: str = "https://10.0.0.1:6443", current: str = "x", more: str = ""
) -> Path:
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: {server}{more}}}}}]
users: [{{name: u, user: {user}}}]
contexts:
- {{name: x, context: {{cluster: c, user: u, namespace: demo}}}}
- {{name: y, context: {{cluster: c, user: u, namespace: other}}}}
current-context: {current}
"""
    )
    return path


def test_the_token_of_a_kubeconfig_is_sent(tmp_path: Path) -> None:
    connection = Connection.from_environment(kubeconfig(tmp_path / "config", "{token: secret}"), environ={})
    assert connection.headers() == {"Authorization": "Bearer secret"}
    assert (connection.server, connection.namespace) == ("https://10.0.0.1:6443", "demo")


def test_the_token_that_a_plugin_of_a_kubeconfig_prints_is_sent(tmp_path: Path) -> None:
    plugin = tmp_path / "login"
    plugin.write_text(
        """#!/bin/sh
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"fresh"}}'
"""
    )
    plugin.chmod(0o755)
    asks = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never"
    config = kubeconfig(tmp_path / "config", f"{{exec: {{{asks}, command: {plugin}}}}}")
    assert Connection.from_environment(config, environ={}).headers() == {"Authorization": "Bearer fresh"}


def test_a_plugin_that_gives_nothing_is_named_instead_of_asking_as_nobody(tmp_path: Path) -> None:
    asks = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never"
    config = kubeconfig(tmp_path / "config", f"{{exec: {{{asks}, command: /nowhere/login}}}}")
    with pytest.raises(LoginFailed, match="its login plugin '/nowhere/login' gave neither a token nor a certificate"):
        Connection.from_environment(config, environ={})


def test_the_token_file_of_a_kubeconfig_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    connection = Connection.from_environment(kubeconfig(tmp_path / "config", "{tokenFile: token}"), environ={})
    assert connection.headers() == {"Authorization": "Bearer one"}
    assert isinstance(connection.token, TokenFile)
    (tmp_path / "token").unlink()
    with pytest.raises(LoginFailed, match="token"):
        Connection.from_environment(kubeconfig(tmp_path / "config", "{tokenFile: token}"), environ={})


@pytest.mark.parametrize("current", ["x", "''", "gone"])
def test_a_chosen_context_needs_no_current_one(tmp_path: Path, current: str) -> None:
    config = kubeconfig(tmp_path / "config", "{token: t}", current=current)
    assert Connection.from_environment(config, "y", environ={}).namespace == "other"


def test_a_proxy_is_refused(tmp_path: Path) -> None:
    config = kubeconfig(tmp_path / "config", "{token: t}", more=", proxy-url: 'http://proxy:3128'")
    with pytest.raises(LoginFailed, match="its cluster has a proxy-url, and proxies are not supported"):
        Connection.from_environment(config, environ={})


@pytest.mark.parametrize(("named", "reached"), [(", tls-server-name: api.example", True), ("", False)])
async def test_the_name_that_a_servers_certificate_has_may_be_given(tmp_path: Path, named: str, reached: bool) -> None:
    authority = Authority(tmp_path)
    pair = authority.server("api", "api.example", ["api.example"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)
    app = web.Application()
    app.router.add_get("/{tail:.*}", _lease)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=tls)
    more = f", certificate-authority: {authority.certificate}{named}"
    config = kubeconfig(tmp_path / "config", "{token: t}", f"https://127.0.0.1:{server.port}", more=more)
    connection = Connection.from_environment(config, environ={})
    calls = LeaseCalls(connection, "demo", "lease", 5.0)
    try:
        async with Client(connection) as client:
            for asks in (client.get(LEASES, "demo", "lease"), asyncio.to_thread(calls.get)):
                if reached:
                    assert await asks
                else:
                    with pytest.raises(Unreachable, match="IP address mismatch"):
                        await asks
    finally:
        calls.close()
        await server.close()


async def _lease(_: web.Request) -> web.Response:
    return web.json_response({"metadata": {"resourceVersion": "1"}})


@pytest.mark.parametrize("text", ["a: [", "\ta: b", "", "[]", "hello", "clusters: 5", "[" * 5000])
def test_a_kubeconfig_that_is_none_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(LoginFailed, match=r"Kubeconfig '.+config' cannot be used: ") as failed:
        Connection.from_environment(tmp_path / "config", environ={})
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("server", ["5", "''", "ftp://10.0.0.1"])
def test_a_kubeconfig_whose_server_has_no_address_is_refused(tmp_path: Path, server: str) -> None:
    with pytest.raises(LoginFailed, match="cannot be used: "):
        Connection.from_environment(kubeconfig(tmp_path / "config", "{token: t}", server), environ={})


def test_a_service_account_that_cannot_be_read_is_named() -> None:
    with pytest.raises(LoginFailed, match="token"):
        Connection.from_environment(environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
