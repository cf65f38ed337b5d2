# SPDX-License-Identifier: Apache-2.0
"""The service: an agent with timers, from its start to its end."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from cepheid import admin, catalogue, config, errors, host_lock, mistakes, snapshot
from cepheid.agent import Agent
from cepheid.attention import LATE_SECONDS
from cepheid.journal_keeper import JournalKeeper
from cepheid.loading import Plugin
from cepheid.notices import Notices
from cepheid.report import FILE_NAME as REPORT_NAME
from cepheid.report import Reporter
from cepheid.run import Run
from cepheid.signals import REPORT_SIGNALS, STOP_SIGNALS, SignalWatcher
from cepheid.systemd import Notifier
from cepheid.task import run_by_hand
from cepheid.task_timers import TaskTimers
from cepheid.timers import TimerGroup

if TYPE_CHECKING:
    from cepheid.status.monitor import Monitor

LOG = logging.getLogger(__name__)

#: Seconds between two looks at runs and timers.
SUPERVISION_SECONDS = 1.0

#: The part of the grace period that running tasks get; the rest is for closing.
GRACE_RATIO = 0.8


class Service:
    """Runs the tasks of an agent by their timers until a signal ends it.

    :param load_conf: reads the configuration anew, for a reload
    """

    def __init__(
        self,
        agent: Agent,
        load_conf: Callable[[], cfg.ConfigOpts],
        notifier: Notifier | None = None,
    ) -> None:
        self.agent = agent
        self.timers = TimerGroup(agent.clock)
        self._load_conf = load_conf
        self._notifier = notifier or Notifier()
        #: The files that the configuration was read from.
        self._files = config.files_in_use(agent.conf)
        self._admin: admin.AdminServer | None = None
        self._lock: int | None = None
        #: Why the newest reload was none; empty where it was one.
        self._not_reloaded = ""
        self._watchdog_fed = 0.0
        self._notices = Notices(LOG)
        self._task_timers = TaskTimers(agent, self.timers, self._notices)
        self._monitor: Monitor | None = None
        self.reporter = Reporter(agent.state_path / REPORT_NAME, self.look)

    def start(self) -> None:
        """Load the tasks and start their timers.

        :raises CepheidError: another agent runs, or the configuration cannot work
        """
        agent = self.agent
        self._lock = host_lock.acquire(agent.state_path)
        interrupted = agent.journal.mark_interrupted()
        if interrupted:
            LOG.warning(
                "Runs of an earlier agent or of commands that were interrupted: %d; see "
                "'cepheid task history'",
                interrupted,
            )
        agent.load_tasks()
        catalogue.require_usable(agent.plugins)
        _report(agent.conf, agent.plugins)
        agent.drivers.check()
        if agent.conf.status.enabled:
            from cepheid.status.monitor import Monitor  # with it comes what most agents do not need

            self._monitor = Monitor(agent, self.timers, self.look)
        agent.drivers.serve()
        self._admin = self._open_admin()
        self.timers.add_dynamic_timer(
            JournalKeeper(agent).keep,
            initial_delay=agent.random.uniform(*JournalKeeper.FIRST_SECONDS),
        )
        self._task_timers.start()
        if self._monitor is not None:
            self._monitor.start()
        LOG.info("The agent of %s runs %d tasks", agent.host, len(agent.tasks))
        self._notifier.ready(self._summary())

    def run(self, signals: SignalWatcher) -> int:
        """Supervise until a stop signal arrives, then stop; return the exit status."""
        while True:
            number = signals.wait(SUPERVISION_SECONDS)
            if number in STOP_SIGNALS:
                return self.stop()
            if number in REPORT_SIGNALS:
                LOG.info("A report of all that goes on is written to %s", self.reporter.path)
            elif number is not None:
                self.reload()
            self.supervise()

    def supervise(self) -> None:
        """Report overdue runs, and feed the watchdog while the timers turn."""
        if self.agent.runner.report_overdue():
            self._notifier.status(self._summary())
        self._notices.begin()
        self._task_timers.start_missing()
        self._look_at_pauses()
        self._feed_watchdog()
        self._notices.end(complete=True)

    def _look_at_pauses(self) -> None:
        try:
            if self.agent.pauses.look():
                self.timers.poke()
        except errors.JournalError as err:
            self._notices.say("pauses", f"It is not known what is paused: {err}", logging.ERROR)

    def _feed_watchdog(self) -> None:
        limit = self._notifier.watchdog_seconds
        if limit is None:
            return
        late = [timer.name for timer in self.timers.timers if timer.lateness() > LATE_SECONDS]
        if late:
            text = f"These timers do not turn, the watchdog is not fed: {', '.join(late)}"
            self._notices.say("timers", text, logging.ERROR)
            return
        now = self.agent.clock.monotonic()
        if now - self._watchdog_fed >= min(limit / 3, SUPERVISION_SECONDS):
            self._watchdog_fed = now
            self._notifier.alive()

    def reload(self) -> None:
        """Read the configuration and the installed plugins anew; a bad one changes nothing.

        Tasks that stay keep their schedule. One that comes takes its from the journal, so no run
        is lost or doubled.
        """
        self._notifier.reloading()
        old = self.agent.conf
        try:
            self._load(self._load_conf())
        except errors.CepheidError as err:
            self._keep(old)
            self._not_reloaded = str(err)
            LOG.error("The configuration was not reloaded, the old one stays: %s", err)
        except Exception as err:  # a plugin's entry points and options are anybody's code
            self._keep(old)
            self._not_reloaded = f"{type(err).__name__}: {err}"
            LOG.exception("The configuration was not reloaded, the old one stays")
        else:
            self._not_reloaded = ""
            config.warn_of_fixed_options(old, self.agent.conf, self.agent.drivers.kinds)
            _report(self.agent.conf, self.agent.plugins)
            self._task_timers.reload()
            LOG.info("Reloaded; the agent runs %d tasks", len(self.agent.tasks))
        self._notifier.ready(self._summary())

    def _load(self, conf: cfg.ConfigOpts) -> None:
        files = config.files_in_use(conf)
        lost = sorted(self._files - files)
        if lost:
            # It may be on its way, and what it says may keep tasks from destroying something.
            raise errors.ConfigError(
                f"{', '.join(lost)} was read before and is gone or empty now; restart the agent if "
                "it is to do without"
            )
        config.set_up_logging(conf)
        self.agent.load_tasks(conf)
        self._files = files

    def _keep(self, old: cfg.ConfigOpts) -> None:
        """Log as before, after a reload that did not succeed."""
        try:
            config.set_up_logging(old)
        except errors.ConfigError as err:
            LOG.error("%s", err)

    def stop(self) -> int:
        """Let the runs in progress end, within the grace period; return the exit status."""
        self._notifier.stopping()
        LOG.info("Stopping")
        if self._monitor is not None:
            _attempt(self._monitor.stop)
        self.timers.stop()
        if self._admin is not None:
            _attempt(self._admin.close)
        if not self._wait_for_runs(self.agent.conf.graceful_shutdown_timeout * GRACE_RATIO):
            names = ", ".join(run.task for run in self.agent.runner.active)
            LOG.error("Ending without waiting any longer for: %s", names or "a timer")
            return 1
        if self._monitor is not None:
            _attempt(self._monitor.close)
        _attempt(self.agent.close)
        if self._lock is not None:
            os.close(self._lock)
        LOG.info("Stopped")
        return 0

    def _wait_for_runs(self, seconds: float) -> bool:
        clock = self.agent.clock
        ends_at = clock.monotonic() + seconds
        ended = self.timers.wait(seconds)
        while self.agent.runner.active and clock.monotonic() < ends_at:  # an operator's run
            clock.sleep(0.1)
        return ended and not self.agent.runner.active

    def look(self) -> dict[str, Any]:
        """Return :meth:`status` from memory alone, for a native thread."""
        return snapshot.take(self.agent, self._task_timers.by_task, self.agent.pauses.seen)

    # What the admin socket offers.

    def _open_admin(self) -> admin.AdminServer | None:
        return admin.AdminServer(
            self.agent.state_path / admin.SOCKET_NAME,
            {"status": self.status, "run": self.run_task},
        )

    def status(self) -> dict[str, Any]:
        """Return what the agent is and does, see :func:`cepheid.snapshot.take`.

        ``not_ready`` is what ``/readyz`` says and the rest does not; empty where the HTTP server
        is off.
        """
        pauses = self.agent.pauses.current()
        state = snapshot.take(self.agent, self._task_timers.by_task, pauses)
        state["not_ready"] = [] if self._monitor is None else self._monitor.not_ready(state)
        return state

    def run_task(
        self,
        task: str,
        dry_run: bool | None = None,
        force: bool = False,
        start_by: float | None = None,
    ) -> dict[str, Any]:
        """Run a task once, now; return the run with its changes.

        :param force: though it is paused
        :param start_by: when who asked has gone, in monotonic seconds; nothing is run after it
        :raises CepheidError: the agent has no such task, or it is running
        """
        known = self.agent.tasks.get(task)
        if start_by is not None and self.agent.clock.monotonic() > start_by:
            raise errors.TooLate(f"{task} was not run: the request came too late.")
        if known is None:
            names = {plugin.name for plugin in self.agent.plugins}
            if task not in names:
                raise errors.NoSuchTask(task, names)
            raise errors.PluginError(
                f"The agent does not run the task {task!r}; 'cepheid task list' says why."
            )
        return run_as_dict(run_by_hand(known, dry_run, force))

    def _summary(self) -> str:
        overdue = [r.task for r in self.agent.runner.active if r.outcome == "overdue"]
        text = f"{len(self.agent.tasks)} tasks on {self.agent.host}"
        if overdue:
            text += f"; overdue: {', '.join(overdue)}"
        return f"{text}; not reloaded: {self._not_reloaded}" if self._not_reloaded else text


def run_as_dict(run: Run) -> dict[str, Any]:
    """Return a run with its changes as what JSON can hold."""
    return dataclasses.asdict(run)


def _attempt(step: Callable[[], object]) -> None:
    """Make one step of the end, whatever the one before came to."""
    try:
        step()
    except Exception:
        LOG.exception("The agent's end goes on")


def _report(conf: cfg.ConfigOpts, plugins: list[Plugin]) -> None:
    mistakes.warn(conf, plugins)
    for plugin in plugins:
        if plugin.state in ("failed", "in conflict"):
            LOG.error(
                "Task %s of %s: %s: %s", plugin.name, plugin.provider, plugin.state, plugin.reason
            )
