# SPDX-License-Identifier: Apache-2.0
import asyncio
import sys
import threading
import time

import pytest
from oslo_config import cfg

from cepheid import periodic_task
from cepheid.timekeeping import MOST_WAITING
from cepheid.timers import LOG, Timer, TimerGroup
from tests.fake_agent import eventually

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
def timers(clock):
    group = TimerGroup(clock)
    yield group
    group.stop()
    assert group.wait(10)


@pytest.fixture
def real_timers():
    """Timers on the real clock, for callbacks that wait for something else than the time."""
    group = TimerGroup()
    yield group
    group.stop()
    assert group.wait(10)


class Callback:
    """Notes when it is called, and answers what it is told to."""

    def __init__(self, clock, answer=10.0):
        self.clock = clock
        self.answer = answer
        self.called_at = []

    def __call__(self):
        self.called_at.append(self.clock.monotonic() - 1000)
        return self.answer() if callable(self.answer) else self.answer


def start(timers, clock, callback, **options):
    timer = timers.add_dynamic_timer(callback, **options)
    settle(timers, clock)
    return timer


def settle(timers, clock):
    """Turn what is due now, until every thread waits, if only in a callback that hangs."""
    clock.settle_all("timer", lambda: timers.threads)


def advance(timers, clock, seconds):
    """Let time pass, from one timer's due time to the next."""
    until = clock.monotonic() + seconds
    while True:
        due = min((t.due for t in timers.timers if not t.running), default=DAY * DAY)
        clock.jump(min(due, until) - clock.monotonic())
        settle(timers, clock)
        if due > until:
            return


def fail():
    raise ValueError("broken")


def leave():
    sys.exit(1)


def interrupt():
    raise KeyboardInterrupt


def cancel():
    raise asyncio.CancelledError


def interrupt_log(*_):
    raise Late


class Late(BaseException):
    """As eventlet.Timeout: no Exception, and raised wherever its thread is by then."""


# When it turns


def test_waits_as_long_as_the_callback_says(timers, clock):
    answers = iter([5, 10, 20, 1000])
    callback = Callback(clock, lambda: next(answers))
    start(timers, clock, callback)
    advance(timers, clock, 100)
    assert callback.called_at == [0, 5, 15, 35]


def test_waits_first_for_the_initial_delay(timers, clock):
    callback = Callback(clock)
    start(timers, clock, callback, initial_delay=3)
    advance(timers, clock, 2.9)
    assert callback.called_at == []
    advance(timers, clock, 20)
    assert callback.called_at == [3, 13]


@pytest.mark.parametrize("delay", [None, 0])
def test_without_an_initial_delay_it_turns_at_once(timers, clock, delay):
    callback = Callback(clock)
    start(timers, clock, callback, initial_delay=delay)
    assert callback.called_at == [0]


def test_waits_no_longer_than_periodic_interval_max(timers, clock):
    callback = Callback(clock, answer=60)
    start(timers, clock, callback, periodic_interval_max=25)
    advance(timers, clock, 60)
    assert callback.called_at == [0, 25, 50]


def test_an_answer_below_periodic_interval_max_counts(timers, clock):
    callback = Callback(clock, answer=20)
    start(timers, clock, callback, periodic_interval_max=25)
    advance(timers, clock, 50)
    assert callback.called_at == [0, 20, 40]


def test_after_no_answer_waits_periodic_interval_max_or_a_minute(timers, clock):
    bounded, unbounded = Callback(clock, answer=None), Callback(clock, answer=None)
    start(timers, clock, bounded, periodic_interval_max=50)
    start(timers, clock, unbounded)
    advance(timers, clock, 120)
    assert bounded.called_at == [0, 50, 100]
    assert unbounded.called_at == [0, 60, 120]


@pytest.mark.parametrize("answer", [fail, leave, interrupt, cancel, "soon"])
def test_survives_whatever_its_callback_does(timers, clock, caplog, answer):
    callback = Callback(clock, lambda: answer() if callable(answer) else answer)
    start(timers, clock, callback, periodic_interval_max=30)
    advance(timers, clock, 90)
    assert callback.called_at == [0, 30, 60, 90]
    assert "its callback failed; it goes on" in caplog.text


