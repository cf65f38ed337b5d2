# SPDX-License-Identifier: Apache-2.0
"""Time, injected: everything in Cepheid that asks for the time or waits asks one of these."""

from __future__ import annotations

import datetime
import threading
import time


class Alarm:
    """What wakes one thread: a ``threading.Event`` for a single one that waits, which costs less.

    A wait that it ends clears it. Only one thread at a time may set it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return not self._lock.locked()

    def set(self) -> None:
        """Wake who waits, or who will."""
        if self._lock.locked():
            self._lock.release()

    def clear(self) -> None:
        """Wake nobody any more."""
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, `seconds` at most; tell whether it was."""
        return self._lock.acquire(timeout=-1 if seconds is None else seconds)


class Clock:
    """The real clock: monotonic seconds for scheduling, UTC for records."""

    #: Seconds that a quick callback takes at most. One that takes longer may be stuck.
    quick_seconds = 0.001

    def monotonic(self) -> float:
        """Return seconds that never go back and do not know of the time of day."""
        return time.monotonic()

    def utcnow(self) -> datetime.datetime:
        """Return the time in UTC, naive, as all tables and records hold it."""
        return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        time.sleep(seconds)

    def wait(self, event: threading.Event | Alarm, seconds: float | None) -> bool:
        """Wait until `event` is set, `seconds` at most; tell whether it is."""
        return event.wait(seconds)
