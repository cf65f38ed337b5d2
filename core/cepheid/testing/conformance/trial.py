# SPDX-License-Identifier: Apache-2.0
"""A task on trial: stages in which it plays, furnished and watched."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from oslo_config import cfg, types
from oslo_utils import uuidutils

from cepheid import errors
from cepheid.run import Change, RunContext
from cepheid.task import Task
from cepheid.testing.clock import NOON, FakeClock
from cepheid.testing.conformance.findings import NotChecked
from cepheid.testing.conformance.options import is_secret
from cepheid.testing.conformance.watch import Act, Watch
from cepheid.testing.player import Player

#: What a secret is set to; it may be found nowhere.
CANARY = "canary-4711-do-not-tell"

#: Paths that are read where they are: the kernel's.
KERNELS = ("/proc", "/sys", "/dev")

#: Seconds between two runs of a task on trial, and what its time-outs are set to.
SPACING, TIMEOUT = 60, 60

#: Options of numbers that are 0 where their task has nothing to do.
OFF_AT_ZERO = re.compile(r"time|interval|age|window|period|seconds|days|hours")

#: How many instances and domains a stage has: of every sort two.
NUMBER = 26

#: Files in each directory that a task's options name, and how old they are.
FILES, OLD_SECONDS = ("old-1.dump", "old-2.log", "old-3"), 400 * 86400


class ChangingCall(NamedTuple):
    """A call that changed a double."""

    kind: str
    name: str
    args: tuple[Any, ...]
    where: str
    in_door: bool


class Asked(NamedTuple):
    """A call of a driver that the task's code made.

    :param about: its first argument
    """

    kind: str
    name: str
    phase: str
    where: str
    in_door: bool
    about: Any = None


class Carried(NamedTuple):
    """What went through the door at one time.

    :param strays: calls that changed a domain which is not what the changes are of
    :param untouched: domains that the changes are of, and none of the calls is about
    :param unanswered: the last driver's call, where that one failed
    :param did: whether anything was done at all: a driver's call, a file, a program
    """

    changes: Sequence[Change]
    deleted: set[str]
    strays: Sequence[ChangingCall]
    untouched: Sequence[str]
    unanswered: str
    did: bool

    @property
    def are_done(self) -> bool:
        """Whether all of it is recorded as done."""
        return all(change.outcome == "done" for change in self.changes)


class OptionRead(NamedTuple):
    """An option that the task's code read."""

    group: str
    name: str
    phase: str


