# SPDX-License-Identifier: Apache-2.0
"""Timers: when a callback is called again.

A group keeps its timers in one schedule and has a few threads that take from it what is due
(:mod:`cepheid.timekeeping`), so that no callback waits for another.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from cepheid.clock import Clock
from cepheid.periodic_task import DEFAULT_INTERVAL
from cepheid.timekeeping import Timekeeper

LOG = logging.getLogger(__name__)


class Timer:
    """Calls its callback again and again, until it is stopped.

    A timer with an `interval` calls it every so many seconds, counted from when it was due first;
    turns that fell into a long call are left out. A dynamic timer, without one, waits as long as
    the callback's answer says, in seconds from the end of the call, but at most `interval_max`.
    Either goes on whatever the callback raises.

    :param interval_max: also the wait after a callback that answered None
    """

    def __init__(
        self,
        callback: Callable[[], float | None],
        *,
        name: str = "",
        initial_delay: float | None = None,
        interval: float | None = None,
        interval_max: float | None = None,
        clock: Clock | None = None,
        keeper: Timekeeper | None = None,
    ) -> None:
        self.name = name or getattr(callback, "__qualname__", repr(callback))
        self.callback = callback
        self.interval = interval
        self.interval_max = interval_max
        self.clock = clock or Clock()
        #: When it turns next, in the clock's monotonic seconds.
        self.due = self.clock.monotonic() + (initial_delay or 0.0)
        #: Whether its callback is being called now.
        self.running = False
        self._keeper = keeper or Timekeeper(self.clock)

    def start(self) -> None:
        """Begin with the initial delay."""
        self._keeper.add(self)

    def stop(self) -> None:
        """Turn no more; a call in progress is finished."""
        self._keeper.remove(self)

    def poke(self) -> None:
        """Call the callback now; what is due may have changed."""
        self._keeper.hasten(self)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until a stopped timer has ended, `seconds` at most; tell whether it has."""
        return self._keeper.wait(self, seconds)

    def lateness(self) -> float:
        """Return the seconds by which its next turn is overdue; 0 while its callback runs."""
        return 0.0 if self.running else max(0.0, self.clock.monotonic() - self.due)

    def turn(self) -> None:
        """Call the callback once, and find out when it is due next."""
        self.running = True
        due: float | None = None
        try:
            due = self._due_after(self.callback())
        except BaseException:  # an exit too would end nothing but this thread, silently
            LOG.exception("Timer %s: its callback failed; it goes on", self.name)
        finally:
            self.due = self._due_after(None) if due is None else due
            self.running = False

    def _due_after(self, answer: float | None) -> float:
        now = self.clock.monotonic()
        if self.interval is not None:
            if self.interval <= 0:
                return now
            return self.due + self.interval * (1 + (now - self.due) // self.interval)
        if answer is None:
            return now + (DEFAULT_INTERVAL if self.interval_max is None else self.interval_max)
        if self.interval_max is not None:
            answer = min(answer, self.interval_max)
        return now + max(answer, 0.0)


class TimerGroup:
    """The timers of one service.

    :param clock: what they count and wait by
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.timers: list[Timer] = []
        self._keeper = Timekeeper(self.clock)

    @property
    def threads(self) -> int:
        """How many threads it has now."""
        return self._keeper.threads

    def add_dynamic_timer(
        self,
        callback: Callable[..., float | None],
        initial_delay: float | None = None,
        periodic_interval_max: float | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Timer:
        """Call `callback` for as long as its answers say, in seconds.

        :param initial_delay: seconds before the first call
        :param periodic_interval_max: the longest wait; also the wait after no answer
        """
        return self._add(
            _bound(callback, args, kwargs),
            name=_name(callback),
            initial_delay=initial_delay,
            interval_max=periodic_interval_max,
        )

    def add_timer(
        self,
        interval: float,
        callback: Callable[..., Any],
        initial_delay: float | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Timer:
        """Call `callback` every `interval` seconds."""
        return self._add(
            _bound(callback, args, kwargs),
            name=_name(callback),
            initial_delay=initial_delay,
            interval=interval,
        )

    def remove(self, timer: Timer) -> None:
        """Stop one timer and forget it; a call in progress is finished."""
        timer.stop()
        self.timers.remove(timer)

    def poke(self) -> None:
        """Let every timer ask now what is due."""
        for timer in list(self.timers):
            timer.poke()

    def stop(self, graceful: bool = False) -> None:
        """Stop all timers.

        :param graceful: return only when the calls in progress have ended
        """
        for timer in self.timers:
            timer.stop()
        if graceful:
            self.wait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all timers have ended, `seconds` at most; tell whether they have."""
        until = None if seconds is None else self.clock.monotonic() + seconds
        for timer in list(self.timers):
            left = None if until is None else max(0.0, until - self.clock.monotonic())
            if not timer.wait(left):
                return False
        self._keeper.join()
        return True

    def _add(self, callback: Callable[[], float | None], **options: Any) -> Timer:
        timer = Timer(callback, clock=self.clock, keeper=self._keeper, **options)
        timer.start()
        self.timers.append(timer)
        return timer


def _bound(callback: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return functools.partial(callback, *args, **kwargs) if args or kwargs else callback


def _name(callback: Callable[..., Any]) -> str:
    owner = getattr(callback, "__self__", None)
    return str(getattr(owner, "name", None) or getattr(callback, "__qualname__", callback))
