# SPDX-License-Identifier: Apache-2.0
import os
import socket
import sys
import threading
import time
import traceback

import pytest

from cepheid import concurrency
from tests.fake_agent import eventually


def test_the_mode_is_the_one_this_test_run_asked_for():
    wanted = os.environ.get("CEPHEID_TEST_CONCURRENCY", "threading")
    assert concurrency.is_green() == (wanted == "eventlet")


def test_an_original_module_makes_native_threads_in_both_modes():
    thread = concurrency.original("threading").Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.native_id != concurrency.original("threading").get_native_id()


@pytest.mark.parametrize("name", ["threading", "os", "time", "select"])
def test_an_original_module_is_another_one_only_where_threads_are_green(name):
    assert (concurrency.original(name) is not __import__(name)) == concurrency.is_green()


def test_names_are_looked_up_by_the_c_library_and_eventlets_resolver_is_not_there():
    assert not concurrency.is_green() or "eventlet.support.greendns" not in sys.modules
    assert "EVENTLET_NO_GREENDNS" not in os.environ
    addresses = {found[4][0] for found in socket.getaddrinfo("localhost", 80)}
    assert addresses & {"127.0.0.1", "::1"}
    assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"
    assert socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
        "127.0.0.1",
        "80",
    )
    with pytest.raises(socket.gaierror) as raised:
        socket.getaddrinfo("no such host", 80, flags=socket.AI_NUMERICHOST)
    assert raised.value.errno == socket.EAI_NONAME


def test_other_threads_go_on_while_a_name_is_looked_up():
    asked, answered = (concurrency.original("threading").Event() for _ in range(2))

    def name_server(name):
        asked.set()
        return answered.wait(30) and f"the address of {name}"

    found = []
    thread = threading.Thread(
        target=lambda: found.append(concurrency._look_up(name_server, "db.example"))
    )
    thread.start()
    eventually(asked.is_set)
    time.sleep(0.01)
    assert found == []
    answered.set()
    thread.join()
    assert found == ["the address of db.example"]


def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(concurrency, "LOOKUP_SECONDS", 0.05)
    answered = concurrency.original("threading").Event()

    def name_server(host):
        answered.wait(30)

    try:
        for arguments in ({"args": ["db.example"]}, {"host": "db.example"}, {"args": [b"db01"]}):
            positional = arguments.pop("args", [])
            with pytest.raises(socket.gaierror, match=r"db.*: no answer within") as raised:
                concurrency._look_up(name_server, *positional, **arguments)
            assert raised.value.errno == socket.EAI_AGAIN
        # No name server is asked about an address, whatever hangs.
        monkeypatch.setattr(concurrency, "_lookup_pool", lambda: pytest.fail("asked"))
        assert socket.getaddrinfo("127.0.0.1", 80)[0][4] == ("127.0.0.1", 80)
        assert socket.getaddrinfo(None, 80, type=socket.SOCK_STREAM)
        assert concurrency._look_up(lambda name: name, "::1") == "::1"
    finally:
        answered.set()


def test_tells_where_another_thread_is():
    getters, go_on = [], threading.Event()

    def stand_here():
        getters.append(concurrency.frame_getter())
        go_on.wait(30)

    thread = threading.Thread(target=stand_here)
    thread.start()
    getter = eventually(lambda: getters and getters[0])
    stack = eventually(lambda: "".join(traceback.format_stack(getter())))
    assert "stand_here" in stack
    go_on.set()
    thread.join()
    assert getter() is None
