# SPDX-License-Identifier: Apache-2.0
"""The threads that timers turn on.

All timers of a group are in one schedule. Before a thread turns a timer it sees to it that another
waits for what is due next, so a callback that hangs keeps its own thread and no other timer. While
callbacks are quick two threads are enough, however many timers there are: they take turns, and
neither wakes the other.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from typing import TYPE_CHECKING

from cepheid.clock import Alarm, Clock

if TYPE_CHECKING:
    from cepheid.timers import Timer

LOG = logging.getLogger(__name__)

#: Threads that may wait for a timer. One that turns may hang; then the other takes its place.
MOST_WAITING = 2

#: Seconds of turning timers without a pause after which others get the processor.
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
        """Wait until a removed timer is not being turned, `seconds` at most; tell whether so."""
        with self._lock:
            if timer not in self._turning:
                return True
            ended = self._turning[timer] = self._turning[timer] or threading.Event()
        return ended.wait(seconds)

    def join(self) -> None:
        """Wait for the threads, which end where no timers are left; not for those that turn."""
        with self._lock:
            if self._entries or self._turning:
                return
            ending = list(self._started)
        for thread in ending:
            thread.join()

    # With the lock held.

    def _enter(self, timer: Timer) -> None:
        number = self._entries[timer] = next(self._numbers)
        heapq.heappush(self._schedule, (timer.due, number, timer))

    def _leave(self, rest: _Rest) -> None:
        """End a thread's waiting, or take back what it has turned."""
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
        """Return a timer whose time has come, if there is one, as taken by this thread."""
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

    def _see_to_the_next(self) -> None:
        """Have a thread that wakes when the next timer is due."""
        if not self._schedule:
            return
        due = self._schedule[0][0]
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
        except RuntimeError as err:  # the system has no more; those that there are go on
            self.threads -= 1
            if not self.threads:
                raise  # nobody is left who would look again
            LOG.error("No thread can be started for the timers: %s", err)
            return
        self._started = [thread, *(one for one in self._started if one.is_alive())]

    def _next_unwatched(self) -> float:
        """Return when the first timer is due that no waiting thread wakes for."""
        if not self._schedule:
            return NEVER
        first = self._schedule[0][0]
        for rest in self._waiting:
            if rest.until <= first:
                # In a heap the second smallest is one of the first one's two children.
                return min((entry[0] for entry in self._schedule[1:3]), default=NEVER)
        return first

    # The threads.

    def _keep(self) -> None:
        """Turn timers until there is nothing to wait for, or enough others wait.

        Whatever is raised on this thread it goes on: a task may have left behind what is raised
        later, such as an eventlet.Timeout.
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
        """Turn what it has waited for, go on while more is due, then wait again.

        Where the clock is a fake that wakes one thread at a time, timers that are due at one time
        turn one by one.
        """
        clock, thread, has_waited = self._clock, threading.current_thread(), False
        rested_at = clock.monotonic()
        while True:
            with self._lock:
                self._leave(rest)
                now = clock.monotonic()
                timer = rest.timer = self._take_due(now if has_waited else -NEVER)
                if timer is not None:
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
    """A thread's waiting, and what it turns when it does not wait.

    :ivar until: when it ends by itself
    :ivar over: ends it before that
    :ivar timer: what the thread turns
    """

    def __init__(self) -> None:
        self.until = NEVER
        self.over = Alarm()
        self.timer: Timer | None = None
