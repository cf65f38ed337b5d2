# SPDX-License-Identifier: Apache-2.0
"""The HTTP server on its native threads, asked over real sockets."""

import contextlib
import socket as any_socket

import pytest

from cepheid import concurrency, errors
from cepheid.status import connection, server
from cepheid.status.messages import Response, text
from tests.fake_agent import eventually

socket = concurrency.original("socket")
threading = concurrency.original("threading")


def echo(request):
    if request.path == "/big":
        return Response(200, b"x" * 3_000_000)
    return text(200, request.method, request.path, str(dict(request.query)), request.body.decode())


@pytest.fixture
def serve():
    """Start servers; all of them end with the test."""
    started = []

    def start(answer=echo):
        made = server.HttpServer("127.0.0.1", 0, answer)
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.close()


def dial(port):
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.settimeout(20)
    return connection


def exchange(port, sent):
    """Send bytes; return all that comes back until the server closes."""
    with dial(port) as client:
        client.sendall(sent)
        return receive_all(client)


def receive_all(client):
    received = b""
    try:
        while part := client.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def test_answers_and_closes(serve):
    port = serve().port
    answer = exchange(
        port, b"POST /a%20b?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in head
    assert body == b"POST\n/a b\n{'n': '1'}\nhello\n"


def test_lets_no_other_site_use_an_answer(serve):
    answer = exchange(serve().port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").decode()
    for header in ("X-Content-Type-Options: nosniff", "X-Frame-Options: DENY",
                   "Cache-Control: no-store", "Cross-Origin-Resource-Policy: same-origin",
                   "Content-Security-Policy: default-src 'none'"):  # fmt: skip
        assert header in answer
    assert "Access-Control" not in answer
    assert "Python" not in answer


def test_a_head_has_no_body(serve):
    answer = exchange(serve().port, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 11\r\n" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: 17000\r\n\r\n" + b"x" * 17000, b"413"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", b"431"),
    ],
)
def test_refuses_what_it_does_not_take(serve, sent, status):
    answer = exchange(serve().port, sent)
    assert answer.split()[1] == status
    assert b"Traceback" not in answer


def test_reads_no_endless_request(serve):
    port = serve().port
    assert b" 200 " not in exchange(port, b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 60_000)


def test_a_client_that_sends_a_byte_now_and_then_has_its_time_and_no_more(serve, monkeypatch):
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.2)
    port = serve().port
    with dial(port) as slow:
        slow.sendall(b"GET / HT")
        assert receive_all(slow) == b""


def test_a_client_that_does_not_read_has_its_time_and_no_more(serve, monkeypatch):
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.2)
    made = serve()
    with dial(made.port) as lazy:
        lazy.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: made._connections)
        eventually(lambda: not made._connections)


@pytest.mark.parametrize("sent", [b"GET / HT", b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_many_slow_clients_keep_nobody_from_an_answer(serve, sent):
    port = serve().port
    slow = [dial(port) for _ in range(5 * server.MAX_CONNECTIONS)]
    try:
        for client in slow:
            with contextlib.suppress(OSError):  # it was dropped already
                client.sendall(sent)
        answer = exchange(port, b"GET /well HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"/well" in answer
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("cepheid-status-request") <= 2 * server.MAX_CONNECTIONS + 1
    finally:
        for client in slow:
            client.close()


def test_where_all_are_being_answered_one_more_is_turned_away(serve):
    go = threading.Event()

    def wait(request):
        go.wait(20)
        return text(200, "done")

    made = serve(wait)
    clients = [dial(made.port) for _ in range(server.MAX_CONNECTIONS)]
    try:
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(
            lambda: sum(not c.waits_for_client for c in set(made._connections)) == len(clients)
        )
        with dial(made.port) as another:
            another.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive_all(another) == b""
        go.set()
        assert all(b"done" in receive_all(client) for client in clients)
    finally:
        go.set()
        for client in clients:
            client.close()


def test_says_which_option_when_it_cannot_listen(serve):
    port = serve().port
    with pytest.raises(errors.ConfigError, match=rf"\[status\] listen_address .* port = {port}"):
        server.HttpServer("127.0.0.1", port, echo)


def test_listens_with_ipv6():
    if not any_socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        made = server.HttpServer("::1", 0, echo)
    except errors.ConfigError:
        pytest.skip("this machine has no ::1")
    made.start()
    client = socket.create_connection(("::1", made.port), 20)
    client.sendall(b"GET /six HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"/six" in receive_all(client)
    client.close()
    made.close()


def test_sends_a_large_answer_whole(serve):
    answer = exchange(serve().port, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000
