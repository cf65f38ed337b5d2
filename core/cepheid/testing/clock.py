# SPDX-License-Identifier: Apache-2.0
"""Time and chance for tests: a clock that is told, and randomness without chance."""

from __future__ import annotations

import datetime
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from cepheid.alarm import Alarm
from cepheid.clock import Clock

#: Real seconds after which a test that waits for a thread has failed.
PATIENCE_SECONDS = 20.0

#: What a fake clock shows at first.
NOON = datetime.datetime(2026, 11, 23, 12, 0)


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until another thread has brought `condition` about; return what it gives."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < ends_at, "it does not come about"
        time.sleep(0.001)
    return result


class FakeClock(Clock):
    """Time that passes only when it is told to, or when somebody sleeps.

    :param utc: the time of day at the start
    """

    #: A callback takes no time, or waits for it to pass.
    quick_seconds = 0.0

    def __init__(self, utc: datetime.datetime = NOON) -> None:
        self._utc = utc
        self._start = self._now = 1000.0
        self._changed = threading.Condition()
        #: Until when each thread waits, its name, which decides between those that are due at one
        #: time, and the event that wakes it earlier.
        self._resting: dict[int, tuple[float, str, threading.Event | Alarm]] = {}
        #: Called with the time that has passed, after each sleep.
        self.on_sleep: Callable[[float], None] | None = None

    def monotonic(self) -> float:
        return self._now

    def utcnow(self) -> datetime.datetime:
        return self._utc + datetime.timedelta(seconds=self._now - self._start)

    def set_utc(self, utc: datetime.datetime) -> None:
        """Set the time of day, as an operator or NTP would; monotonic time does not notice."""
        self._utc = utc - datetime.timedelta(seconds=self._now - self._start)

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        if seconds and self.on_sleep is not None:
            self.on_sleep(seconds)

    def wait(self, event: threading.Event | Alarm, seconds: float | None) -> bool:
        me = threading.get_ident()
        until = float("inf") if seconds is None else self._now + seconds
        with self._changed:
            self._resting[me] = (until, threading.current_thread().name, event)
            self._changed.notify_all()
            while me in self._resting and not event.is_set():
                self._changed.wait(0.01)  # an event is set without a notice
            self._resting.pop(me, None)
        return event.wait(0)

    def settle(self, threads: int) -> None:
        """Wait until this many threads wait for the time."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._at_rest() >= threads, PATIENCE_SECONDS), (
                f"{self._at_rest()} of {threads} threads wait"
            )

    def seconds_to_next_wake(self) -> float:
        """Return the seconds until the first of the threads that wait wakes."""
        with self._changed:
            waits = (until for until, _, _ in self._resting.values())
            return min(waits, default=float("inf")) - self._now

    def settle_all(self, prefix: str, threads: Callable[[], int]) -> None:
        """Wake whose time has come, until as many wait for a later one whose names begin so."""

        def rest() -> bool:
            names = [name for _, name, event in self._resting.values() if not event.is_set()]
            return sum(name.startswith(prefix) for name in names) >= threads()

        while True:
            with self._changed:
                assert self._eventually(rest), f"not all {prefix} threads wait"
            if self.seconds_to_next_wake() > 0:
                return
            self.advance(0)

    def jump(self, seconds: float) -> None:
        """Let time pass at once; the threads whose time has come by then wake."""
        with self._changed:
            self._now += seconds
            for thread in [t for t, rest in self._resting.items() if rest[0] <= self._now]:
                del self._resting[thread]
            self._changed.notify_all()

    def advance(self, seconds: float) -> None:
        """Let time pass; every thread that waits wakes at its time, one after another.

        A woken thread must wait again, or end. One that is to hang does so in
        ``wait(event, None)``.
        """
        until = self._now + seconds
        with self._changed:
            while True:
                waiting = self._at_rest()
                thread = min(self._resting, key=lambda one: self._resting[one][:2], default=None)
                if thread is None or self._resting[thread][0] > until:
                    break
                self._now = max(self._now, self._resting.pop(thread)[0])
                self._changed.notify_all()
                assert self._wait_for_rest(thread, waiting), "a woken thread does not wait again"
            self._now = max(self._now, until)

    def _wait_for_rest(self, thread: int, threads: int) -> bool:
        def rests() -> bool:
            if all(one.ident != thread for one in threading.enumerate()):
                return self._at_rest() >= threads - 1
            return thread in self._resting and self._at_rest() >= threads

        return self._eventually(rests)

    def _eventually(self, condition: Callable[[], bool]) -> bool:
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > ends_at:
                return False
            self._changed.wait(0.01)  # a thread that ends gives no notice
        return True

    def _at_rest(self) -> int:
        """Return how many threads wait and are not about to wake."""
        return sum(not event.is_set() for _, _, event in self._resting.values())


class LowestRandom(random.Random):
    """Randomness without chance: always the lowest value."""

    def random(self) -> float:
        return 0.0
