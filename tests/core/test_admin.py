# SPDX-License-Identifier: Apache-2.0
"""The admin socket: requests are taken until it is closed, whatever happens to one of them."""

import errno
import threading

import pytest

from cepheid import admin, errors


@pytest.fixture
def server(tmp_path):
    server = admin.AdminServer(
        tmp_path / admin.SOCKET_NAME, {"greet": lambda name: f"Hello, {name}"}
    )
    yield server
    server.close()


def serving():
    return [thread.name for thread in threading.enumerate() if thread.name == "admin"]


def test_answers_one_request_after_another(server, tmp_path):
    assert admin.call(tmp_path, "greet", name="Henrietta") == "Hello, Henrietta"
    assert admin.call(tmp_path, "greet", name="Edwin") == "Hello, Edwin"


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


@pytest.mark.parametrize("request_first", [True, False])
def test_ends_at_once_and_answers_nobody_from_then_on(tmp_path, request_first):
    server = admin.AdminServer(tmp_path / admin.SOCKET_NAME, {"greet": lambda: "Hello"})
    if request_first:
        admin.call(tmp_path, "greet")
    server.close()
    assert serving() == []
    assert not server.path.exists()
    with pytest.raises(errors.NotRunning):
        admin.call(tmp_path, "greet")