def test_a_callback_that_failed_does_not_run_and_may_be_late(clock):
    timer = Timer(cancel, interval_max=30, clock=clock)
    timer.turn()
    assert not timer.running
    clock.sleep(31)
    assert timer.lateness() == 1


def test_goes_on_though_something_is_raised_while_it_waits(timers, clock, caplog, monkeypatch):
    callback = Callback(clock)
    start(timers, clock, callback)
    wait, raised = clock.wait, []

    def wait_once_in_vain(event, seconds):
        if not raised:
            raised.append(1)
            raise Late
        return wait(event, seconds)

    monkeypatch.setattr(clock, "wait", wait_once_in_vain)
    advance(timers, clock, 40)
    assert callback.called_at == [0, 10, 20, 30, 40]
    assert "A thread of the timers was interrupted; it goes on" in caplog.text
    assert timers.threads <= MOST_WAITING


def test_turns_again_though_its_failure_could_not_be_logged(timers, clock, monkeypatch):
    callback = Callback(clock, fail)
    monkeypatch.setattr(LOG, "exception", interrupt_log)
    timer = start(timers, clock, callback, periodic_interval_max=30)
    advance(timers, clock, 60)
    assert callback.called_at == [0, 30, 60]
    assert not timer.running


def test_a_fixed_timer_turns_each_interval_whatever_it_answers_and_takes_arguments(timers, clock):
    calls = []

    def callback(*args, **kwargs):
        calls.append((clock.monotonic() - 1000, args, kwargs))
        return 1 if len(calls) < 2 else fail()

    timers.add_timer(7, callback, 2, "a", b="c")
    settle(timers, clock)
    advance(timers, clock, 20)
    assert calls == [(at, ("a",), {"b": "c"}) for at in (2, 9, 16)]


def test_a_fixed_timer_keeps_its_times_though_calls_take_time_and_leaves_out_missed_ones(
    timers, clock
):
    takes = iter([3, 0, 25, 0, 0])
    called_at = []

    def callback():
        called_at.append(clock.monotonic() - 1000)
        clock.sleep(next(takes))

    timers.add_timer(10, callback, 5)
    settle(timers, clock)
    advance(timers, clock, 60)
    assert called_at == [5, 15, 25, 55]


def test_a_fixed_timer_without_an_interval_is_due_at_once(clock):
    timer = Timer(lambda: None, interval=0, clock=clock)
    clock.sleep(5)
    timer.turn()
    assert timer.due == clock.monotonic()


def test_a_timer_that_comes_later_may_be_due_sooner(timers, clock):
    late, early = Callback(clock, answer=100), Callback(clock, answer=100)
    start(timers, clock, late, initial_delay=50)
    start(timers, clock, late, initial_delay=60)
    start(timers, clock, early, initial_delay=5)
    advance(timers, clock, 70)
    assert (early.called_at, late.called_at) == ([5], [50, 60])


def test_a_dynamic_timer_passes_arguments_on(timers, clock):
    calls = []
    timers.add_dynamic_timer(lambda *a, **k: calls.append((a, k)), None, 60, "a", b="c")
    settle(timers, clock)
    assert calls == [(("a",), {"b": "c"})]


def test_a_poke_lets_it_ask_now_what_is_due(timers, clock):
    callback = Callback(clock, answer=1000)
    timer = start(timers, clock, callback)
    advance(timers, clock, 10)
    timer.poke()
    settle(timers, clock)
    advance(timers, clock, 1000)
    assert callback.called_at == [0, 10, 1010]


def test_a_poke_of_the_group_reaches_all(timers, clock):
    callbacks = [Callback(clock, answer=1000) for _ in range(3)]
    for callback in callbacks:
        start(timers, clock, callback)
    timers.poke()
    settle(timers, clock)
    for callback in callbacks:
        assert len(callback.called_at) == 2


