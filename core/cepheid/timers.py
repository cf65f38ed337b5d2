# SPDX-License-Identifier: Apache-2.0
"""Timers: when a callback is called again. One thread each, so that none waits for another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from cepheid.clock import Clock
from cepheid.periodic_task import DEFAULT_INTERVAL

LOG = logging.getLogger(__name__)


class Timer:
    """Calls its callback, waits, and calls it again, until it is stopped.

    How long it waits is the callback's own answer in seconds, at most `interval_max`, or a fixed
    `interval`. It survives any exception of the callback.
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
    ) -> None:
        self.name = name or getattr(callback, "__qualname__", repr(callback))
        self.callback = callback
        self.initial_delay = initial_delay or 0.0
        self.interval = interval
        self.interval_max = interval_max
        self.clock = clock or Clock()
        #: When it turns next, in the clock's monotonic seconds.
        self.due = self.clock.monotonic() + self.initial_delay
        #: Whether its callback is being called now.
        self.running = False
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"timer-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin with the initial delay, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Turn no more; a call in progress is finished."""
        self._stopped = True
        self._wake.set()

    def poke(self) -> None:
        """Call the callback now; what is due may have changed."""
        self._wake.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until a stopped timer has ended, `seconds` at most; tell whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def lateness(self) -> float:
        """Return the seconds by which its next turn is overdue; 0 while its callback runs."""
        return 0.0 if self.running else max(0.0, self.clock.monotonic() - self.due)

    def turn(self) -> float:
        """Call the callback once; return the seconds to wait after it."""
        self.running = True
        try:
            delay = self._delay_after(self.callback())
        except (Exception, SystemExit):  # on this thread an exit would end the timer, silently
            LOG.exception("Timer %s: its callback failed; it goes on", self.name)
            delay = self._delay_after(None)
        self.due = self.clock.monotonic() + delay
        self.running = False
        return delay

    def _delay_after(self, answer: float | None) -> float:
        if self.interval is not None:
            return self.interval
        if answer is None:
            return DEFAULT_INTERVAL if self.interval_max is None else self.interval_max
        if self.interval_max is not None:
            answer = min(answer, self.interval_max)
        return max(answer, 0.0)

    def _loop(self) -> None:
        delay = self.initial_delay
        while True:
            if delay > 0:
                self.clock.wait(self._wake, delay)
            else:
                self.clock.sleep(0)
            self._wake.clear()
            if self._stopped:
                return
            delay = self.turn()


class TimerGroup:
    """The timers of one service.

    :param clock: what they count and wait by
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.timers: list[Timer] = []

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
        """Call `callback` with `interval` seconds between calls."""
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
        return True

    def _add(self, callback: Callable[[], float | None], **options: Any) -> Timer:
        timer = Timer(callback, clock=self.clock, **options)
        self.timers.append(timer)
        timer.start()
        return timer


def _bound(callback: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return lambda: callback(*args, **kwargs)


def _name(callback: Callable[..., Any]) -> str:
    owner = getattr(callback, "__self__", None)
    return str(getattr(owner, "name", None) or getattr(callback, "__qualname__", callback))
