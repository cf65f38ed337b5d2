# SPDX-License-Identifier: Apache-2.0
"""Observers are told of every run: the log here, metrics or a vendor's own elsewhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cepheid import wording

if TYPE_CHECKING:
    from cepheid.run import Run

LOG = logging.getLogger(__name__)

NAMESPACE = "cepheid.observers"


class Observer:
    """Told of runs, on the thread that runs the task; its errors are logged and go no further."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def run_started(self, run: Run) -> None:
        """`run` begins."""

    def run_overdue(self, run: Run) -> None:
        """`run` has passed its time limit and goes on."""

    def run_ended(self, run: Run) -> None:
        """`run` has ended; its outcome and changes are set."""


class LogObserver(Observer):
    """Logs a run that changed something at info, any other at debug."""

    def run_ended(self, run: Run) -> None:
        done = run.counters.get("done", 0) + run.counters.get("planned", 0)
        counters = wording.counters(run.counters)
        LOG.log(
            logging.INFO if done else logging.DEBUG,
            "%s%s: %s in %.3f s%s",
            run.task,
            " (dry run)" if run.dry_run else "",
            run.outcome,
            run.duration_seconds or 0.0,
            f" ({counters})" if counters else "",
        )
