"""The sockets of a signing service: who may connect, and how much of everything there may be.

One request a connection, so nothing can hide behind a request's end. A connection over a unix
socket shows by the kernel's word whose process it is, one over TLS by its certificate.
"""

import errno
import logging
import os
import socket
import socketserver
import ssl
import stat
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from twopm_flower.errors import ConfigError
from twopm_flower.records.printable import printable
from twopm_flower.signer.rpc import MAX_REQUEST_BYTES, Answer, answer
from twopm_flower.signer.service import SigningService
from twopm_flower.signer.transport import deadline, tls_context

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
REQUEST_TIMEOUT_S: Final = 10.0
_UP_PATHS: Final = ("/upcheck", "/healthcheck")


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    server_version = "twopm-signer"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path in _UP_PATHS:
            self._send(Answer(HTTPStatus.OK, b'"OK"'))
        else:
            self._send_words(HTTPStatus.NOT_FOUND, "there is only /upcheck")

    def do_POST(self) -> None:
        lengths = self.headers.get_all("Content-Length") or []
        if self.path != "/":
            self._send_words(HTTPStatus.NOT_FOUND, "requests go to /")
        elif self.headers.get("Transfer-Encoding") is not None or len(lengths) != 1:
            self._send_words(HTTPStatus.LENGTH_REQUIRED, "one Content-Length, nothing else")
        elif self.headers.get_content_type() != "application/json":
            self._send_words(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        elif not (lengths[0].isascii() and lengths[0].isdigit()):
            self._send_words(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
        elif len(lengths[0]) > 9 or int(lengths[0]) > MAX_REQUEST_BYTES:
            words = f"a request has at most {MAX_REQUEST_BYTES} bytes"
            self._send_words(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
        else:
            body = self.rfile.read(int(lengths[0]))
            if len(body) != int(lengths[0]):
                self._send_words(HTTPStatus.BAD_REQUEST, "the request is cut off")
            else:
                client = self.server.client_of(self.connection)
                self._send(answer(self.server.service, body, client=client))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        log.debug("%s", printable(format % args))

    def _send_words(self, status: HTTPStatus, words: str) -> None:
        self._send(Answer(status, f'{{"error": "{words}"}}'.encode()))

    def _send(self, answered: Answer) -> None:
        self.send_response(answered.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answered.body)))
        self.end_headers()
        self.wfile.write(answered.body)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    # A signature that was begun is finished before the process ends.
    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, service: SigningService, address: Any, timeout_s: float) -> None:
        self.service = service
        self._timeout_s = timeout_s
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def client_of(self, connection: Any) -> str:
        raise NotImplementedError

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            log.warning("a connection is refused: there are %d already", MAX_CONNECTIONS)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(self._timeout_s)
        with deadline(request, self._timeout_s):
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection broke off")


class UnixServer(_Server):
    """Serves on a unix socket.

    Parameters
    ----------
    service : SigningService
    path : Path
        Made with mode 0600; with `uids` for everybody to connect, and the kernel tells who did.
    uids : iterable of int
        Users that may ask besides this process's own.
    timeout_s : float
        How long a request may take in all, in seconds.

    Raises
    ------
    ConfigError
        The socket cannot be made, or another signer serves there.
    """

    address_family = socket.AF_UNIX

    def __init__(
        self,
        service: SigningService,
        path: Path,
        *,
        uids: Iterable[int] = (),
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._path = path
        self._uids = frozenset(uids)
        if self._uids and not hasattr(socket, "SO_PEERCRED"):
            raise ConfigError("this system does not tell which user connects to a socket")
        _remove_stale(path)
        mask = os.umask(0o177)
        try:
            super().__init__(service, str(path), timeout_s)
        except OSError as error:
            raise ConfigError(
                f"the socket {path} cannot be made: {error.strerror or error}",
                hint="Its folder has to exist, and a socket's path has at most 107 bytes.",
            ) from error
        finally:
            os.umask(mask)
        if self._uids:
            path.chmod(0o666)

    def server_bind(self) -> None:
        """Bind; a unix socket has no host name to look up."""
        socketserver.TCPServer.server_bind(self)

    def verify_request(self, request: Any, _client_address: Any) -> bool:
        """Tell whether the connecting process belongs to a user that may ask."""
        peer = _peer(request)
        if peer is None or peer[1] in {os.geteuid(), *self._uids}:
            return True
        log.warning("a connection of user %d is refused", peer[1])
        return False

    def client_of(self, connection: Any) -> str:
        """Return whose process is connected."""
        peer = _peer(connection)
        return "this machine" if peer is None else f"uid {peer[1]} pid {peer[0]}"

    def server_close(self) -> None:
        """Stop listening, and remove the socket."""
        super().server_close()
        with suppress(FileNotFoundError):
            self._path.unlink()


class TlsServer(_Server):
    """Serves over mutual TLS.

    Parameters
    ----------
    service : SigningService
    host, port
        Where to listen; port 0 is any free one.
    certificate, key : Path
        What this side shows; PEM.
    client_authority : Path
        Whoever connects has to show a certificate signed by this one; PEM.
    timeout_s : float
        How long a request may take in all, in seconds.

    Raises
    ------
    ConfigError
        A file cannot be used, or somebody else listens there.
    """

    def __init__(
        self,
        service: SigningService,
        host: str,
        port: int,
        *,
        certificate: Path,
        key: Path,
        client_authority: Path,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._context = tls_context(
            ssl.PROTOCOL_TLS_SERVER, certificate=certificate, key=key, authority=client_authority
        )
        try:
            super().__init__(service, (host, port), timeout_s)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror or error}"
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands first, in the connection's own thread and time."""
        request.settimeout(self._timeout_s)
        with deadline(request, self._timeout_s):
            try:
                secured = self._context.wrap_socket(request, server_side=True)
            except (ssl.SSLError, OSError) as error:
                log.warning("a connection without a valid certificate is refused: %s", error)
                return
        with secured:
            super().finish_request(secured, client_address)
            with suppress(OSError):
                secured.unwrap()

    def client_of(self, connection: Any) -> str:
        """Return the name in the client's certificate."""
        subject = dict(part[0] for part in connection.getpeercert().get("subject", ()))
        return printable(f"certificate {subject.get('commonName', 'without a name')}")[:200]


def _peer(connection: socket.socket) -> tuple[int, int] | None:
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


def _remove_stale(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(f"{path} exists and is no socket", hint="Name another --socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise ConfigError(f"{path} cannot be used: {error.strerror or error}") from error
            path.unlink()
            return
    raise ConfigError(f"another signer serves {path}", hint="End it first.")
