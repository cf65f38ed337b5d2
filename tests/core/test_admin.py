# SPDX-License-Identifier: Apache-2.0
"""The admin socket: requests are taken until it is closed, whatever happens to one of them."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import threading
import time

import pytest

from cepheid import admin, errors, host_lock
from tests.fake_agent import eventually


@pytest.fixture
def server(tmp_path):
    server = admin.AdminServer(
        tmp_path / admin.SOCKET_NAME, {"greet": lambda name: f"Hello, {name}"}
    )
    yield server
    server.close()


@pytest.fixture
def client(server):
    """A connection to the server, whose requests are written by hand."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(server.path))
        yield connection


def answer(client):
    """Return all that comes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):  # it had not read all
        while piece := client.recv(65536):
            received += piece
    return received


def serving():
    return [thread.name for thread in threading.enumerate() if thread.name == "admin"]


def answering():
    return [thread.name for thread in threading.enumerate() if thread.name == "admin-request"]


def test_answers_one_request_after_another(server, tmp_path):
    assert admin.call(tmp_path, "greet", name="Henrietta") == "Hello, Henrietta"
    assert admin.call(tmp_path, "greet", name="Edwin") == "Hello, Edwin"


@pytest.mark.parametrize(
    "request_line",
    [b"\n", b"[]\n", b"1e9999\n", b"\xff\n", b'{"command": []}\n', b"[" * 65000 + b"\n"],
)
def test_what_is_no_request_is_answered_in_a_sentence(client, request_line):
    client.sendall(request_line)
    assert b"The request is not one that this agent knows." in answer(client)


def test_a_request_without_an_end_is_refused_before_it_takes_memory(client):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            client.sendall(b"x" * 65536)
    assert b"The request is longer than 65536 bytes." in answer(client)


@pytest.mark.parametrize("pieces", [[], [b'{"com', b"mand"]])
def test_who_does_not_come_to_an_end_is_left(tmp_path, monkeypatch, pieces):
    monkeypatch.setattr(admin, "CLIENT_SECONDS", 0.2)
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"greet": lambda: "Hello"})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(server.path))
        for piece in pieces:
            client.sendall(piece)
        assert answer(client) == b""
    server.close()


def test_who_does_not_read_the_answer_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(admin, "CLIENT_SECONDS", 0.2)
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"tell": lambda: "x" * 10_000_000})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(server.path))
        client.sendall(b'{"command": "tell"}\n')
        assert client.recv(1) == b"{"
        eventually(lambda: not answering())
        assert len(answer(client)) < 10_000_000
    server.close()


def test_what_is_asked_for_may_take_longer_than_a_client_may(tmp_path, monkeypatch):
    monkeypatch.setattr(admin, "CLIENT_SECONDS", 0.2)

    def take_long():
        time.sleep(0.5)
        return "x" * 1_000_000

    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"take_long": take_long})
    assert len(admin.call(tmp_path, "take_long")) == 1_000_000
    server.close()


def test_goes_on_after_a_request_that_could_not_be_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(admin, "RETRY_SECONDS", 0.01)
    taken = admin.socket.socket.accept
    failures = [OSError(errno.EMFILE, "Too many open files")]

    def accept(listener):
        if failures:
            raise failures.pop()
        return taken(listener)

    monkeypatch.setattr(admin.socket.socket, "accept", accept)
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"greet": lambda: "Hello"})
    assert admin.call(tmp_path, "greet") == "Hello"
    assert "cannot take a request: [Errno 24] Too many open files" in caplog.text
    server.close()


def test_a_lasting_failure_is_said_once_and_so_is_its_end(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(admin, "RETRY_SECONDS", 0.01)
    failures = [RuntimeError("can't start new thread")] * 3
    start = threading.Thread.start

    def start_thread(thread):
        if thread.name == "admin-request" and failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_thread)
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"greet": lambda: "Hello"})
    for _ in range(3):
        with pytest.raises(errors.CepheidError):
            admin.call(tmp_path, "greet")
    assert admin.call(tmp_path, "greet") == "Hello"
    eventually(lambda: "takes requests again" in caplog.text)
    assert [record.getMessage() for record in caplog.records] == [
        "The admin socket cannot take a request: can't start new thread",
        "The admin socket takes requests again",
    ]
    server.close()


@pytest.mark.parametrize("before", ["nothing", "a request", "the file is removed"])
def test_ends_at_once_and_answers_nobody_from_then_on(tmp_path, before):
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"greet": lambda: "Hello"})
    if before != "nothing":
        admin.call(tmp_path, "greet")
    if before == "the file is removed":
        server.path.unlink()
    server.close()
    assert serving() == []
    assert not server.path.exists()
    with pytest.raises(errors.NotRunning):
        admin.call(tmp_path, "greet")


def test_ends_though_the_file_cannot_be_removed(tmp_path, monkeypatch):
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"greet": lambda: "Hello"})

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(type(server.path), "unlink", refuse)
    server.close()
    assert serving() == []
    with pytest.raises(errors.NotRunning):
        admin.call(tmp_path, "greet")


def test_says_of_an_agent_that_takes_no_requests_that_it_is_there(tmp_path):
    lock = host_lock.acquire(tmp_path)
    try:
        with pytest.raises(errors.NotRunning, match=rf"The agent, process {os.getpid()}, takes no"):
            admin.call(tmp_path, "greet")
    finally:
        os.close(lock)
    with pytest.raises(errors.NotRunning, match="Start it: 'systemctl start cepheid'"):
        admin.call(tmp_path, "greet")


def test_who_looks_for_an_agent_keeps_none_from_starting(tmp_path, monkeypatch):
    looking = os.open(tmp_path / host_lock.LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    # The look is over while the agent waits.
    monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
    try:
        os.close(host_lock.acquire(tmp_path))
    finally:
        os.close(looking)