def test_a_poke_while_its_callback_runs_is_not_lost(real_timers):
    inside, go_on = threading.Event(), threading.Event()
    calls = []

    def callback():
        calls.append(1)
        inside.set()
        go_on.wait(30)
        return 1000

    timer = real_timers.add_dynamic_timer(callback)
    eventually(inside.is_set)
    timer.poke()
    go_on.set()
    eventually(lambda: len(calls) == 2)


# Being late


def test_one_hung_callback_delays_none_of_sixteen_others(timers, clock):
    never = threading.Event()

    def hang():
        clock.wait(never, None)

    sixteen = [Callback(clock, answer=60) for _ in range(16)]
    for callback in sixteen[:8]:
        start(timers, clock, callback)
    hung = start(timers, clock, hang, initial_delay=30)
    for callback in sixteen[8:]:
        start(timers, clock, callback)
    advance(timers, clock, HOUR)
    expected = [60 * n for n in range(61)]
    assert [callback.called_at for callback in sixteen] == [expected] * 16
    assert hung.running
    assert hung.lateness() == 0
    never.set()


def test_two_threads_are_enough_for_a_thousand_quick_timers(timers, clock):
    callbacks = [Callback(clock, answer=60) for _ in range(1000)]
    for number, callback in enumerate(callbacks):
        timers.add_dynamic_timer(callback, initial_delay=number // 100)
    settle(timers, clock)
    advance(timers, clock, 130)
    assert [callback.called_at for callback in callbacks] == [
        [n // 100, n // 100 + 60, n // 100 + 120] for n in range(1000)
    ]
    assert timers.threads <= MOST_WAITING


def test_no_thread_more_is_started_for_what_became_due_while_the_machine_stood_still(timers, clock):
    clock.quick_seconds = 1
    threads = []

    def note():
        time.sleep(0.001)  # Others that woke have the processor now.
        threads.append(timers.threads)
        return HOUR

    for _ in range(200):
        timers.add_dynamic_timer(note, initial_delay=10)
    settle(timers, clock)
    advance(timers, clock, 60)
    assert len(threads) == 200
    assert max(threads) <= MOST_WAITING


def test_what_is_due_is_left_to_a_busy_thread_for_a_moment_only(timers, clock):
    clock.quick_seconds = 0.5
    go_on = threading.Event()
    quick = Callback(clock, answer=60)

    def hang():
        clock.wait(go_on, None)

    start(timers, clock, hang, initial_delay=10)
    start(timers, clock, quick, initial_delay=10)
    clock.advance(10)
    settle(timers, clock)
    assert quick.called_at == []
    clock.advance(0.5)
    assert quick.called_at == [10.5]
    go_on.set()


def test_callbacks_that_hang_have_a_thread_each_for_as_long_as_they_hang(timers, clock):
    go_on = threading.Event()

    def hang():
        clock.wait(go_on, None)
        return 60

    for _ in range(20):
        timers.add_dynamic_timer(hang, initial_delay=10)
    quick = Callback(clock, answer=1)
    timers.add_dynamic_timer(quick)
    settle(timers, clock)
    advance(timers, clock, 20)
    assert quick.called_at == list(range(21))
    assert 21 <= timers.threads <= 20 + MOST_WAITING
    go_on.set()
    eventually(lambda: timers.threads <= MOST_WAITING)
    advance(timers, clock, 1)
    assert quick.called_at[-1] == 21


def test_goes_on_where_the_system_has_no_more_threads(timers, clock, caplog, monkeypatch):
    first, second = Callback(clock), Callback(clock)
    start(timers, clock, first, initial_delay=1)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    start(timers, clock, second, initial_delay=2)
    advance(timers, clock, 11)
    assert (first.called_at, second.called_at) == ([1, 11], [2])
    assert "No thread can be started for the timers: can't start new thread" in caplog.text


def test_a_timer_without_any_thread_is_an_error_and_not_silence(timers, clock, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        timers.add_dynamic_timer(Callback(clock))
    assert timers.timers == []


def test_its_thread_has_its_name_during_a_call(timers, clock):
    names = []
    timers.add_dynamic_timer(lambda: names.append(threading.current_thread().name))
    settle(timers, clock)
    assert [name.startswith("timer-test_its_thread") for name in names] == [True]
    assert not any(thread.name.startswith("timer-") for thread in threading.enumerate())


def test_tells_by_how_much_it_is_late(clock):
    timer = Timer(lambda: 10, initial_delay=5, clock=clock)
    clock.sleep(5)
    assert timer.lateness() == 0
    clock.sleep(3)
    assert timer.lateness() == 3
    timer.turn()
    clock.sleep(12)
    assert timer.lateness() == 2


def test_is_not_late_while_its_callback_runs(clock):
    lateness = []

    def callback():
        clock.sleep(100)
        lateness.append(timer.lateness())

    timer = Timer(callback, clock=clock)
    timer.turn()
    assert lateness == [0]
    assert timer.lateness() == 0


# Its end


def test_a_stopped_timer_turns_no_more(timers, clock):
    callback = Callback(clock)
    start(timers, clock, callback)
    timers.stop()
    assert timers.wait(10)
    clock.jump(100)
    eventually(lambda: timers.threads == 0)
    assert callback.called_at == [0]


def test_a_timer_stopped_in_its_initial_delay_never_turns(timers, clock):
    callback = Callback(clock)
    start(timers, clock, callback, initial_delay=60)
    timers.stop(graceful=True)
    assert callback.called_at == []


def test_a_graceful_stop_returns_when_the_calls_in_progress_have_ended(real_timers):
    inside, go_on, ended = threading.Event(), threading.Event(), []

    def callback():
        inside.set()
        go_on.wait(30)
        ended.append(1)

    real_timers.add_dynamic_timer(callback)
    eventually(inside.is_set)
    threading.Timer(0.01, go_on.set).start()
    real_timers.stop(graceful=True)
    assert ended == [1]


def test_waiting_for_a_hung_timer_ends_in_time_and_says_so(real_timers):
    never = threading.Event()
    timer = real_timers.add_dynamic_timer(lambda: never.wait(30))
    eventually(lambda: timer.running)
    real_timers.stop()
    assert not real_timers.wait(0.01)
    never.set()


def test_a_timer_that_is_removed_leaves_the_others_alone(timers, clock):
    first, second = Callback(clock), Callback(clock)
    removed = start(timers, clock, first)
    start(timers, clock, second)
    timers.remove(removed)
    assert removed.wait(10)
    advance(timers, clock, 20)
    assert first.called_at == [0]
    assert second.called_at == [0, 10, 20]


def test_a_timer_is_named_after_the_task_it_calls(timers, clock):
    class Task:
        name = "sync_power_states"

        def periodic_tasks(self):
            return 60

    assert start(timers, clock, Task().periodic_tasks).name == "sync_power_states"
    assert "fail" in start(timers, clock, fail).name


# A day


def test_a_simulated_day_of_seventeen_tasks_takes_less_than_a_second_of_cpu(clock):
    class Ticking(periodic_task.PeriodicTasks):
        ticks = 0

        @periodic_task.periodic_task(spacing=60)
        def tick(self, context):
            self.ticks += 1

        def _now(self):
            return clock.monotonic()

        def _uniform(self):
            return 0.0

        def _let_others_run(self):
            clock.sleep(0)

    conf = cfg.ConfigOpts()
    conf([])
    tasks = [Ticking(conf) for _ in range(17)]
    timers = [Timer(lambda t=task: t.run_periodic_tasks(None), clock=clock) for task in tasks]
    started = time.thread_time()  # however busy the machine is
    ends_at = clock.monotonic() + DAY
    while (timer := min(timers, key=lambda timer: timer.due)).due <= ends_at:
        clock.sleep(timer.due - clock.monotonic())
        timer.turn()
    took = time.thread_time() - started
    assert [task.ticks for task in tasks] == [1440] * 17
    assert took < 1
