# SPDX-License-Identifier: Apache-2.0
"""The runner: what surrounds each run of a task, so that tasks need not care."""

from __future__ import annotations

import datetime
import functools
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cepheid import concurrency, errors, task_locks
from cepheid.active_run import ENDING_SECONDS, ActiveRun
from cepheid.clock import Clock
from cepheid.journal import Journal
from cepheid.notices import Notices
from cepheid.run import Run, RunContext, describe, plugin_of

if TYPE_CHECKING:
    from cepheid.observers import Observer
    from cepheid.task import Task

LOG = logging.getLogger(__name__)


class Runner:
    """Runs tasks: locks, times, records and reports each run, so that tasks need not.

    :param lock_path: the directory of the files that keep a task from overlapping itself
    :param observers: told of every run
    """

    def __init__(
        self,
        journal: Journal,
        lock_path: str | Path,
        clock: Clock,
        observers: Sequence[Observer] = (),
        dry_run: Callable[[], bool] = lambda: False,
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.observers = observers
        self._lock_path = Path(lock_path)
        self._dry_run = dry_run
        self._active: dict[str, ActiveRun] = {}
        self._notices: dict[str, Notices] = {}
        #: Runs that have ended, which the journal could not take in.
        self._unrecorded: set[Run] = set()

    @property
    def active(self) -> list[Run]:
        """The runs that go on now."""
        return [active.run for active in self.under_way]

    @property
    def under_way(self) -> list[ActiveRun]:
        """The runs that go on now, with what the supervisor knows of them."""
        return list(self._active.values())

    def is_running(self, task_name: str) -> bool:
        """Tell whether a run of a task, of its main method or another, goes on in this process."""
        return task_name in [plugin_of(name) for name in list(self._active)]

    def known_requests(self, request_ids: Iterable[str]) -> set[str]:
        """Return those requests whose runs are on record here."""
        return set(self.journal.tasks_of_requests(request_ids))

    def ended_requests(self, request_ids: Iterable[str]) -> set[str]:
        """Return those requests whose runs are on record and go on no more, here or elsewhere."""
        ended = set()
        for request_id, name in self.journal.tasks_of_requests(request_ids).items():
            try:
                with self._exclusively(name):
                    ended.add(request_id)
            except errors.Busy:
                if self._is_another(name, request_id):
                    ended.add(request_id)
        return ended

    def _is_another(self, name: str, request_id: str) -> bool:
        """Tell whether what runs as `name` in this process is not the run of this request."""
        active = self._active.get(name)
        return active is not None and active.run.request_id != request_id

    def is_dry(self, task: Task, dry_run: bool | None) -> bool:
        """Tell whether a run of `task` is to plan only; None means as configured."""
        if dry_run is not None:
            return dry_run
        return bool(self._dry_run() or task.conf.dry_run)

    def run(
        self,
        task: Task,
        name: str,
        function: Callable[..., Any],
        *,
        trigger: str = "timer",
        dry_run: bool | None = None,
        lateness_seconds: float = 0.0,
        scheduled_at: datetime.datetime | None = None,
    ) -> Run:
        """Run `function` of `task` once, as `name`; return the record.

        An error of the task is logged and recorded, not raised; an exit is recorded and raised.

        :param dry_run: plan only; None means as configured
        :param scheduled_at: what the journal is to remember as the task's last run; it does so
            before the task is called, so that a task that kills the agent is not run at once again
        :raises Busy: it is running already, in this process or in another
        :raises CepheidError: the journal or the lock cannot be written, so nothing was run
        """
        run = Run(
            task=name,
            distribution=task.distribution,
            trigger=trigger,
            dry_run=self.is_dry(task, dry_run),
            started_at=self.clock.utcnow(),
            lateness_seconds=lateness_seconds,
        )
        try:
            return self.execute(
                run,
                functools.partial(function, task),
                max_changes=task.conf.max_changes,
                time_limit=task.conf.time_limit,
                scheduled_at=scheduled_at,
            )
        finally:
            task.take_options()

    def execute(
        self,
        run: Run,
        function: Callable[[RunContext], Any],
        *,
        max_changes: int = 0,
        time_limit: float = 0,
        scheduled_at: datetime.datetime | None = None,
    ) -> Run:
        """Carry out `run`: call `function` with its context; return the run, ended.

        Tasks come here through :meth:`run`; an operator's command that changes things may too.

        :raises Busy: one of that name is running already, in this process or in another
        :raises CepheidError: the journal or the lock cannot be written, so nothing was run
        """
        with self._exclusively(run.task):
            notices = self._notices.setdefault(
                run.task, Notices(logging.getLogger(f"cepheid.{run.task}"))
            )
            context = RunContext(run, self.journal, notices, max_changes)
            self.journal.start_run(run, scheduled_at)
            started = self.clock.monotonic()
            active = ActiveRun(run, started, time_limit, concurrency.frame_getter())
            self._active[run.task] = active
            notices.begin()
            failure: BaseException | None = None
            try:
                self._tell("run_started", run)
                function(context)
            except (SystemExit, KeyboardInterrupt) as err:
                run.error = describe(err)
                raise
            except BaseException as err:  # noqa: BLE001 - recorded, and logged below
                run.error = describe(err)
                failure = err
            finally:
                try:
                    active.ended = self.clock.monotonic()
                    run.duration_seconds = active.ended - started
                    run.outcome = _run_outcome(run, time_limit)
                    if failure is not None:
                        # Not while it is handled: oslo.log would end the line with it once more.
                        self._log_failure(notices, run, failure)
                    notices.end(complete=not run.error)
                    self._end(run)
                finally:
                    failure = None  # it holds this frame
                    del self._active[run.task]
            return run

    def say_exit(self, task: str, message: str, err: SystemExit) -> None:
        """Log once that a task's runs end in an exit, until one does not."""
        text = "".join(traceback.format_exception(err)).rstrip()
        self._notices[task].say("failure", f"{message}\n{text}", logging.ERROR)

    def report_overdue(self) -> list[Run]:
        """Report the runs that have passed their time limit since the last time."""
        overdue = []
        for active in self.under_way:
            if active.ended is not None:
                self._report_stuck(active, active.ended)
                continue
            elapsed = self.clock.monotonic() - active.started
            run = active.run
            if run.outcome != "running" or not 0 < active.time_limit < elapsed:
                continue
            run.outcome = "overdue"
            LOG.error(
                "%s has run for %.0f seconds, its time_limit is %d; it is not started again "
                "until it ends. It is here:\n%s",
                run.task,
                elapsed,
                active.time_limit,
                active.stack(),
            )
            try:
                self.journal.set_outcome(run)
            except errors.JournalError as err:
                LOG.error("%s", err)
            self._tell("run_overdue", run)
            overdue.append(run)
        return overdue

    def _report_stuck(self, active: ActiveRun, ended: float) -> None:
        """Report, once, that telling of the end of a run does not end."""
        elapsed = self.clock.monotonic() - ended
        if active.is_stuck or elapsed < ENDING_SECONDS:
            return
        active.is_stuck = True
        LOG.error(
            "%s ended (%s) %.0f seconds ago, but the journal or an observer has not taken it in; "
            "it is not started again until then. It is here:\n%s",
            active.run.task,
            active.run.outcome,
            elapsed,
            active.stack(),
        )

    def _end(self, run: Run) -> None:
        try:
            self.journal.end_run(run)
            for earlier in list(self._unrecorded):
                self.journal.end_run(earlier)
                self._unrecorded.discard(earlier)
        except errors.JournalError as err:
            self._unrecorded.add(run)
            LOG.error("%s ended (%s), but: %s", run.task, run.outcome, err)
        self._tell("run_ended", run)

    def _log_failure(self, notices: Notices, run: Run, err: BaseException) -> None:
        message = f"{run.task} failed: {run.error}"
        if isinstance(err, errors.CepheidError):
            notices.say("failure", message, logging.ERROR)
        else:
            text = "".join(traceback.format_exception(err)).rstrip()
            notices.say("failure", f"{message}\n{text}", logging.ERROR)

    def _tell(self, event: str, run: Run) -> None:
        for observer in self.observers:
            try:
                getattr(observer, event)(run)
            except KeyboardInterrupt:
                raise
            except BaseException:
                LOG.exception("The observer %s failed; the run is not affected", observer)

    @contextmanager
    def _exclusively(self, name: str) -> Iterator[None]:
        """Hold the task's lock, in this process and by a file in all others."""
        if name in self._active:
            raise errors.Busy(f"{name} is running already; wait until it has ended.")
        with task_locks.hold(self._lock_path, name):
            yield


def _run_outcome(run: Run, time_limit: float) -> str:
    if run.error:
        return "failed"
    if run.outcome == "overdue" or 0 < time_limit < (run.duration_seconds or 0.0):
        return "overdue"
    if run.counters.get("refused"):
        return "limited"
    if run.counters.get("failed") or run.counters.get("skipped"):
        return "partial"
    return "ok"
