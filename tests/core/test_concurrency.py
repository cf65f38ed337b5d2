# SPDX-License-Identifier: Apache-2.0
import os
import threading
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
