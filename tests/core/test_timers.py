# SPDX-License-Identifier: Apache-2.0
import sys
import threading
import time

import pytest
from oslo_config import cfg

from cepheid import periodic_task
from cepheid.timers import Timer, TimerGroup
from tests.fake_agent import eventually

DAY = 24 * 3600


@pytest.fixture
def timers(clock):
    group = TimerGroup(clock)
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
    clock.settle(len(timers.timers))
    return timer


def fail():
    raise ValueError("broken")


def leave():
    sys.exit(1)


# When it turns


def test_waits_as_long_as_the_callback_says(timers, clock):
    answers = iter([5, 10, 20, 1000])
    callback = Callback(clock, lambda: next(answers))
    start(timers, clock, callback)
    clock.advance(100)
    assert callback.called_at == [0, 5, 15, 35]


def test_waits_first_for_the_initial_delay(timers, clock):
    callback = Callback(clock)
    start(timers, clock, callback, initial_delay=3)
    clock.advance(2.9)
    assert callback.called_at == []
    clock.advance(20)
    assert callback.called_at == [3, 13]


@pytest.mark.parametrize("delay", [None, 0])
def test_without_an_initial_delay_it_turns_at_once(timers, clock, delay):
    callback = Callback(clock)
    start(timers, clock, callback, initial_delay=delay)
    assert callback.called_at == [0]


def test_waits_no_longer_than_periodic_interval_max(timers, clock):
    callback = Callback(clock, answer=60)
    start(timers, clock, callback, periodic_interval_max=25)
    clock.advance(60)
    assert callback.called_at == [0, 25, 50]


def test_an_answer_below_periodic_interval_max_counts(timers, clock):
    callback = Callback(clock, answer=20)
    start(timers, clock, callback, periodic_interval_max=25)
    clock.advance(50)
    assert callback.called_at == [0, 20, 40]


def test_after_no_answer_waits_periodic_interval_max_or_a_minute(timers, clock):
    bounded, unbounded = Callback(clock, answer=None), Callback(clock, answer=None)
    start(timers, clock, bounded, periodic_interval_max=50)
    start(timers, clock, unbounded)
    clock.advance(120)
    assert bounded.called_at == [0, 50, 100]
    assert unbounded.called_at == [0, 60, 120]


@pytest.mark.parametrize("answer", [fail, leave, "soon"])
def test_survives_whatever_its_callback_does(timers, clock, caplog, answer):
    callback = Callback(clock, lambda: answer() if callable(answer) else answer)
    start(timers, clock, callback, periodic_interval_max=30)
    clock.advance(90)
    assert callback.called_at == [0, 30, 60, 90]
    assert "its callback failed; it goes on" in caplog.text


def test_a_fixed_timer_turns_each_interval_whatever_it_answers_and_takes_arguments(timers, clock):
    calls = []

    def callback(*args, **kwargs):
        calls.append((clock.monotonic() - 1000, args, kwargs))
        return 1 if len(calls) < 2 else fail()

    timers.add_timer(7, callback, 2, "a", b="c")
    clock.settle(1)
    clock.advance(20)
    assert calls == [(at, ("a",), {"b": "c"}) for at in (2, 9, 16)]


def test_a_dynamic_timer_passes_arguments_on(timers, clock):
    calls = []
    timers.add_dynamic_timer(lambda *a, **k: calls.append((a, k)), None, 60, "a", b="c")
    clock.settle(1)
    assert calls == [(("a",), {"b": "c"})]


def test_a_poke_lets_it_ask_now_what_is_due(timers, clock):
    callback = Callback(clock, answer=1000)
    timer = start(timers, clock, callback)
    clock.advance(10)
    timer.poke()
    eventually(lambda: len(callback.called_at) == 2)
    clock.settle(1)
    clock.advance(1000)
    assert callback.called_at == [0, 10, 1010]


def test_a_poke_of_the_group_reaches_all(timers, clock):
    callbacks = [Callback(clock, answer=1000) for _ in range(3)]
    for callback in callbacks:
        start(timers, clock, callback)
    timers.poke()
    for callback in callbacks:
        eventually(lambda callback=callback: len(callback.called_at) == 2)


def test_a_poke_while_its_callback_runs_is_not_lost(timers, clock):
    inside, go_on = threading.Event(), threading.Event()
    calls = []

    def callback():
        calls.append(1)
        inside.set()
        go_on.wait(30)
        return 1000

    timer = timers.add_dynamic_timer(callback)
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
    clock.advance(3600)
    expected = [60 * n for n in range(61)]
    assert [callback.called_at for callback in sixteen] == [expected] * 16
    assert hung.running
    assert hung.lateness() == 0
    never.set()


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
    clock.advance(100)
    assert callback.called_at == [0]


def test_a_timer_stopped_in_its_initial_delay_never_turns(timers, clock):
    callback = Callback(clock)
    start(timers, clock, callback, initial_delay=60)
    timers.stop(graceful=True)
    assert callback.called_at == []


def test_a_graceful_stop_returns_when_the_calls_in_progress_have_ended(timers):
    inside, go_on, ended = threading.Event(), threading.Event(), []

    def callback():
        inside.set()
        go_on.wait(30)
        ended.append(1)

    timers.add_dynamic_timer(callback)
    eventually(inside.is_set)
    threading.Timer(0.01, go_on.set).start()
    timers.stop(graceful=True)
    assert ended == [1]


def test_waiting_for_a_hung_timer_ends_in_time_and_says_so(timers, clock):
    never = threading.Event()
    timers.add_dynamic_timer(lambda: never.wait(30))
    timers.stop()
    assert not timers.wait(0.01)
    never.set()


def test_a_timer_that_is_removed_leaves_the_others_alone(timers, clock):
    first, second = Callback(clock), Callback(clock)
    removed = start(timers, clock, first)
    start(timers, clock, second)
    timers.remove(removed)
    assert removed.wait(10)
    clock.advance(20)
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


def test_a_simulated_day_of_seventeen_tasks_takes_less_than_a_second(clock):
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
    started = time.perf_counter()
    ends_at = clock.monotonic() + DAY
    while (timer := min(timers, key=lambda timer: timer.due)).due <= ends_at:
        clock.sleep(timer.due - clock.monotonic())
        timer.turn()
    took = time.perf_counter() - started
    assert [task.ticks for task in tasks] == [1440] * 17
    assert took < 1
