"""A server on a socket of its own that answers what a test tells it to, byte by byte."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import httpx

Script = Callable[[socket.socket, bytes], None]
"""Answers one request, whose head and body are given, on the connection."""


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Return an HTTP answer; underscores in names of headers become dashes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(data: bytes) -> Script:
    """Answer with these bytes, and close."""
    return lambda connection, request: connection.sendall(data)


def speaks(handle: Callable[[httpx.Request], httpx.Response]) -> Script:
    """Answer as a function of HTTP requests does."""

    def answer(connection: socket.socket, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        response = handle(httpx.Request(method, f"http://127.0.0.1{path}", content=body))
        status = f"{response.status_code} {response.reason_phrase}"
        connection.sendall(http(status, response.read(), **response.headers))

    return answer


@contextlib.contextmanager
def scripted(
    *scripts: Script, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """Serve requests in turn, the last script again and again; give the address and what came."""
    seen: list[bytes] = []
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                if closing.is_set():
                    connection.close()
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                stack.enter_context(connection)
                if tls is not None:
                    wrapped = tls.wrap_socket(connection, server_side=True)
                    connection = stack.enter_context(wrapped)
                request = _read_request(connection)
                seen.append(request)
                scripts[min(len(seen), len(scripts)) - 1](connection, request)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = server.getsockname()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{address[1]}", seen
        closing.set()
        socket.create_connection(address).close()
        thread.join()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += _more(connection)
    return head + b"\r\n\r\n" + body


def _more(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    if not piece:
        raise OSError("the client went away")
    return piece
