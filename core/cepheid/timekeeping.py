# SPDX-License-Identifier: Apache-2.0
"""The threads that timers turn on.

All timers of a group are in one schedule. Before a thread turns a timer it sees to it that another
waits for what is due next, so a callback that hangs keeps its own thread and no other timer. While
callbacks are quick two threads are enough, however many timers there are: they take turns, and
neither wakes the other. When more is due than one thread has turned yet, after the machine stood
still for instance, the others leave it to that one, unless it is stuck in a callback.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from typing import TYPE_CHECKING

from cepheid import alarm
from cepheid.clock import Clock

if TYPE_CHECKING:
    from cepheid.timers import Timer

LOG = logging.getLogger(__name__)

#: Threads that may wait for a timer: one, and another in case the first one's timer hangs.
MOST_WAITING = 2

#: Seconds for which a thread turns one timer after another before it lets other threads run.
IN_ONE_GO_SECONDS = 0.01

NEVER = float("inf")


class Timekeeper:
    """Turns timers when they are due, each on one thread at a time.

    :param clock: what it counts and waits by
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: (due, number, timer), a heap. An entry whose number is not its timer's is void.
        self._schedule: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count(1)
        #: The number of the last entry, by timer.
        self._entries: dict[Timer, int] = {}
        #: Timers that are to be turned once more as soon as their call has ended.
        self._hastened: set[Timer] = set()
        #: Timers that are being turned, and what is set when that has ended and they are stopped.
        self._turning: dict[Timer, threading.Event | None] = {}
        self._waiting: list[_Rest] = []
        #: The thread that took a timer last, and when it did.
        self._taker: _Rest | None = None
        self._taken_at = -NEVER
        #: How many threads there are, those that begin included.
        self.threads = 0
        self._started: list[threading.Thread] = []

    def add(self, timer: Timer) -> None:
        """Turn it when it is due, from now on."""
        with self._lock:
            self._enter(timer)
            self._see_to_the_next()

    def remove(self, timer: Timer) -> None:
        """Turn it no more; a call in progress is finished."""
        with self._lock:
            self._entries.pop(timer, None)
            self._hastened.discard(timer)
            if not self._entries:
                self._schedule.clear()
                for rest in self._waiting:
                    rest.over.set()

    def hasten(self, timer: Timer) -> None:
        """Turn it now, or once more when its present call has ended."""
        with self._lock:
            if timer not in self._entries:
                return
            if timer in self._turning:
                self._hastened.add(timer)
                return
            timer.due = self._clock.monotonic()
            self._enter(timer)
            self._see_to_the_next()

    def wait(self, timer: Timer, seconds: float | None) -> bool:
        """Wait, `seconds` at most, until a removed timer's call has ended; tell whether it has."""
        with self._lock:
            if timer not in self._turning:
                return True
            ended = self._turning[timer] = self._turning[timer] or threading.Event()
        return ended.wait(seconds)

    def join(self) -> None:
        """Wait for the threads to end, which they do when no timer is left.

        Return at once while a timer is left or its last call goes on: that one may hang.
        """
        with self._lock:
            if self._entries or self._turning:
                return
            ending = list(self._started)
        for thread in ending:
            thread.join()

    # These are called with the lock held.

    def _enter(self, timer: Timer) -> None:
        number = self._entries[timer] = next(self._numbers)
        heapq.heappush(self._schedule, (timer.due, number, timer))

    def _leave(self, rest: _Rest) -> None:
        """Note that a thread does not wait any more; put back the timer that it has turned."""
        timer, rest.timer = rest.timer, None
        if timer is None:
            if rest in self._waiting:
                self._waiting.remove(rest)
            return
        ended = self._turning.pop(timer)
        if timer in self._entries:
            if timer in self._hastened:
                self._hastened.discard(timer)
                timer.due = self._clock.monotonic()
            self._enter(timer)
        if ended is not None:
            ended.set()

    def _take_due(self, now: float) -> Timer | None:
        """Take a timer that was due by `now` out of the schedule; None where there is none."""
        schedule = self._schedule
        while schedule:
            due, number, timer = schedule[0]
            is_void = self._entries.get(timer) != number
            if not is_void and due > now:
                return None
            heapq.heappop(schedule)
            if not is_void:
                self._turning[timer] = None
                return timer
        return None

    def _left_to_the_taker_until(self) -> float:
        """Return until when the thread that took a timer last is to take what is due as well."""
        if self._taker is None or self._taker.timer is None:
            return -NEVER
        return self._taken_at + self._clock.quick_seconds

    def _see_to_the_next(self) -> None:
        """See to it that a thread wakes when the next timer is due: a waiting one, or a new one."""
        if not self._schedule:
            return
        due = max(self._schedule[0][0], self._left_to_the_taker_until())
        for rest in self._waiting:
            if rest.until <= due:
                return
        if self._waiting:
            last = max(self._waiting, key=lambda rest: rest.until)
            last.until = due
            last.over.set()
            return
        thread = threading.Thread(target=self._keep, name="timers", daemon=True)
        self.threads += 1
        try:
            thread.start()
        except RuntimeError as err:  # the system has no more threads; the present ones go on
            self.threads -= 1
            if not self.threads:
                raise  # no thread is left that would look again
            LOG.error("No thread can be started for the timers: %s", err)
            return
        self._started = [thread, *(one for one in self._started if one.is_alive())]

    def _next_unwatched(self) -> float:
        """Return when the first timer that no waiting thread will wake for is to be looked at."""
        if not self._schedule:
            return NEVER
        left_until = self._left_to_the_taker_until()
        first = max(self._schedule[0][0], left_until)
        for rest in self._waiting:
            if rest.until <= first:
                # In a heap the second smallest is one of the first one's two children.
                second = min((entry[0] for entry in self._schedule[1:3]), default=NEVER)
                return max(second, left_until)
        return first

    # These are what the threads do.

    def _keep(self) -> None:
        """Turn timers until there is nothing to wait for, or enough other threads wait.

        The thread survives whatever is raised on it: a task may leave something behind, such as an
        eventlet.Timeout, that is raised when the task has long ended.
        """
        rest = _Rest()
        while True:
            try:
                self._turn_what_is_due(rest)
            except BaseException:
                with self._lock:
                    self._leave(rest)
                LOG.exception("A thread of the timers was interrupted; it goes on")
            else:
                return

    def _turn_what_is_due(self, rest: _Rest) -> None:
        """Turn the timer that was waited for, go on while more are due, then wait again.

        With a fake clock, which wakes one thread at a time, timers that are due at the same time
        are turned one by one.
        """
        clock, thread, has_waited = self._clock, threading.current_thread(), False
        rested_at = clock.monotonic()
        while True:
            with self._lock:
                self._leave(rest)
                now = clock.monotonic()
                if has_waited:  # To wait for a difference of times may end a rounding too early.
                    now = max(now, rest.until)
                may_take = has_waited and now >= self._left_to_the_taker_until()
                timer = rest.timer = self._take_due(now if may_take else -NEVER)
                if timer is not None:
                    self._taker, self._taken_at = rest, now
                    self._see_to_the_next()
                elif not self._schedule or len(self._waiting) >= MOST_WAITING:
                    self._see_to_the_next()
                    self.threads -= 1
                    return
                else:
                    rest.over.clear()
                    rest.until = self._next_unwatched()
                    self._waiting.append(rest)
            if timer is None:
                seconds = None if rest.until == NEVER else max(0.0, rest.until - now)
                has_waited = not clock.wait(rest.over, seconds)
                rested_at = clock.monotonic()
                continue
            if now - rested_at > IN_ONE_GO_SECONDS:
                clock.sleep(0)
                rested_at = now
            thread.name = f"timer-{timer.name}"
            timer.turn()
            thread.name = "timers"


class _Rest:
    """What one thread does: it waits, or it turns a timer.

    :ivar until: when its wait ends by itself, in monotonic seconds
    :ivar over: is set to end the wait before that
    :ivar timer: the timer that it turns; None while it waits
    """

    def __init__(self) -> None:
        self.until = NEVER
        self.over = alarm.new()
        self.timer: Timer | None = None