class LogKeeper(logging.Handler):
    """Keeps every message, whatever its level."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))


class Trial:
    """A task class, and where it may play.

    :param directory: for the stages
    """

    def __init__(self, factory: type[Task], watch: Watch, directory: Path) -> None:
        self.factory = factory
        self.name = factory.task_name()
        self.watch = watch
        self.directory = directory
        self.changing: list[ChangingCall] = []
        self.asked: list[Asked] = []
        self.carried: list[Carried] = []
        #: Processor seconds that the last agent took to start, drivers not counted.
        self.start_seconds = 0.0
        self.reads: set[OptionRead] = set()
        self.log = LogKeeper()
        #: Why it is not tried any further; empty while it is.
        self.hopeless = ""
        self._stages = 0
        #: The last driver's call within the door, where that one failed.
        self._unanswered = ""
        self._prepare_process()

    def _prepare_process(self) -> None:
        context: Any = RunContext
        carry_out = context._carry_out

        def watched(context: Any, changes: list[Any], do: Any) -> None:
            before, calls, asked = len(self.watch.acts), len(self.changing), len(self.asked)
            self._unanswered = ""
            with self.watch.door():
                carry_out(context, changes, do)
            acts = self.watch.acts[before:]
            self.carried.append(
                Carried(
                    changes,
                    whole(acts),
                    _strays(self.changing[calls:], changes),
                    _untouched(self.asked[asked:], changes),
                    self._unanswered,
                    bool(acts or self.asked[asked:]),
                )
            )

        context._carry_out = watched
        attributes: Any = cfg.ConfigOpts.GroupAttr
        read = attributes.__getattr__
        watch, reads = self.watch, self.reads

        def noted(group: Any, name: str) -> Any:
            if watch.plugins_frame() is not None:
                reads.add(OptionRead(group._group.name, name, watch.phase))
            return read(group, name)

        attributes.__getattr__ = noted
        logger = logging.getLogger()
        logger.addHandler(self.log)
        logger.setLevel(logging.DEBUG)

    @contextmanager
    def stage(
        self, numbers: Sequence[int] = range(NUMBER), timers: bool = False, **common: Any
    ) -> Iterator[Player]:
        """Give a player with the task, a furnished world, and an agent that has started.

        :param numbers: of the instances and domains that there are
        :param timers: run it by its timer as well, each :data:`SPACING` seconds
        :param common: of the task's own group
        :raises NotChecked: the task cannot be built, or nothing plays one of its drivers
        """
        self._stages += 1
        path = self.directory / f"stage{self._stages}"
        path.mkdir()
        player = Player(self.factory, path=path, clock=FakeClock(NOON))
        try:
            player.settings = self._settings(path, timers, common)
            self._furnish(player, numbers)
            self.watch.phase = "constructor"
            began = time.process_time()
            try:
                player.start()
            except errors.CepheidError as err:
                plugins = player.agent.plugins if hasattr(player, "agent") else []
                why = plugins[0].reason if plugins and plugins[0].reason else err
                raise NotChecked(f"an agent with it does not start: {why}") from err
            self.start_seconds = time.process_time() - began
            self.watch.phase = "run"
            (plugin,) = player.agent.plugins
            if plugin.state != "enabled":
                raise NotChecked(f"the agent does not run it ({plugin.state}): {plugin.reason}")
            yield player
        finally:
            self.watch.phase = ""
            player.close()

    def _furnish(self, player: Player, numbers: Sequence[int]) -> None:
        (player.path / "instances").mkdir()
        for kind in self.factory.drivers:
            try:
                with self.watch.aside():
                    double = player.driver(kind)
                    if hasattr(double, "populate"):
                        double.populate(numbers)
            except errors.PluginError as err:
                raise NotChecked(str(err)) from err
            self._watch_calls(player, kind)

    def _watch_calls(self, player: Player, kind: str) -> None:
        faults = player.faults[kind]
        make, watch = faults.call, self.watch

        def call(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            frame = None if watch.is_aside else watch.plugins_frame()
            if frame is not None:
                where, in_door = watch.place(frame), bool(watch.in_door)
                about = args[0] if args else None
                self.asked.append(Asked(kind, name, watch.phase, where, in_door, about))
            before = getattr(faults.driver, "changes", 0)
            in_door = bool(watch.in_door)
            try:
                with watch.aside():
                    answer = make(name, function, *args, **kwargs)
                self._unanswered = "" if in_door else self._unanswered
                return answer
            except Exception:
                self._unanswered = f"{kind}.{name}" if in_door else self._unanswered
                raise
            finally:
                if getattr(faults.driver, "changes", 0) != before:
                    where = watch.place(frame) if frame is not None else ""
                    self.changing.append(ChangingCall(kind, name, args, where, bool(watch.in_door)))

        faults.call = call  # type: ignore[method-assign]

    def _settings(self, path: Path, timers: bool, common: dict[str, Any]) -> str:
        own = {"enabled": True, "spacing": SPACING, "max_changes": 0, "run_immediately": False}
        groups = {self.name: {**own, **common}}
        for option in self.factory.options:
            value = self._value(path, option)
            if value is not None:
                groups[self.name].setdefault(option.dest, value)
        for group, options in self.factory.shared_options:
            for option in options:
                value = self._value(path, option)
                if value is not None:
                    groups.setdefault(group, {})[option.dest] = value
        text = f"periodic_fuzzy_delay = 0\nperiodic_enable = {timers}\n"
        for group, values in groups.items():
            text += f"[{group}]\n" + "".join(f"{key} = {one}\n" for key, one in values.items())
        return text

    def _value(self, path: Path, option: cfg.Opt) -> Any:
        """Return what an option is set to on a stage; None for its default."""
        default = option.default
        if option.dest == "instances_path":
            return path / "instances"
        if is_secret(option):
            return CANARY
        if isinstance(default, str) and default.startswith("/") and not default.startswith(KERNELS):
            return _furnished(path / "host", default)
        if (
            default == 0
            and isinstance(option.type, types.Integer)
            and OFF_AT_ZERO.search(option.dest)
        ):
            return TIMEOUT
        return None


def _strays(calls: Sequence[ChangingCall], changes: Sequence[Change]) -> list[ChangingCall]:
    """Return the calls that changed another domain than the changes are of."""
    targets = {change.target for change in changes if uuidutils.is_uuid_like(change.target)}
    return [
        call
        for call in calls
        if call.kind == "hypervisor"
        and targets
        and call.args
        and uuidutils.is_uuid_like(call.args[0])
        and call.args[0] not in targets
    ]


def _untouched(asked: Sequence[Asked], changes: Sequence[Change]) -> list[str]:
    """Return the domains that changes are done of, where all that was done was to others."""
    if {one.kind for one in asked} != {"hypervisor"}:
        return []
    about = {one.about for one in asked if uuidutils.is_uuid_like(one.about)}
    targets = [change.target for change in changes if change.outcome == "done"]
    return [one for one in targets if about and uuidutils.is_uuid_like(one) and one not in about]


def _furnished(root: Path, default: str) -> Path:
    """Return the place on a stage of a path on the host: a directory with old files in it."""
    place = root / default.lstrip("/")
    directory = place.parent if place.suffix else place
    directory.mkdir(parents=True, exist_ok=True)
    before = NOON.timestamp() - OLD_SECONDS
    for name in (place.name,) if place.suffix else FILES:
        file = directory / name
        file.write_text("old\n")
        os.utime(file, (before, before))
    return place


def whole(acts: Sequence[Act]) -> set[str]:
    """Return the paths that were deleted, a directory with all that was in it as one."""
    paths = {os.path.abspath(act.path) for act in acts if act.what.startswith("deletes")}
    return {path for path in paths if not any(str(up) in paths for up in Path(path).parents)}


def tree(path: Path) -> dict[str, tuple[int, int, int]]:
    """Return what there is beneath a directory, but for what the agent itself keeps there."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if name.startswith(("state/cepheid-", "state/cepheid.conf", "drivers")) or name == "state":
            continue
        status = file.lstat()
        times = 0 if file.is_dir() else status.st_mtime_ns
        found[name] = (times, 0 if file.is_dir() else status.st_size, status.st_mode)
    return found
