# SPDX-License-Identifier: Apache-2.0
"""A run that goes on, as others see it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from cepheid.run import Run

#: Seconds for the journal and the observers to take in that a run has ended.
ENDING_SECONDS = 60.0


@dataclass(eq=False)
class ActiveRun:
    """A run that goes on, as the supervisor sees it.

    :param started: in the clock's monotonic seconds
    :param frame: tells where it is
    """

    run: Run
    started: float
    time_limit: float
    frame: Callable[[], FrameType | None]
    #: When the task had ended; since then the journal and the observers are told of it.
    ended: float | None = None
    #: Whether telling them has taken too long; it was reported then.
    is_stuck: bool = False

    @property
    def outcome(self) -> str:
        """How it is while it goes on: running or overdue."""
        is_overdue = self.is_stuck or self.run.outcome == "overdue"
        return "overdue" if is_overdue else "running"

    def stack(self) -> str:
        """Return where it is, as a traceback shows it."""
        frame = self.frame()
        return "".join(traceback.format_stack(frame)) if frame else "(not known)\n"
