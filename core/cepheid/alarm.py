# SPDX-License-Identifier: Apache-2.0
"""What wakes one thread: a ``threading.Event`` for a single one that waits, which costs less."""

from __future__ import annotations

import threading

from cepheid import concurrency


class Alarm:
    """An event for one thread that waits.

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


class GreenAlarm(Alarm):
    """The same for green threads, whose locks raise and catch an exception to end a wait."""

    def __init__(self) -> None:
        self._event = concurrency.green_event()

    def is_set(self) -> bool:
        return bool(self._event.ready())

    def set(self) -> None:
        if not self._event.ready():
            self._event.send(True)

    def clear(self) -> None:
        if self._event.ready():
            self._event = concurrency.green_event()

    def wait(self, seconds: float | None = None) -> bool:
        if not self._event.wait(seconds):
            return False
        self.clear()
        return True


def new() -> Alarm:
    """Return an alarm for the threads that this process has."""
    return GreenAlarm() if concurrency.is_green() else Alarm()
