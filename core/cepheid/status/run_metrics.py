# SPDX-License-Identifier: Apache-2.0
"""What runs came to: an observer that counts them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cepheid import concurrency
from cepheid.metric import Histogram, Labels, Metric
from cepheid.observers import Observer
from cepheid.run import Run

OUTCOMES = ("ok", "partial", "limited", "overdue", "failed")

#: Of a second's part to an hour: a pass over a host's database takes milliseconds, one over its
#: images may take an hour.
DURATION_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
LATENESS_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)


class RunMetrics(Observer):
    """Counts the runs that end in this agent.

    A task that the agent runs has every series from the start on, so that the first failure is an
    increase too.
    """

    def __init__(self, agent: Any) -> None:
        super().__init__(agent)
        # Taken by the threads that run tasks, and by the native one that is scraped; held for
        # moments, in which no green thread is let on.
        self._lock = concurrency.original("threading").Lock()
        self._runs: Counter[Labels] = Counter()
        self._changes: Counter[Labels] = Counter()
        self._refused: Counter[Labels] = Counter()
        self._skipped: Counter[Labels] = Counter()
        self._durations: dict[Labels, Histogram] = {}
        self._lateness: dict[Labels, Histogram] = {}
        self._last: dict[Labels, float] = {}
        self._succeeded: dict[Labels, float] = {}
        self._failed: dict[Labels, bool] = {}

    def remember(self, newest: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the newest run of each task from the journal, for the time until the next.

        :param newest: that has ended, by task, as
            :meth:`cepheid.journal.reader.Reader.newest_runs` gives them
        """
        for task, run in newest.items():
            started = _unix_seconds(datetime.datetime.fromisoformat(run["started_at"]))
            self._last[task,] = started
            self._failed[task,] = run["outcome"] == "failed"
            if run["outcome"] == "ok" and run["duration_seconds"] is not None:
                self._succeeded[task,] = started + run["duration_seconds"]

    def expect(self, tasks: Iterable[str]) -> None:
        """Let these tasks have all their series."""
        with self._lock:
            for task in tasks:
                self._expect(task)

    def _expect(self, task: str) -> None:
        if (task,) in self._durations:
            return
        for outcome in OUTCOMES:
            self._runs[task, outcome] += 0
        self._refused[task,] += 0
        self._skipped[task,] += 0
        self._durations[task,] = Histogram.empty(DURATION_BOUNDS)
        self._lateness[task,] = Histogram.empty(LATENESS_BOUNDS)

    def run_ended(self, run: Run) -> None:
        seconds = run.duration_seconds or 0.0
        started = _unix_seconds(run.started_at)
        task = (run.task,)
        with self._lock:
            self._expect(run.task)
            self._runs[run.task, run.outcome] += 1
            self._refused[task] += run.counters.get("refused", 0)
            self._skipped[task] += run.counters.get("skipped", 0)
            self._durations[task] = self._durations[task].with_one(seconds)
            if run.trigger == "timer":
                self._lateness[task] = self._lateness[task].with_one(run.lateness_seconds)
            for change in run.changes:
                self._changes[run.task, change.kind, change.outcome] += 1
            self._last[task] = started
            self._failed[task] = run.outcome == "failed"
            if run.outcome == "ok":
                self._succeeded[task] = started + seconds

    def metrics(self) -> list[Metric]:
        """Return what was counted."""
        with self._lock:
            return [
                Metric(
                    "cepheid_runs_total", "Runs that have ended.",
                    dict(self._runs), ("task", "outcome"), "counter",
                ),
                Metric(
                    "cepheid_run_duration_seconds", "How long runs took.",
                    dict(self._durations), ("task",), "histogram",
                ),
                Metric(
                    "cepheid_run_lateness_seconds",
                    "How much later than they were due runs of the timers began.",
                    dict(self._lateness), ("task",), "histogram",
                ),
                Metric(
                    "cepheid_run_last_start_timestamp_seconds",
                    "When the newest run that has ended began.", dict(self._last), ("task",),
                ),
                Metric(
                    "cepheid_run_last_failed",
                    "Whether the newest run that has ended failed.", dict(self._failed), ("task",),
                ),
                Metric(
                    "cepheid_run_last_success_timestamp_seconds",
                    "When the newest run with the outcome ok ended.",
                    dict(self._succeeded), ("task",),
                ),
                Metric(
                    "cepheid_changes_total", "Changes, by what came of them.",
                    dict(self._changes), ("task", "kind", "outcome"), "counter",
                ),
                Metric(
                    "cepheid_changes_refused_total",
                    "Changes that were refused because a run had reached max_changes.",
                    dict(self._refused), ("task",), "counter",
                ),
                Metric(
                    "cepheid_items_skipped_total",
                    "Items that runs left out because they could not be read.",
                    dict(self._skipped), ("task",), "counter",
                ),
            ]  # fmt: skip


def _unix_seconds(at: datetime.datetime) -> float:
    return at.replace(tzinfo=datetime.UTC).timestamp()
