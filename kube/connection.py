"""Where the API server is and how to prove who we are: kubeconfig, or the service account of a pod.

Reads files and, for a kubeconfig, runs what its `exec` section names (through the `kubernetes` package, imported only
then). Opens no connection.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kube.errors import LoginFailed

SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_REREAD_S: Final = 30.0
"""The kubelet replaces a projected token long before it ends; reading this often never meets an old one."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One API server. Immutable and free of sockets: threads and event loops may share it."""

    server: str
    """`https://host:port`, also with the path of a proxy (`/k8s/clusters/c-1`); no slash at the end."""
    tls: ssl.SSLContext | None
    """None for plain http only."""
    token: Callable[[], str | None]
    """The bearer token of now; None where a client certificate does it."""
    namespace: str = "default"
    """Of the pod or of the kubeconfig's context."""

    @classmethod
    def from_environment(
        cls, kubeconfig: Path | None = None, context: str | None = None, *, environ: Mapping[str, str] = os.environ
    ) -> Connection:
        """The kubeconfig given, else the one in KUBECONFIG, else the pod's service account, else ~/.kube/config.

        Raises LoginFailed.
        """
        if kubeconfig is not None or environ.get("KUBECONFIG"):
            return _from_kubeconfig(str(kubeconfig or environ["KUBECONFIG"]), context)
        if environ.get("KUBERNETES_SERVICE_HOST"):
            return _from_service_account(environ, SERVICE_ACCOUNT_DIR)
        home = Path("~/.kube/config").expanduser()
        if home.is_file():
            return _from_kubeconfig(str(home), context)
        raise LoginFailed(
            "No API server is configured: KUBECONFIG is not set, this is not a pod, and ~/.kube/config does not exist."
            " Set KUBECONFIG or give --kubeconfig."
        )

    def headers(self) -> dict[str, str]:
        """What every request carries to say who asks."""
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}


class TokenFile:
    """A token that is read again when it may have been replaced. A failed read keeps the token of before."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._token = self._read()
        self._read_at_s = clock()

    def __call__(self) -> str:
        now_s = self._clock()
        if now_s - self._read_at_s >= TOKEN_REREAD_S:
            self._read_at_s = now_s
            try:
                self._token = self._read()
            except LoginFailed:
                # The volume is being swapped; the old token is good for a while and the next read is soon.
                return self._token
        return self._token

    def _read(self) -> str:
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoginFailed(f"The service account's token '{self._path}' cannot be read: {error}.") from error
        if not token:
            raise LoginFailed(f"The service account's token '{self._path}' is empty.")
        return token


def _from_service_account(environ: Mapping[str, str], folder: Path) -> Connection:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = TokenFile(folder / "token")
    try:
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
    except (OSError, ssl.SSLError) as error:
        raise LoginFailed(f"The service account in '{folder}' cannot be read: {error}.") from error
    return Connection(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls, token, namespace or "default")


def _from_kubeconfig(path: str, context: str | None) -> Connection:
    import yaml
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    settings = client.Configuration()
    # The package checks little of what it reads: a list where a map should be is a TypeError.
    shapes = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
    try:
        config.load_kube_config(config_file=path, context=context, client_configuration=settings)  # type: ignore[no-untyped-call]
        server, tls = _server_of(settings), _tls_of(settings)
        contexts = config.list_kube_config_contexts(config_file=path)  # type: ignore[no-untyped-call]
    except (ConfigException, yaml.YAMLError, OSError, *shapes) as error:
        said = " ".join(str(error).split())[:500].rstrip(".")
        raise LoginFailed(f"Kubeconfig '{path}' cannot be used: {said}.") from error
    return Connection(server, tls, _token_of(settings), _namespace_of(contexts, context))


def _server_of(settings: Any) -> str:
    server = str(settings.host).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ValueError(f"its server is '{server}', which is no URL")
    return server


def _tls_of(settings: Any) -> ssl.SSLContext | None:
    if not str(settings.host).startswith("https:"):
        return None
    tls = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
    if not settings.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        tls.load_cert_chain(settings.cert_file, settings.key_file)
    return tls


def _token_of(settings: Any) -> Callable[[], str | None]:
    def token() -> str | None:
        # The package renews what an exec plugin gave when this is asked for.
        header = settings.get_api_key_with_prefix("BearerToken", alias="authorization")  # The alias: before release 37.
        return None if header is None else str(header).removeprefix("Bearer ").strip()

    return token


def _namespace_of(contexts: tuple[Any, Any], wanted: str | None) -> str:
    every, current = contexts
    chosen = next((one for one in every if one["name"] == wanted), current) if wanted else current
    return str(chosen.get("context", {}).get("namespace") or "default")
