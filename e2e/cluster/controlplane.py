"""etcd and the API server, and on request the controller manager and the scheduler, as processes of this host.

On the loopback address with free ports it is the fast tier for integration tests: any number side by side, each in a
folder of its own, ended with the process that started them. On a node network's address it is the control plane of the
whole cluster. It never starts a kubelet; see `node` for that.
"""

import json
import shutil
import signal
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster import kubeconfig, tools
from e2e.cluster.pki import Authority, Pair
from e2e.cluster.process import Process
from e2e.cluster.progress import Progress
from e2e.cluster.shell import wait_until
from e2e.ports import free_ports

LOOPBACK = "127.0.0.1"
READY_S = 60.0
SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class Settings:
    """What makes the control plane of a cluster different from the one that a test starts."""

    address: str = LOOPBACK
    service_cidr: str = "10.0.0.0/24"
    service_vip: str = "10.0.0.1"
    pod_cidr: str | None = None
    # Without it nothing collects garbage, makes pods of Deployments, or ends a Namespace.
    controller_manager: bool = False
    scheduler: bool = False
    # Without it Nodes that no kubelet stands for stay as they were made: nobody misses their heartbeats.
    node_lifecycle: bool = True
    # End with the process that started it, as a test must, or go on, as a cluster must.
    leash: bool = True
    # Write down who of `audited` asked for what, in audit.log: a namespace whose service accounts these are.
    audited: str | None = None


@dataclass(frozen=True)
class Ports:
    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int


