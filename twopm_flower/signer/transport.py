"""How a signer is reached: a unix socket, or mutual TLS. One request a connection, all bounded."""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from twopm_flower.errors import ConfigError, SignerError, SignerUnavailable

MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024


class Transport(Protocol):
    """Carries one request to a signer and its answer back."""

    @property
    def where(self) -> str:
        """Where the signer is, for errors."""
        ...

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Send a JSON body and return HTTP status and body of the answer.

        Raises
        ------
        SignerUnavailable
            Nobody answers, not in time, or it is not a signer that does.
        SignerError
            The answer is too long.
        """
        ...


class UnixTransport:
    """A signer behind a unix socket of this machine.

    Parameters
    ----------
    path : Path
    timeout_s : float
        How long a request may take in all, in seconds.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self.path, self._timeout_s = path, timeout_s

    @property
    def where(self) -> str:
        """Where the signer is."""
        return f"unix://{self.path}"

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Send a request; see :class:`Transport`."""
        connection = _UnixConnection(self.path, timeout=self._timeout_s)
        return _post(connection, body, self.where, self._timeout_s)


class TlsTransport:
    """A signer behind mutual TLS.

    Parameters
    ----------
    host, port
        Where it listens; `host` has to be in its certificate.
    certificate, key : Path
        What this side shows; PEM.
    authority : Path
        Whose certificate the signer's has to be signed by; PEM.
    timeout_s : float
        How long a request may take in all, in seconds.

    Raises
    ------
    ConfigError
        A file cannot be read or does not fit.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        certificate: Path,
        key: Path,
        authority: Path,
        timeout_s: float,
    ) -> None:
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._context = tls_context(
            ssl.PROTOCOL_TLS_CLIENT, certificate=certificate, key=key, authority=authority
        )

    @property
    def where(self) -> str:
        """Where the signer is."""
        return f"https://{self._host}:{self._port}"

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Send a request; see :class:`Transport`."""
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=self._context
        )
        return _post(connection, body, self.where, self._timeout_s)


def tls_context(protocol: int, *, certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Return a context of TLS 1.3 in which both sides show a certificate of one authority.

    Raises
    ------
    ConfigError
        A file cannot be read or does not fit.
    """
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if key.stat().st_mode & 0o077:
            raise ConfigError(f"{key} can be read by others", hint=f"Run: chmod 600 {key}")
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
    except OSError as error:
        raise ConfigError(
            f"the TLS files {certificate}, {key} and {authority} cannot be used: "
            f"{error.strerror or error}",
            hint="Each is PEM; the key has to belong to the certificate.",
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def deadline(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Cut a connection that is still open after `seconds`, however busy it looks.

    A socket's own time-out bounds each read, and a peer that sends a byte now and then is never
    too late for one.
    """

    def cut() -> None:
        # The method of the plain socket: the TLS one is not made for another thread.
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _post(
    connection: http.client.HTTPConnection, body: bytes, where: str, timeout_s: float
) -> tuple[int, bytes]:
    try:
        connection.connect()
        with deadline(connection.sock, timeout_s):
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answered = response.read(MAX_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SignerUnavailable(
            f"the signer at {where} does not answer: {why}",
            hint="Start it with 'twopm signer serve', as the user that asks it, or allow that "
            "user with --allow-uid; with TLS compare both sides' certificates.",
        ) from error
    finally:
        connection.close()
    if len(answered) > MAX_ANSWER_BYTES:
        raise SignerError(f"the signer at {where} answers with more than {MAX_ANSWER_BYTES} bytes")
    return response.status, answered
