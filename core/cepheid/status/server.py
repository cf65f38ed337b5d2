# SPDX-License-Identifier: Apache-2.0
"""An HTTP server on native threads, built so that no client can hold up the agent.

One thread accepts connections. Each connection has a thread of its own, carries one request of
limited size, and has a limited time for it (:mod:`cepheid.status.connection`). At most
:data:`MAX_CONNECTIONS` are served at one time: for another one, the client that has kept the server
waiting the longest is dropped. The standard library parses the requests, but its own server is not
used, since it would run on green threads.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cepheid import concurrency, errors
from cepheid.status.connection import MAX_REQUEST_BYTES, Connection
from cepheid.status.messages import Request, Response, text

#: Connections that are served at one time.
MAX_CONNECTIONS = 16

#: Sent with every answer. Nothing is ever allowed to another site.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

#: The Content-Security-Policy of an answer that brings none of its own: nothing is allowed.
DEFAULT_POLICY = "default-src 'none'; frame-ancestors 'none'"


class HttpServer:
    """Listens from its creation on, answers from :meth:`start` on.

    :param address: an IP address
    :param port: 0 for any that is free
    :param answer: called on a native thread of each connection
    :raises ConfigError: the address cannot be listened on
    """

    def __init__(self, address: str, port: int, answer: Callable[[Request], Response]) -> None:
        self._answer = answer
        self._threading = concurrency.original("threading")
        self._time = concurrency.original("time")
        self._socket = concurrency.original("socket")
        self._changed = self._threading.Condition(self._threading.Lock())
        self._connections: set[Connection] = set()
        self._stopped = False
        version = ipaddress.ip_address(address).version
        family = self._socket.AF_INET if version == 4 else self._socket.AF_INET6
        self._listener = self._socket.socket(family, self._socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(self._socket.SOL_SOCKET, self._socket.SO_REUSEADDR, 1)
            self._listener.bind((address, port))
            self._listener.listen(128)
        except OSError as err:
            self._listener.close()
            raise errors.ConfigError(
                f"[status] listen_address = {address}, port = {port} cannot be listened on: "
                f"{err.strerror}."
            ) from err
        self.port: int = self._listener.getsockname()[1]
        self._thread = self._threading.Thread(
            target=self._accept, name="cepheid-status", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Take no more requests; those being answered are left to themselves."""
        self._stopped = True
        if self._thread.is_alive():
            # This wakes the accepting thread, which closes the socket. If it were closed here, its
            # descriptor's number could be another file's before that thread has noticed.
            with contextlib.suppress(OSError):
                self._listener.shutdown(self._socket.SHUT_RDWR)
        else:
            self._listener.close()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                # Either the server is closed, or the process is out of descriptors. Then wait for
                # open connections to end.
                self._time.sleep(0.1)
                continue
            self._serve(Connection(connection, peer[0], self._time.monotonic))
        self._listener.close()

    def _serve(self, connection: Connection) -> None:
        with self._changed:
            served = [known for known in self._connections if not known.dropped]
            if len(served) >= MAX_CONNECTIONS:
                slow = [known for known in served if known.waits_for_client] or [connection]
                min(slow, key=lambda known: known.until).drop()
            # The threads of dropped connections take a moment to end; a flood of clients waits.
            self._changed.wait_for(lambda: len(self._connections) < 2 * MAX_CONNECTIONS)
            self._connections.add(connection)
        try:
            self._threading.Thread(
                target=self._answer_one,
                args=(connection,),
                name="cepheid-status-request",
                daemon=True,
            ).start()
        except RuntimeError:  # the system has no more threads
            self._forget(connection)

    def _answer_one(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                _Handler(connection, self._answer)
                connection.linger()
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()
        connection.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Reads one request, has it answered, and sends the answer."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # of a request that names none; 0.9 knows no status

    def __init__(self, connection: Connection, answer: Callable[[Request], Response]) -> None:
        self._connection = connection
        self._answer = answer
        super().__init__(connection, (connection.peer, 0), None)  # type: ignore[arg-type]

    def setup(self) -> None:
        self.rfile = io.BufferedReader(self._connection)
        self.wfile = self._connection  # type: ignore[assignment]

    def handle(self) -> None:
        self.handle_one_request()

    def finish(self) -> None:
        self.rfile.detach()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._send(text(code, message or HTTPStatus(code).phrase))

    def version_string(self) -> str:
        return "cepheid"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: it is a native thread, and who asks is no news."""

    def do_GET(self) -> None:
        body = self._body()
        if body is None:
            return
        self._connection.begin_answer()
        try:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "The address cannot be read.")
            return
        request = Request(
            self.command, unquote(parts.path), query, self.headers, body, self._connection.peer
        )
        self._send(self._answer(request))

    do_HEAD = do_POST = do_GET

    def _body(self) -> bytes | None:
        """Return the body; None where it cannot be had, which was answered."""
        length = self.headers.get("Content-Length") or "0"
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self.send_error(HTTPStatus.LENGTH_REQUIRED, "Send a Content-Length.")
            return None
        if len(length) > 9 or int(length) > MAX_REQUEST_BYTES // 2:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long.")
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise OSError("the client ended before its request did")
        return body

    def _send(self, response: Response) -> None:
        self._connection.begin_sending()
        self.send_response(response.status)
        headers = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": DEFAULT_POLICY,
            **SECURITY_HEADERS,
            **response.headers,
            "Connection": "close",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
