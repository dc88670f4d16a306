"""Certificates of one cluster: an authority and what it signs, through the openssl program, kept as files.

A file that exists is kept, so a second start has the same identities. Nothing here is meant to protect a cluster that
anybody else can reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.shell import program, run

DAYS = 3650


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    directory: Path

    @property
    def certificate(self) -> Path:
        return self.own().certificate

    def own(self) -> Pair:
        return self._make("ca", "/CN=foretide-test", ["-addext", "keyUsage=critical,keyCertSign,cRLSign"])

    def client(self, name: str, common_name: str, organization: str | None = None) -> Pair:
        return self._sign(name, common_name, organization, ["-addext", "extendedKeyUsage=clientAuth"])

    def server(self, name: str, common_name: str, hosts: Sequence[str], organization: str | None = None) -> Pair:
        """A serving certificate for `hosts`, names or addresses; it is good as a client's, too."""
        names = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        usage = ["-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", f"subjectAltName={names}"]
        return self._sign(name, common_name, organization, usage)

    def service_accounts(self) -> Pair:
        """What signs the tokens of service accounts, and what they are checked with."""
        return self._make("service-account", "/CN=service-account", [])

    def _sign(self, name: str, common_name: str, organization: str | None, extensions: list[str]) -> Pair:
        authority = self.own()
        subject = f"/O={organization}/CN={common_name}" if organization else f"/CN={common_name}"
        by = ["-CA", str(authority.certificate), "-CAkey", str(authority.key)]
        return self._make(name, subject, [*by, *extensions, "-addext", "basicConstraints=CA:FALSE"])

    def _make(self, name: str, subject: str, arguments: list[str]) -> Pair:
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        if pair.certificate.exists() and pair.key.exists():
            return pair
        self.directory.mkdir(parents=True, exist_ok=True)
        new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", str(DAYS)]
        files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
        run([program("openssl"), *new, "-subj", subject, *arguments, *files])
        pair.key.chmod(0o600)
        return pair


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit()
