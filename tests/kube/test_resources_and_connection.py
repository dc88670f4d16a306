from pathlib import Path

import pytest

from kube import resources
from kube.connection import Connection, TokenFile
from kube.errors import LoginFailed
from kube.resources import DEPLOYMENTS, PODS, TENANTS, resource_of


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


def kubeconfig(path: Path, user: str, server: str = "https://10.0.0.1:6443") -> Path:
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: {server}}}}}]
users: [{{name: u, user: {user}}}]
contexts: [{{name: x, context: {{cluster: c, user: u, namespace: demo}}}}]
current-context: x
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
