# SPDX-License-Identifier: Apache-2.0
"""Plays hours of an agent in milliseconds: the real service, timers, runner, tasks and journal.

What is not real: the clock, chance, and the drivers.
"""

from __future__ import annotations

import datetime
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from oslo_config import cfg

from cepheid import config, errors
from cepheid.journal.pauses import ALL
from cepheid.run import Change, Run
from cepheid.task import Task
from cepheid.testing import doubles
from cepheid.testing.agent import write_conf
from cepheid.testing.clock import PATIENCE_SECONDS, FakeClock, LowestRandom
from cepheid.testing.death import Crash, Death
from cepheid.testing.faults import Faults
from cepheid.testing.played import Played, PlayedAgent, PlayedService, unchanged_logging

#: The most seconds of the fake clock between two looks of the service's supervision.
SUPERVISION_SECONDS = 60.0


class Player:
    """An agent whose hours pass as fast as they can be computed.

    It begins with :meth:`start`, or ``with``. The journal and all the rest of its disk is under
    `path`; what the drivers have in memory is the world, which stays when the agent ends.

    :param tasks: the tasks that it has, each a class, or the name of one that is installed
    :param settings: what a cepheid.conf says besides; it begins in ``[DEFAULT]``
    :param drivers: objects by kind; for other kinds that the tasks ask for, doubles are made
    :param path: a directory; by default a temporary one that is removed at the end
    """

    def __init__(
        self,
        *tasks: type[Task] | str,
        settings: str = "",
        drivers: Mapping[str, Any] | None = None,
        path: Path | str | None = None,
        clock: FakeClock | None = None,
        uniform: random.Random | None = None,
    ) -> None:
        self.tasks = tasks
        self.settings = settings
        self.clock = clock or FakeClock()
        self.random = uniform or LowestRandom()
        self._own_path = path is None
        self.path = Path(tempfile.mkdtemp(prefix="cepheid-") if path is None else path)
        self.state_path = self.path / "state"
        #: The drivers, by kind, without faults; and their faults.
        self.drivers: dict[str, Any] = {}
        self.faults: dict[str, Faults] = {}
        #: Every run that has ended, oldest first; one in which the agent crashed never ends.
        self.runs: list[Run] = []
        self.agent: PlayedAgent
        self.service: PlayedService
        self._death = Death(self.state_path, self.clock)
        self._is_started = False
        for kind, driver in (drivers or {}).items():
            self._provide(kind, driver)

    # The world.

    def driver(self, kind: str) -> Any:
        """Return the driver of `kind`, without faults; a double is made where there is none."""
        if kind not in self.drivers:
            directory = self.path / "drivers" / kind
            directory.mkdir(parents=True, exist_ok=True)
            double = doubles.make(kind, self.clock, directory)
            if double is None:
                raise errors.PluginError(
                    f"Nothing that is installed offers a double of the {kind} driver: give one in "
                    f"drivers, or offer an entry point {kind!r} in {doubles.NAMESPACE}."
                )
            self._provide(kind, double)
        return self.drivers[kind]

    def _provide(self, kind: str, driver: Any) -> None:
        self.drivers[kind] = driver
        self.faults[kind] = Faults(driver, self.clock)
        self.faults[kind].before_call = self._death.before_call(kind)
        self.faults[kind].after_call = self._death.after_call(kind)

    def fault(self, kind: str) -> Faults:
        """Return the faults of the driver of `kind`."""
        self.driver(kind)
        return self.faults[kind]

    # The agent.

    def start(self) -> Player:
        """Start the agent; return the player."""
        self.state_path.mkdir(parents=True, exist_ok=True)
        self.agent = PlayedAgent(self, self._load_conf())
        self.service = PlayedService(self.agent, self._load_conf)
        try:
            self.service.start()
        except BaseException:
            self.service.timers.stop()
            self.agent.close()
            self.service.release_host()
            raise
        self._is_started = True
        self._settle()
        return self

    def stop(self) -> None:
        """End the agent as SIGTERM does; calls that hang are answered first."""
        if not self._is_started:
            return
        self._is_started = False
        for faults in self.faults.values():
            faults.release()
        self.service.stop()

    def restart(self, settings: str | None = None) -> None:
        """End the agent as SIGTERM does, and start it again, with other settings if given."""
        self.stop()
        self.settings = self.settings if settings is None else settings
        self.start()

    def crash(self) -> None:
        """Let the agent die at once, between two runs, and start it again."""
        self._death.die()
        self._revive()

    def crash_in(self, kind: str, name: str, *, after: bool = False) -> None:
        """Let the agent die in the next call `name` of a driver, before it takes effect or after.

        In :meth:`play` it is then started again at once.
        """
        self.driver(kind)
        self._death.plan(kind, name, after)

    def reload(self, settings: str | None = None) -> None:
        """Let the agent reload as SIGHUP does, with other settings if they are given."""
        self.settings = self.settings if settings is None else settings
        write_conf(self.state_path, self.settings)
        before = list(self.service.timers.timers)
        with unchanged_logging():
            self.service.reload()
        kept = self.service.timers.timers
        for timer in before:
            assert timer in kept or timer.wait(PATIENCE_SECONDS), f"{timer.name} does not end"
        self._settle()

    def pause(self, task: str = ALL, reason: str = "", seconds: float | None = None) -> None:
        """Pause a task, or all, for some seconds or until :meth:`resume`."""
        now = self.clock.utcnow()
        until = None if seconds is None else now + datetime.timedelta(seconds=seconds)
        self.agent.journal.pauses.pause(task, now, until, reason, "player")

    def resume(self, task: str = ALL) -> None:
        """End a pause."""
        self.agent.journal.pauses.resume(task, self.clock.utcnow(), "", "player")

    def task(self, name: str) -> Task:
        """Return a task of the agent's."""
        task: Task = self.agent.tasks[name]
        return task

    def run(self, name: str, dry_run: bool | None = None) -> Run:
        """Run a task once, now, as ``cepheid task run`` does; return the run."""
        try:
            run: Run = self.task(name).run_now("operator", dry_run)
        except Crash:
            self._revive()
            raise
        return run

    def play(self, hours: float = 0, minutes: float = 0, seconds: float = 0) -> Played:
        """Let time pass, with all that is due in it; return what was run meanwhile."""
        first, clock = len(self.runs), self.clock
        ends_at = clock.monotonic() + hours * 3600 + minutes * 60 + seconds
        while True:
            self._settle()
            left = ends_at - clock.monotonic()
            if left <= 0:
                return Played(self.runs[first:])
            clock.advance(max(0.0, min(left, clock.seconds_to_next_wake(), SUPERVISION_SECONDS)))
            if self.is_dead:
                self._revive()
            else:
                self.service.supervise()

    @property
    def is_dead(self) -> bool:
        """Whether the agent has crashed and is not yet started again."""
        return self._death.is_dead

    @property
    def changes(self) -> list[Change]:
        """The changes of all runs so far, in their order."""
        return Played(self.runs).changes

    def close(self) -> None:
        """End the agent and remove its directory."""
        self.stop()
        if self._own_path:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Player:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _load_conf(self) -> cfg.ConfigOpts:
        return config.load([str(write_conf(self.state_path, self.settings))])

    def _settle(self) -> None:
        """Turn every timer that is due now, one by one."""
        timers = self.service.timers
        self.clock.settle_all("timer", lambda: timers.threads)

    def _revive(self) -> None:
        """Take the dead agent apart, without a trace on its disk, and start another."""
        self.service.timers.stop()
        self._death.bury()
        self.service.timers.wait()
        self.agent.close()
        self.service.release_host()
        self._death.undo_what_came_after()
        self.start()
