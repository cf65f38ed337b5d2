# SPDX-License-Identifier: Apache-2.0
"""The base of a task plugin."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from oslo_config import cfg

from cepheid import errors, pausing, periodic_task, rehearsal, task_options
from cepheid.metric import Metric
from cepheid.notices import Notices

if TYPE_CHECKING:
    from cepheid.agent import Agent
    from cepheid.explanation import Subject, Verdict

LOG = logging.getLogger(__name__)

#: Seconds until a task that found itself running elsewhere asks again.
BUSY_RETRY_SECONDS = 5.0

#: The same for one that was not run, since the journal or its lock cannot be written. A journal
#: that another process has locked keeps each attempt waiting, and with it all green threads.
REFUSED_RETRY_SECONDS = 60.0


class Task(periodic_task.PeriodicTasks):
    """A task that comes as a plugin.

    A subclass has a docstring, whose first line ``cepheid task list`` shows, and a method
    ``def name(self, context)`` decorated with :func:`cepheid.periodic_task.periodic_task`, named
    as the plugin's entry point. Its options are in the group of that name. Further decorated
    methods are allowed; they share the task's timer and keep their decorators' spacings.

    :param agent: gives the task its configuration, drivers and clock
    """

    #: Options of the task's own, registered in its group.
    options: ClassVar[Sequence[cfg.Opt]] = ()
    #: Options that it shares with others, as (group, options).
    shared_options: ClassVar[Sequence[tuple[str, Sequence[cfg.Opt]]]] = ()
    #: The kinds of drivers that the task asks its agent for.
    drivers: ClassVar[Sequence[str]] = ()
    #: Files that it keeps for itself outside of state_path, as names or patterns; ``cepheid task
    #: check`` takes no others for its book-keeping.
    own_files: ClassVar[Sequence[str]] = ()
    #: The name of the spacing in nova.conf's [DEFAULT], or (group, name) elsewhere in it.
    nova_spacing: ClassVar[str | tuple[str, str] | None] = None
    #: Defaults of two common options.
    max_changes: ClassVar[int] = 0
    time_limit: ClassVar[int] = 0
    #: What it looks at, in words, by the kind of a subject (``instance``, ``file``). With it the
    #: task explains itself: its pass is rehearsed, in which it must read only.
    explains: ClassVar[Mapping[str, str]] = {}
    #: The distribution that provides the task; set when it is loaded.
    distribution: str = ""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.name = self.task_name()
        self._retry_seconds: float | None = None
        self._begun_now: set[str] = set()
        self._held = pausing.HeldRuns(agent)
        self._notices = Notices(LOG)
        super().__init__(agent.conf)
        # take_options() waits for a run of this name to end. One that is under way now is that of
        # the object which this one replaces, so this one takes its options at once.
        self.conf = agent.conf[self.name]
        self.configure(agent.conf)
        for name, function in type(self)._periodic_declared.items():
            if name not in self._periodic_spacing and name == self.name:
                # Its decorator switches it off; the operator's options decide instead.
                self._periodic_tasks.append((name, function))
                self._periodic_spacing[name] = periodic_task.DEFAULT_INTERVAL
                self._start_counting(name, function)

    def configure(self, conf: cfg.ConfigOpts) -> None:
        """Take the values from `conf` from now on; called again at a reload."""
        self._periodic_conf = conf
        self.take_options()

    def take_options(self) -> None:
        """Take the newest options, unless a run is under way: it keeps those it began with."""
        if not self.agent.runner.is_running(self.name):
            self.conf = self._periodic_conf[self.name]

    @classmethod
    def task_name(cls) -> str:
        """Return the plugin's name: that of its first decorated method.

        :raises PluginError: it has none
        """
        for name in cls._periodic_declared:
            return name
        raise errors.PluginError(
            f"{cls.__module__}.{cls.__qualname__} has no method decorated with periodic_task."
        )

    @classmethod
    def all_options(cls) -> list[cfg.Opt]:
        """Return the options of the task's group: the common ones, then its own.

        An own option takes the place of the common one of its name.
        """
        own = {option.name for option in cls.options}
        common = [option for option in task_options.common(cls) if option.name not in own]
        return [*common, *cls.options]

    @classmethod
    def list_opts(cls) -> list[tuple[str, list[cfg.Opt]]]:
        """List the task's options, with their group, for oslo.config's generator.

        An entry point of ``oslo.config.opts`` that names it puts them into a sample configuration.
        """
        return [(cls.task_name(), cls.all_options())]

    def periodic_tasks(self, context: Any = None, raise_on_error: bool = False) -> float:
        """Run what is due; return the seconds until something is due again, 60 at most."""
        self._retry_seconds = None
        self._notices.begin()
        self.run_periodic_tasks(context, raise_on_error)
        self._notices.end(complete=True)
        if self._retry_seconds is not None:
            return self._retry_seconds
        return self.seconds_to_next_run(at_most=periodic_task.DEFAULT_INTERVAL)

    def metrics(self) -> Iterable[Metric]:
        """Return what is to be told of the task beside its runs; see :mod:`cepheid.metric`."""
        return ()

    @property
    def spacing(self) -> float | None:
        """Seconds between two runs; None while it is switched off."""
        return self._current_spacing(self.name)

    def seconds_to_next_run(self, at_most: float = float("inf")) -> float:
        """Return the seconds until the earliest of the task's methods is due."""
        waits = [at_most]
        for name, function in self._periodic_tasks:
            spacing = self._current_spacing(name)
            if spacing is not None and not self._is_left_to_others(function):
                last_run = self._periodic_last_run[name]
                due = self._now() if last_run is None else last_run + spacing
                waits.append(max(0.0, due - self._now()))
        return min(waits)

    def delay_schedule(self, seconds: float) -> None:
        """Delay by `seconds` a schedule that begins now; one that the journal knows goes on.

        The beginning is written to the journal. Otherwise an agent that is often restarted would
        begin a long spacing anew each time, and never get to its end.

        :raises JournalError: it cannot be written
        """
        for name in sorted(self._begun_now):
            begins = (self._periodic_last_run[name] or 0.0) + seconds
            self._periodic_last_run[name] = begins
            self.agent.journal.set_last_run(self._full_name(name), self._as_utc(begins))
        self._begun_now.clear()

    def run_now(self, trigger: str, dry_run: bool | None = None, force: bool = False) -> Any:
        """Run the task's main method once, due or not; return the :class:`~cepheid.run.Run`.

        The schedule is left as it is.

        :param force: run it though it is paused; a dry run is made anyway
        :raises Busy: it is running already
        :raises Paused: it is paused
        """
        if not force and not self.agent.runner.is_dry(self, dry_run):
            self.agent.pauses.refuse(self.name)
        function = type(self)._periodic_declared[self.name]
        return self.agent.runner.run(self, self.name, function, trigger=trigger, dry_run=dry_run)

    def explain(self, subject: Subject) -> list[Verdict] | None:
        """Say what a run now would do about an object, and why; None: the task does not tell.

        Nothing is changed or recorded, and no lock is kept.
        """
        return rehearsal.rehearse(self, subject) if self.explains else None

    # What PeriodicTasks asks of the clock and the options, answered from the agent.

    def _now(self) -> float:
        return self.agent.clock.monotonic()

    def _uniform(self) -> float:
        return self.agent.random.random()

    def _let_others_run(self) -> None:
        self.agent.clock.sleep(0)

    def _current_spacing(self, name: str) -> float | None:
        options = self._periodic_conf[self.name]
        if not options.enabled:
            return None
        if name == self.name:
            return periodic_task.effective_spacing(options.spacing)
        return super()._current_spacing(name)

    def _start_counting(self, name: str, task: Callable[..., Any]) -> None:
        journal = self.agent.journal
        full_name = self._full_name(name)
        immediate: bool = getattr(task, "_periodic_immediate", False)
        if name == self.name:
            immediate = self._periodic_conf[self.name].run_immediately
        if immediate and not journal.runs(full_name, 1):
            self._periodic_last_run[name] = None
            return
        now = self._now()
        last_run = journal.last_run(full_name)
        if last_run is None:
            self._begun_now.add(name)
            self._periodic_last_run[name] = now
            return
        elapsed = (self.agent.clock.utcnow() - last_run).total_seconds()
        # Jitter or the delay of a first start may have put the last run into the future. If it is
        # further ahead than that, the time of day was set back: the schedule begins anew, and
        # delay_schedule() writes that to the journal.
        ahead = (self._current_spacing(name) or 0.0) / periodic_task.JITTER_PARTS
        ahead += self.agent.conf.periodic_fuzzy_delay
        if elapsed < -ahead:
            self._begun_now.add(name)
            elapsed = 0.0
        self._periodic_last_run[name] = now - elapsed

    def _call_periodic_task(
        self, name: str, task: Callable[..., Any], context: Any, due: float
    ) -> None:
        full_name = self._full_name(name)
        boundary = self._periodic_last_run[name]
        assert boundary is not None
        try:
            pause = self.agent.pauses.of(self.name)
            if pause is not None:
                self._put_off(name, due, self._held.hold(full_name, pause))
                return
            self.agent.runner.run(
                self,
                full_name,
                task,
                lateness_seconds=self._held.release(full_name, due),
                scheduled_at=self._as_utc(boundary),
            )
        except errors.Busy as err:
            LOG.debug("%s", err)
            self._put_off(name, due, BUSY_RETRY_SECONDS)
        except SystemExit as err:
            # The run is on record as failed, and the timer goes on; let out, the exit would keep it
            # from learning when the task is due next.
            self.agent.runner.say_exit(full_name, _exits(full_name, err), err)
        except errors.CepheidError as err:
            self._notices.say(full_name, f"{full_name} was not run: {err}", logging.ERROR)
            spacing = self._current_spacing(name) or REFUSED_RETRY_SECONDS
            self._put_off(name, due, min(spacing, REFUSED_RETRY_SECONDS))

    def _put_off(self, name: str, due: float, seconds: float) -> None:
        """Keep a run due that was not made, and try it again in so many seconds."""
        self._periodic_last_run[name] = due - (self._current_spacing(name) or 0.0)
        self._retry_seconds = min(seconds, self._retry_seconds or seconds)

    def _as_utc(self, monotonic: float) -> datetime.datetime:
        """Return the time of day at a time of the monotonic clock."""
        clock = self.agent.clock
        return clock.utcnow() + datetime.timedelta(seconds=monotonic - clock.monotonic())

    def _full_name(self, name: str) -> str:
        return name if name == self.name else f"{self.name}.{name}"


def run_by_hand(task: Task, dry_run: bool | None, force: bool) -> Any:
    """Run a task once for an operator, see :meth:`Task.run_now`; return the run.

    :raises PluginError: it exits; that ends neither the agent nor, without a word, the command
    """
    try:
        return task.run_now("operator", dry_run, force)
    except SystemExit as err:
        raise errors.PluginError(_exits(task.name, err)) from err


def _exits(name: str, err: SystemExit) -> str:
    return f"{name} failed: it exits (sys.exit({err.code!r})). Its package has to be mended."
