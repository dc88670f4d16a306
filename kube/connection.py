"""Where the API server is and how to prove who we are: kubeconfig, or the service account of a pod.

Reads files and, for a kubeconfig, runs what its `exec` section names (through the `kubernetes` package, imported only
then). Opens no connection. What a kubeconfig asks for and is not done is refused, never left out.
"""

from __future__ import annotations

import os
import socket
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
            raise LoginFailed(f"The token '{self._path}' cannot be read: {error}.") from error
        if not token:
            raise LoginFailed(f"The token '{self._path}' is empty.")
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


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What the `kubernetes` package reads of a kubeconfig without doing what it says, or says nothing of."""

    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    folder: Path
    """That paths of the user are relative to."""
    namespace: str


def _from_kubeconfig(path: str, context: str | None) -> Connection:
    import yaml
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    settings = client.Configuration()
    # The package checks little of what it reads: a list where a map should be is a TypeError.
    shapes = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
    try:
        config.load_kube_config(config_file=path, context=context, client_configuration=settings)  # type: ignore[no-untyped-call]
        chosen = _chosen(path, context)
        return Connection(
            _server_of(settings), _tls_of(settings, chosen), _token_of(settings, chosen), chosen.namespace
        )
    except (ConfigException, yaml.YAMLError, OSError, *shapes) as error:
        said = " ".join(str(error).split())[:500].rstrip(".")
        raise LoginFailed(f"Kubeconfig '{path}' cannot be used: {said}.") from error


def _chosen(path: str, context: str | None) -> _Chosen:
    from kubernetes.config.kube_config import KubeConfigMerger

    config = KubeConfigMerger(path).config  # type: ignore[no-untyped-call]
    chosen = config["contexts"].get_with_name(context or config["current-context"])["context"]
    cluster = config["clusters"].get_with_name(chosen["cluster"])["cluster"]
    user = config["users"].get_with_name(chosen.safe_get("user"), safe=True)
    return _Chosen(
        cluster.value,
        (user.safe_get("user") if user else None) or {},
        Path(user.path if user else path).parent,
        str(chosen.safe_get("namespace") or "default"),
    )


def _server_of(settings: Any) -> str:
    server = str(settings.host).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ValueError(f"its server is '{server}', which is no URL")
    return server


class _Named(ssl.SSLContext):
    """Expects `name` in the server's certificate, at whatever address the server is."""

    name: str | None = None

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        name = self.name or server_hostname
        return super().wrap_socket(sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, name, session)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.name or server_hostname, session)


def _context(cafile: str | None, name: str | None) -> ssl.SSLContext:
    if not name:
        return ssl.create_default_context(cafile=cafile)
    tls = _Named(ssl.PROTOCOL_TLS_CLIENT)
    tls.name = name
    if cafile:
        tls.load_verify_locations(cafile)
    else:
        tls.load_default_certs()
    return tls


def _tls_of(settings: Any, chosen: _Chosen) -> ssl.SSLContext | None:
    if chosen.cluster.get("proxy-url"):
        raise ValueError("its cluster has a proxy-url, and proxies are not supported. Name a server that is reachable")
    if not str(settings.host).startswith("https:"):
        return None
    tls = _context(settings.ssl_ca_cert or None, chosen.cluster.get("tls-server-name"))
    if not settings.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        tls.load_cert_chain(settings.cert_file, settings.key_file)
    return tls


def _token_of(settings: Any, chosen: _Chosen) -> Callable[[], str | None]:
    if chosen.user.get("tokenFile"):
        return TokenFile(chosen.folder / chosen.user["tokenFile"])
    if chosen.user.get("exec") and not settings.api_key and not settings.cert_file:
        command = _plugin_of(chosen)
        raise ValueError(f"its login plugin '{command}' gave neither a token nor a certificate. Run it to see why")

    def token() -> str | None:
        # The package renews what an exec plugin gave when this is asked for.
        header = settings.get_api_key_with_prefix("BearerToken", alias="authorization")  # The alias: before release 37.
        return None if header is None else str(header).removeprefix("Bearer ").strip()

    return token


def _plugin_of(chosen: _Chosen) -> str:
    asked = chosen.user["exec"]
    return str(asked.get("command") if isinstance(asked, Mapping) else asked)
