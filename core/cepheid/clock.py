# SPDX-License-Identifier: Apache-2.0
"""Time, injected: everything in Cepheid that asks for the time or waits asks one of these."""

from __future__ import annotations

import datetime
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cepheid.alarm import Alarm


class Clock:
    """The real clock: monotonic seconds for scheduling, UTC for records."""

    #: Seconds that a timer's quick callback takes at most. One that takes longer may be stuck.
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
