# SPDX-License-Identifier: Apache-2.0
"""The registry of periodic tasks: which methods of an object are due, and when the next one is.

Call-compatible with oslo.service's module of this name: a manager class written for that one
works after one changed import. It differs in these points:

- the first spacing counts from the creation of the object, not from the import of its class;
- adding a task to one object leaves its siblings alone;
- only :class:`Exception` is caught: an exit is an exit;
- the spacing is asked for at every round, so that a reload takes effect;
- a subclass that redefines a task replaces it, its spacing and its being disabled included;
- two tasks with one name are an error.

Source of names and rules: oslo.service's documentation and behaviour.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

LOG = logging.getLogger(__name__)

#: Seconds between runs of a task that names no spacing, and the longest a pass asks to idle.
DEFAULT_INTERVAL = 60.0

#: The jitter added to a boundary is below one part in this many of the spacing: 5 %.
JITTER_PARTS = 20

OPTIONS: list[cfg.Opt] = [
    cfg.BoolOpt(
        "run_external_periodic_tasks",
        default=True,
        help="Run tasks that may be left to a process outside the agent as well. Set it to false "
        "where cron runs them with 'cepheid task run'.",
    ),
]

TaskFunction = Callable[..., Any]


def list_opts() -> list[tuple[None, list[cfg.Opt]]]:
    """List this module's options for oslo.config's generator."""
    return [(None, OPTIONS)]


def now() -> float:
    """Return the monotonic time in seconds that the registry counts by."""
    return time.monotonic()


class InvalidPeriodicTaskArg(Exception):
    """The decorator was given an argument that it does not take."""

    def __init__(self, message: str | None = None, *, arg: str = "") -> None:
        super().__init__(message or f"Unexpected argument for periodic task creation: {arg}.")


class DuplicatePeriodicTask(Exception):
    """Two tasks of one object have the same name and both would run."""


def periodic_task(*args: Any, **kwargs: Any) -> Any:
    """Mark a method as a periodic task; use it bare or called.

    :param spacing: seconds between runs; 0 means :data:`DEFAULT_INTERVAL`, negative means never
    :param run_immediately: due at the first round rather than one spacing after creation
    :param enabled: false leaves the task out
    :param name: the task's name; None means the method's
    :param external_process_ok: left out while ``run_external_periodic_tasks`` is false
    :raises InvalidPeriodicTaskArg: an argument is not one of these
    """

    def decorator(function: TaskFunction) -> TaskFunction:
        arguments = dict(kwargs)
        marked: Any = function
        marked._periodic_task = True
        marked._periodic_external_ok = arguments.pop("external_process_ok", False)
        marked._periodic_enabled = arguments.pop("enabled", True)
        marked._periodic_name = arguments.pop("name", None) or function.__name__
        marked._periodic_spacing = arguments.pop("spacing", 0)
        marked._periodic_immediate = arguments.pop("run_immediately", False)
        marked._periodic_last_run = None if marked._periodic_immediate else now()
        if arguments:
            raise InvalidPeriodicTaskArg(arg=", ".join(sorted(arguments)))
        return function

    if args and not kwargs:
        return decorator(args[0])
    return decorator


def _nearest_boundary(
    last_run: float | None,
    spacing: float,
    current: float | None = None,
    uniform: Callable[[], float] = random.random,
) -> float:
    """Return the boundary a run that starts now belongs to, plus up to 5 % of jitter.

    Boundaries lie a whole number of spacings after the last run, so a late run does not shift
    those after it, and missed ones are not made up for. The jitter is whole seconds.
    """
    current = now() if current is None else current
    if last_run is None:
        return current
    passed = (current - last_run) // spacing
    if last_run + (passed + 1) * spacing <= current:
        passed += 1  # the division was rounded down; without this the task would be due again
    jitter = int(spacing * uniform() / JITTER_PARTS)
    return last_run + passed * spacing + jitter


def effective_spacing(spacing: float) -> float | None:
    """Return the seconds that `spacing` stands for; None when it switches the task off."""
    if spacing < 0:
        return None
    return spacing or DEFAULT_INTERVAL


class _PeriodicTasksMeta(type):
    """Collect the decorated methods of a class, those of its bases included."""

    #: Every decorated method by task name, disabled ones too.
    _periodic_declared: dict[str, TaskFunction]
    #: What runs: (name, function) in the order of definition.
    _periodic_tasks: list[tuple[str, TaskFunction]]
    _periodic_spacing: dict[str, float]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        methods: dict[str, Any] = {}
        for ancestor in reversed(cls.__mro__):
            for attribute, value in vars(ancestor).items():
                # A redefinition replaces, whether it is a task again or not.
                if getattr(value, "_periodic_task", False):
                    methods[attribute] = value
                else:
                    methods.pop(attribute, None)
        cls._periodic_declared = {}
        cls._periodic_tasks = []
        cls._periodic_spacing = {}
        for function in methods.values():
            if cls._add_periodic_task(function):
                cls._periodic_declared[function._periodic_name] = function
            else:
                cls._periodic_declared.setdefault(function._periodic_name, function)

    def _add_periodic_task(cls, task: TaskFunction) -> bool:
        """Add a decorated function to the class; tell whether it will run."""
        return _register(task, cls._periodic_tasks, cls._periodic_spacing)


def _register(task: Any, tasks: list[tuple[str, TaskFunction]], spacings: dict[str, float]) -> bool:
    name = task._periodic_name
    spacing = effective_spacing(task._periodic_spacing)
    if spacing is None:
        LOG.info("Skipping periodic task %s because its interval is negative", name)
        return False
    if not task._periodic_enabled:
        LOG.info("Skipping periodic task %s because it is disabled", name)
        return False
    if any(name == known for known, _ in tasks):
        raise DuplicatePeriodicTask(
            f"There are two periodic tasks named {name!r}; give one of them another name."
        )
    tasks.append((name, task))
    spacings[name] = spacing
    return True


class PeriodicTasks(metaclass=_PeriodicTasksMeta):
    """Runs its decorated methods when they are due.

    :param conf: the :class:`oslo_config.cfg.ConfigOpts` that holds ``run_external_periodic_tasks``
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        # Where a manager for oslo.service's module shares its configuration, the option is there.
        with contextlib.suppress(cfg.DuplicateOptError):
            conf.register_opts(OPTIONS)
        self.conf: Any = conf
        self._periodic_conf = conf
        self._periodic_tasks = list(type(self)._periodic_tasks)
        self._periodic_spacing = dict(type(self)._periodic_spacing)
        self._periodic_last_run: dict[str, float | None] = {}
        #: The spacing that each task had in the newest round.
        self._periodic_heeded: dict[str, float] = {}
        for name, task in self._periodic_tasks:
            self._start_counting(name, task)

    def add_periodic_task(self, task: TaskFunction) -> bool:
        """Add a decorated function to this object alone; tell whether it will run.

        :raises DuplicatePeriodicTask: the object has a task of that name
        """
        added = _register(task, self._periodic_tasks, self._periodic_spacing)
        if added:
            self._start_counting(task._periodic_name, task)  # type: ignore[attr-defined]
        return added

    def run_periodic_tasks(self, context: Any, raise_on_error: bool = False) -> float:
        """Run what is due; return the seconds until the next task may be.

        :param raise_on_error: let an error of a task out instead of logging it
        """
        idle_for = DEFAULT_INTERVAL
        for name, task in list(self._periodic_tasks):
            if self._is_left_to_others(task):
                continue
            spacing = self._current_spacing(name)
            if spacing is None:
                continue
            current = self._now()
            self._heed_spacing(name, spacing, current)
            last_run = self._periodic_last_run[name]
            idle_for = min(idle_for, spacing)
            due = current if last_run is None else last_run + spacing
            if due > current:
                idle_for = min(idle_for, due - current)
                continue
            self._periodic_last_run[name] = _nearest_boundary(
                last_run, spacing, current, self._uniform
            )
            LOG.debug("Running periodic task %s", name)
            try:
                self._call_periodic_task(name, task, context, due)
            except Exception:
                if raise_on_error:
                    raise
                LOG.exception("Error during %s", name)
            self._let_others_run()
        return idle_for

    def _heed_spacing(self, name: str, spacing: float, current: float) -> None:
        """Let a last run that lies ahead count as now, once a reload has shortened the spacing.

        The last run was booked ahead of its time by up to 5 % of the longer spacing, its jitter.
        That would delay the next run by more than the new spacing.
        """
        before = self._periodic_heeded.get(name, spacing)
        last_run = self._periodic_last_run[name]
        if spacing < before and last_run is not None:
            self._periodic_last_run[name] = min(last_run, current)
        self._periodic_heeded[name] = spacing

    # A subclass may override these.

    def _now(self) -> float:
        return now()

    def _uniform(self) -> float:
        return random.random()

    def _let_others_run(self) -> None:
        time.sleep(0)

    def _current_spacing(self, name: str) -> float | None:
        """Return the seconds between runs of `name`; None while it is switched off."""
        return effective_spacing(self._periodic_spacing[name])

    def _call_periodic_task(self, name: str, task: TaskFunction, context: Any, due: float) -> None:
        task(self, context)

    def _is_left_to_others(self, task: Any) -> bool:
        return task._periodic_external_ok and not self._periodic_conf.run_external_periodic_tasks

    def _start_counting(self, name: str, task: Any) -> None:
        self._periodic_last_run[name] = None if task._periodic_immediate else self._now()