class ControlPlane:
    """A context manager; `start` and `stop` may also be called by hand, each any number of times."""

    def __init__(
        self, directory: Path | None = None, settings: Settings | None = None, progress: Progress | None = None
    ) -> None:
        self._owns_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="foretide-control-plane-"))
        self.settings = settings or Settings()
        self.pki = Authority(self.directory / "pki")
        self._progress = progress
        self._ports: Ports | None = None
        self._etcd = self._process("etcd")
        self._apiserver = self._process("kube-apiserver")
        self._controller_manager = self._process("kube-controller-manager")
        self._scheduler = self._process("kube-scheduler")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / "kubeconfig"

    @property
    def url(self) -> str:
        return f"https://{self.settings.address}:{self.ports.apiserver}"

    @property
    def ports(self) -> Ports:
        """Chosen once and kept in a file, so that a later process finds a running cluster's again."""
        if self._ports is None:
            self._ports = _kept_ports(self.directory / "ports")
        return self._ports

    def start(self) -> None:
        binaries = tools.kubernetes(self._progress)
        self._etcd.start([binaries / "etcd", *self._etcd_flags()])
        self.start_apiserver()
        self._write_kubeconfig("kubeconfig", self.pki.client("admin", "foretide-admin", "system:masters"))
        self._start_loops(binaries)

    def stop(self) -> None:
        """End it in order. A folder that was given is kept, with all that etcd was told; one of its own is not."""
        if self._owns_directory:
            self.remove()
        else:
            self._end(signal.SIGTERM)

    def remove(self) -> None:
        """End it at once, and forget what etcd was told."""
        self._end(signal.SIGKILL)
        self._ports = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_apiserver(self) -> None:
        """Returns when it is ready."""
        self._apiserver.start([tools.kubernetes(self._progress) / "kube-apiserver", *self._apiserver_flags()])
        wait_until(self._apiserver_ready, f"the API server at {self.url}", READY_S)

    def stop_apiserver(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it in order, or as a crash would with SIGKILL. etcd keeps what it was told."""
        self._apiserver.stop(how)

    def restart_apiserver(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.stop_apiserver(how)
        self.start_apiserver()

    @contextmanager
    def apiserver_away(self, how: signal.Signals = signal.SIGTERM) -> Iterator[None]:
        """The API server is gone inside this block, and ready again after it."""
        self.stop_apiserver(how)
        try:
            yield
        finally:
            self.start_apiserver()

    def pids(self) -> dict[str, int | None]:
        processes = [self._etcd, self._apiserver]
        processes += [self._controller_manager] if self.settings.controller_manager else []
        processes += [self._scheduler] if self.settings.scheduler else []
        return {process.name: process.pid() for process in processes}

    def client_kubeconfig(self, user: str, organization: str | None = None) -> Path:
        """A kubeconfig for another identity, for instance to test what a role may do. No role is bound to it here."""
        file = f"user-{user.replace(':', '-')}"
        return self._write_kubeconfig(f"{file}.kubeconfig", self.pki.client(file, user, organization))

    def _end(self, how: signal.Signals) -> None:
        # What dials the API server ends before it, or its last seconds are spent on errors about that.
        for process in (self._scheduler, self._controller_manager, self._apiserver, self._etcd):
            process.stop(how)

    def _process(self, name: str) -> Process:
        return Process(name, self.directory, leash=self.settings.leash)

    def _write_kubeconfig(self, file: str, identity: Pair) -> Path:
        return kubeconfig.write(self.directory / file, "foretide", self.url, self.pki.certificate, identity)

    def _start_loops(self, binaries: Path) -> None:
        if self.settings.controller_manager:
            identity = self.pki.client("controller-manager", "system:kube-controller-manager")
            config = self._write_kubeconfig("controller-manager.kubeconfig", identity)
            self._controller_manager.start(
                [binaries / "kube-controller-manager", *self._controller_manager_flags(config)]
            )
        if self.settings.scheduler:
            config = self._write_kubeconfig(
                "scheduler.kubeconfig", self.pki.client("scheduler", "system:kube-scheduler")
            )
            self._scheduler.start([binaries / "kube-scheduler", *self._loop_flags(config, self.ports.scheduler)])

    def _apiserver_ready(self) -> bool:
        self._etcd.check()
        self._apiserver.check()
        try:
            context = ssl.create_default_context(cafile=str(self.pki.certificate))
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def _etcd_flags(self) -> list[str]:
        client, peer = (f"http://{LOOPBACK}:{port}" for port in (self.ports.etcd, self.ports.etcd_peer))
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # A test cluster that loses its power is made again; it need not survive that.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _apiserver_flags(self) -> list[str]:
        settings, pki = self.settings, self.pki
        serving = pki.server("apiserver", "kube-apiserver", self._apiserver_names())
        kubelet_client = pki.client("apiserver-kubelet", "kube-apiserver-kubelet", "system:masters")
        accounts = pki.service_accounts()
        flags = [
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            f"--bind-address={settings.address}",
            f"--advertise-address={settings.address}",
            f"--secure-port={self.ports.apiserver}",
            f"--service-cluster-ip-range={settings.service_cidr}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={pki.certificate}",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--kubelet-client-certificate={kubelet_client.certificate}",
            f"--kubelet-client-key={kubelet_client.key}",
            f"--kubelet-certificate-authority={pki.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # Else open watches hold an orderly end up for a minute.
            "--shutdown-watch-termination-grace-period=1s",
            f"--cert-dir={self.directory / 'pki'}",
        ]
        if settings.audited is not None:
            flags += self._audit_flags(settings.audited)
        if not settings.controller_manager:
            # Nobody makes the default service accounts that this plugin demands of every pod.
            flags.append("--disable-admission-plugins=ServiceAccount")
        if settings.address == LOOPBACK:
            # An Endpoints object may not hold a loopback address.
            flags.append("--endpoint-reconciler-type=none")
        return flags

    def _audit_flags(self, namespace: str) -> list[str]:
        """Names of things only, in batches, so that it costs little; 200 MB at most."""
        ours = {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{namespace}"]}
        policy = {
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [ours, {"level": "None"}],
        }  # fmt: skip
        path = self.directory / "audit-policy.json"
        path.write_text(json.dumps(policy))
        return [
            f"--audit-policy-file={path}",
            f"--audit-log-path={self.directory / 'audit.log'}",
            "--audit-log-mode=batch",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=1",
        ]

    def _apiserver_names(self) -> list[str]:
        addresses = dict.fromkeys((self.settings.address, LOOPBACK, self.settings.service_vip))
        return [*addresses, "localhost", *SERVICE_NAMES]

    def _controller_manager_flags(self, config: Path) -> list[str]:
        own = self.pki.own()
        flags = [
            *self._loop_flags(config, self.ports.controller_manager),
            f"--root-ca-file={self.pki.certificate}",
            f"--service-account-private-key-file={self.pki.service_accounts().key}",
            f"--cluster-signing-cert-file={own.certificate}",
            f"--cluster-signing-key-file={own.key}",
            "--use-service-account-credentials=true",
            # A node that is cut off should be noticed within a test's patience.
            "--node-monitor-grace-period=20s",
        ]
        if not self.settings.node_lifecycle:
            flags.append("--controllers=*,-node-lifecycle-controller")
        if self.settings.pod_cidr is not None:
            flags += [f"--cluster-cidr={self.settings.pod_cidr}", "--allocate-node-cidrs=false"]
        return flags

    def _loop_flags(self, config: Path, port: int) -> list[str]:
        delegated = [f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}"]
        listen = [f"--bind-address={LOOPBACK}", f"--secure-port={port}", f"--cert-dir={self.directory / 'pki'}"]
        return [f"--kubeconfig={config}", *delegated, *listen, "--leader-elect=false"]


def _kept_ports(file: Path) -> Ports:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(" ".join(map(str, free_ports(5))))
    etcd, etcd_peer, apiserver, controller_manager, scheduler = map(int, file.read_text().split())
    return Ports(etcd, etcd_peer, apiserver, controller_manager, scheduler)
