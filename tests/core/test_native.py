# SPDX-License-Identifier: Apache-2.0
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

from cepheid import concurrency, errors, native
from tests.fake_agent import eventually

native_threading = concurrency.original("threading")
native_time = concurrency.original("time")

#: Longer than any test runs.
LONG = 60.0


class Hang:
    """A native call that does not return until it is let."""

    def __init__(self):
        self._go = native_threading.Event()
        self.calls = 0
        self.returned = 0

    def __call__(self):
        self.calls += 1
        self._go.wait(LONG)
        self.returned += 1
        return "too late"

    def let_go(self):
        self._go.set()


@pytest.fixture
def hang():
    hang = Hang()
    yield hang
    hang.let_go()


@pytest.fixture
def make_pool():
    pools = []

    def make(**options):
        pools.append(native.NativePool(**options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def pool(make_pool):
    return make_pool(size=4)


def abandon(pool, call, times=1, deadline=0.005, **options):
    """Let so many calls hang; one that a busy machine does not even start is no such call.

    Return what is said of the last.
    """
    wanted = pool.abandoned_total + times
    while pool.abandoned_total < wanted:
        with pytest.raises(errors.CallTimeout) as caught:
            pool.run(call, deadline=deadline, **options)
    return str(caught.value)


def test_returns_what_the_call_returns(pool):
    assert pool.run(divmod, 17, 5, deadline=LONG) == (3, 2)


def test_raises_what_the_call_raises(pool):
    with pytest.raises(ZeroDivisionError):
        pool.run(divmod, 17, 0, deadline=LONG)


def test_the_call_runs_on_a_native_thread_of_the_pool(pool):
    names = {pool.run(lambda: native_threading.current_thread().name, deadline=LONG)}
    assert names == {"cepheid-native"}


def test_calls_that_follow_each_other_share_the_pools_threads(pool):
    get_ident = native_threading.get_ident
    assert len({pool.run(get_ident, deadline=LONG) for _ in range(20)}) <= pool.size


def test_gives_up_at_the_deadline_and_names_the_call(pool, hang):
    said = abandon(pool, hang, deadline=0.1, name="virDomainShutdown")
    assert said.startswith("virDomainShutdown did not return within 0.1 seconds")
    assert pool.abandoned == 1


def test_a_call_has_the_name_of_its_function_by_default(pool, hang):
    def shut_down():
        hang()

    assert abandon(pool, shut_down).startswith("shut_down did not return")


def test_a_call_whose_time_is_over_is_not_made(pool, hang):
    for deadline in (0, -1):
        with pytest.raises(errors.CallTimeout, match="was not called"):
            pool.run(hang, deadline=deadline)
    assert hang.calls == 0


def test_fifty_hung_calls_starve_nobody(make_pool, hang):
    pool = make_pool(size=4)
    for number in range(50):
        abandon(pool, hang, name=f"call {number}")
    assert pool.abandoned == 50
    assert [pool.run(abs, -n, deadline=LONG) for n in range(20)] == list(range(20))


def test_the_count_of_hung_calls_falls_when_they_return_and_the_total_stays(pool, hang):
    abandon(pool, hang, times=3)
    hang.let_go()
    eventually(lambda: pool.abandoned == 0)
    assert pool.abandoned_total == 3


def test_what_an_abandoned_call_returns_is_dropped(pool, hang):
    abandon(pool, hang)
    hang.let_go()
    eventually(lambda: hang.returned == 1)
    assert pool.run(abs, -7, deadline=LONG) == 7


def test_the_thread_of_an_abandoned_call_ends_with_it(pool, hang):
    before = set(native_threading.enumerate())
    abandon(pool, hang, times=3)
    pool.run(abs, 1, deadline=LONG)
    threads = set(native_threading.enumerate()) - before
    # One that a busy machine did not start in time is idle now.
    assert 3 < len(threads) <= 3 + pool.size
    hang.let_go()
    eventually(lambda: sum(thread.is_alive() for thread in threads) == len(threads) - 3)


def test_no_more_calls_than_its_size_run_at_one_time(make_pool):
    pool = make_pool(size=2)
    lock = native_threading.Lock()
    both = native_threading.Barrier(2)
    now, most = [], []

    def call(number):
        with lock:
            now.append(number)
            most.append(len(now))
        both.wait(LONG)
        native_time.sleep(0.002)
        with lock:
            now.remove(number)
        return number

    results = in_threads([lambda n=n: pool.run(call, n, deadline=LONG) for n in range(12)])
    assert sorted(results) == list(range(12))
    assert max(most) == 2


def test_a_call_that_got_no_thread_in_time_says_so_and_is_not_made_later(make_pool, hang):
    pool = make_pool(size=1)
    blocker = threading.Thread(target=lambda: pool.run(hang, deadline=LONG))
    blocker.start()
    eventually(lambda: hang.calls == 1)
    made = []
    with pytest.raises(errors.CallTimeout, match=r"append was not called: for 0\.01 seconds all"):
        pool.run(made.append, "late", deadline=0.01)
    assert pool.abandoned == 0
    hang.let_go()
    blocker.join()
    assert pool.run(made.append, "in time", deadline=LONG) is None
    assert made == ["in time"]


def test_a_waiting_call_gets_the_place_of_an_abandoned_one(make_pool, hang):
    pool = make_pool(size=1)
    hung = threading.Thread(target=abandon, args=(pool, hang), kwargs={"deadline": 0.03})
    hung.start()
    eventually(lambda: hang.calls == 1)
    assert pool.run(abs, -5, deadline=LONG) == 5
    hung.join()


def test_refuses_work_when_too_many_calls_hang(make_pool, hang):
    pool = make_pool(size=1, max_abandoned=3)
    abandon(pool, hang, times=3)
    with pytest.raises(errors.CallTimeout, match="was not called: 3 earlier calls hang"):
        pool.run(abs, -1, deadline=LONG)
    hang.let_go()
    eventually(lambda: pool.abandoned == 0)
    assert pool.run(abs, -1, deadline=LONG) == 1


def test_calls_of_one_name_that_hang_keep_no_others_from_being_made(make_pool, hang):
    pool = make_pool(size=1, max_of_one=3)
    abandon(pool, hang, times=3, name="statvfs")
    with pytest.raises(errors.CallTimeout, match="statvfs was not called: 3 earlier calls of it"):
        pool.run(abs, -1, deadline=LONG, name="statvfs")
    assert pool.run(abs, -1, deadline=LONG) == 1
    hang.let_go()
    eventually(lambda: pool.abandoned == 0)
    assert pool.run(abs, -1, deadline=LONG, name="statvfs") == 1


def test_an_exit_out_of_a_call_reaches_the_caller_and_costs_no_thread(make_pool):
    pool = make_pool(size=1)
    for _ in range(3):
        with pytest.raises(SystemExit):
            pool.run(sys.exit, 3, deadline=LONG)
    assert pool.run(abs, -1, deadline=LONG) == 1


class Panic(BaseException):
    """As what pyo3 raises: no Exception."""


def test_whatever_a_call_raises_reaches_the_caller_at_once_and_nothing_hangs(make_pool):
    pool = make_pool(size=1, max_abandoned=1)

    def panic():
        raise Panic

    for _ in range(3):
        with pytest.raises(Panic):
            pool.run(panic, deadline=LONG)
    assert (pool.abandoned_total, pool.under_way) == (0, [])
    assert pool.run(abs, -1, deadline=LONG) == 1


@pytest.fixture
def no_more_threads(monkeypatch):
    """While it is entered, the system has no more threads for pools."""

    @contextlib.contextmanager
    def enter():
        start = native_threading.Thread.start

        def refuse(thread):
            if thread.name == "cepheid-native":
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patched:
            patched.setattr(native_threading.Thread, "start", refuse)
            yield

    return enter


def test_without_any_thread_a_call_is_refused_at_once_and_later_ones_are_made(
    make_pool, no_more_threads
):
    pool = make_pool(size=2)
    with no_more_threads():
        for _ in range(5):
            with pytest.raises(errors.CallTimeout, match=r"abs was not called: no native thread"):
                pool.run(abs, -1, deadline=LONG)
    assert pool.queued == 0
    assert pool.run(abs, -1, deadline=LONG) == 1


def test_where_no_more_threads_can_be_had_a_call_waits_for_one_that_there_is(
    make_pool, hang, no_more_threads
):
    pool = make_pool(size=2)
    first = threading.Thread(target=lambda: pool.run(hang, deadline=LONG))
    first.start()
    eventually(lambda: hang.calls == 1)
    results = []
    second = threading.Thread(target=lambda: results.append(pool.run(abs, -1, deadline=LONG)))
    with no_more_threads():
        second.start()
        eventually(lambda: pool.queued == 1)
    hang.let_go()
    first.join()
    second.join()
    assert results == [1]


def test_a_call_that_hangs_where_no_more_threads_can_be_had_is_a_time_out_and_nothing_is_lost(
    make_pool, hang, no_more_threads
):
    pool = make_pool(size=1)
    pool.run(abs, 1, deadline=LONG)
    before = len(os.listdir("/proc/self/fd"))
    with no_more_threads():
        assert abandon(pool, hang).startswith("a native call did not return")
    assert len(os.listdir("/proc/self/fd")) == before
    assert pool.run(abs, -1, deadline=LONG) == 1


def test_a_call_that_waits_for_a_thread_is_refused_when_the_last_one_is_lost(
    make_pool, hang, no_more_threads
):
    pool = make_pool(size=1)
    answers = []

    def ask():
        with pytest.raises(errors.CallTimeout) as caught:
            pool.run(abs, -1, deadline=LONG)
        answers.append(str(caught.value))

    hung = threading.Thread(target=abandon, args=(pool, hang), kwargs={"deadline": 0.2})
    hung.start()
    eventually(lambda: hang.calls == 1)
    with no_more_threads():
        waiting = threading.Thread(target=ask)
        waiting.start()
        waiting.join()
        hung.join()
    assert "no native thread can be started (can't start new thread)" in answers[0]


def test_a_closed_pool_calls_nothing_and_its_threads_end(pool):
    thread = pool.run(native_threading.current_thread, deadline=LONG)
    pool.close()
    with pytest.raises(errors.CallTimeout, match="stopping"):
        pool.run(abs, 1, deadline=LONG)
    eventually(lambda: not thread.is_alive())


def test_other_threads_go_on_while_a_call_blocks(pool, hang):
    ticks = []

    def tick():
        while len(ticks) < 20:
            ticks.append(hang.returned)
            time.sleep(0.001)
        hang.let_go()

    ticker = threading.Thread(target=tick)
    ticker.start()
    assert pool.run(hang, deadline=LONG) == "too late"
    ticker.join()
    assert ticks == [0] * 20


def test_what_a_call_returned_is_not_kept(pool):
    class Large:
        pass

    def make(keep):
        made = Large()
        kept.append(weakref.ref(made))
        if keep:
            return made
        raise ValueError(made)

    kept = []
    pool.run(make, True, deadline=LONG)
    with pytest.raises(ValueError, match="Large"):
        pool.run(make, False, deadline=LONG)

    gc.disable()  # nothing is to wait for it
    try:
        eventually(lambda: [reference() for reference in kept] == [None, None])
    finally:
        gc.enable()


def test_no_descriptors_are_lost(pool, hang):
    pool.run(abs, 1, deadline=LONG)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        pool.run(abs, 1, deadline=LONG)
    abandon(pool, hang, times=2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_callers_at_once_all_get_their_own_results(pool):
    def caller(n):
        return [pool.run(divmod, n, m, deadline=LONG) for m in range(1, 20)]

    results = in_threads([lambda n=n: caller(n) for n in range(20)])
    assert sorted(results) == sorted([divmod(n, m) for m in range(1, 20)] for n in range(20))


def in_threads(calls):
    results = []
    threads = [threading.Thread(target=lambda c=call: results.append(c())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_hung_calls_do_not_keep_the_process_from_ending():
    code = """
import os, sys
from cepheid import concurrency, errors
if os.environ["CEPHEID_TEST_CONCURRENCY"] == "eventlet":
    concurrency.patch()
from cepheid.native import NativePool
pool = NativePool()
sleep = concurrency.original("time").sleep
while pool.abandoned < 50:
    try:
        pool.run(sleep, 600, deadline=0.001, name=str(pool.abandoned))
    except errors.CallTimeout:
        pass
print(pool.abandoned)
"""
    mode = "eventlet" if concurrency.is_green() else "threading"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"CEPHEID_TEST_CONCURRENCY": mode, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "50\n", "")


def test_tells_what_is_under_way_and_what_waits(make_pool, hang):
    pool = make_pool(size=1)
    assert (pool.under_way, pool.queued) == ([], 0)
    callers = [
        threading.Thread(target=pool.run, args=(hang,), kwargs={"deadline": LONG, "name": "stuck"})
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    eventually(lambda: pool.under_way and pool.queued)
    ((name, seconds, abandoned),) = pool.under_way
    assert (name, abandoned, pool.queued) == ("stuck", False, 1)
    assert 0 <= seconds < LONG
    hang.let_go()
    for caller in callers:
        caller.join()
    assert (pool.under_way, pool.queued) == ([], 0)


def test_a_call_counts_as_one_that_waits_once_it_has_waited_for_a_while(
    make_pool, hang, monkeypatch
):
    pool = make_pool(size=1)
    callers = [
        threading.Thread(target=pool.run, args=(hang,), kwargs={"deadline": LONG}) for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    with monkeypatch.context() as patched:
        patched.setattr(native, "QUEUED_SECONDS", 0.0)
        eventually(lambda: pool.queued == 1)
        patched.setattr(native, "QUEUED_SECONDS", LONG)
        assert pool.queued == 0
    hang.let_go()
    for caller in callers:
        caller.join()


def test_an_abandoned_call_is_under_way_until_it_returns(pool, hang):
    abandon(pool, hang)
    assert [abandoned for _, _, abandoned in pool.under_way] == [True]
    hang.let_go()
    eventually(lambda: not pool.under_way)
