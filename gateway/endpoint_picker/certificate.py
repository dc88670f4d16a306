"""The certificate that the endpoint picker shows: that which its files have now, for whoever renews it replaces them.

gRPC asks at each handshake, in a thread of its own; open connections keep what they have. A renewed pair that cannot be
used is told once, and the one before goes on.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from gateway.errors import SettingsError

log = logging.getLogger(__name__)

_Pair = tuple[bytes, bytes]
"""Key and certificate chain, as gRPC takes them."""


@dataclass(frozen=True, slots=True)
class _Stand:
    """By which a replaced file is known; a Secret's files are links, and what they lead to is another file then."""

    certificate: tuple[int, int, int]
    key: tuple[int, int, int]


class Certificate:
    """Two PEM files. Raises SettingsError where they cannot be used at the start."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._stand = self._look()
        try:
            self._first = self._read()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(self._says(error)) from error

    def credentials(self) -> grpc.ServerCredentials:
        # gRPC takes None as no change; its stubs do not know.
        return grpc.dynamic_ssl_server_credentials(_configuration(self._first), self._renewed)  # type: ignore[arg-type]

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to show from now on; None where it is what it was."""
        stand = self._look()
        if stand == self._stand:
            return None
        try:
            pair = self._read()
        except (OSError, ssl.SSLError) as error:
            self._stand = stand
            log.warning("%s The one before is still shown.", self._says(error))
            return None
        if self._look() != stand:
            return None  # It is being replaced right now: perhaps a key of one and a certificate of the other.
        self._stand = stand
        log.info("The endpoint picker shows the new certificate of '%s'.", self._certificate)
        return _configuration(pair)

    def _read(self) -> _Pair:
        # A key with a password would be asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key, password=lambda: "")
        return self._key.read_bytes(), self._certificate.read_bytes()

    def _look(self) -> _Stand | None:
        try:
            return _Stand(_stand(self._certificate), _stand(self._key))
        except OSError:
            return None

    def _says(self, error: OSError | ssl.SSLError) -> str:
        if isinstance(error, ssl.SSLError):
            files = f"'{self._certificate}' and '{self._key}'"
            return f"The endpoint picker's certificate {files} cannot be used: {error.reason or error}."
        missing = next((one for one in (self._certificate, self._key) if not one.exists()), self._certificate)
        return f"The endpoint picker's certificate cannot be read: {error.strerror} '{error.filename or missing}'."


def _stand(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _configuration(pair: _Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([pair])
