# SPDX-License-Identifier: Apache-2.0
"""An agent for tests: real journal, runner and options; its clock, randomness and drivers given."""

from __future__ import annotations

import datetime
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cepheid import config
from cepheid.agent import Agent
from cepheid.clock import Clock
from cepheid.run import Run
from cepheid.task import Task

#: Real seconds after which a test that waits for a thread has failed.
PATIENCE_SECONDS = 20.0


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until another thread has brought `condition` about; return what it gives."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < ends_at, "it does not come about"
        time.sleep(0.001)
    return result


class FakeClock(Clock):
    """Time that passes only when it is told to, or when somebody sleeps.

    :param utc: the time of day at the start
    """

    def __init__(self, utc: datetime.datetime = datetime.datetime(2026, 11, 23, 12, 0)) -> None:
        self._utc = utc
        self._start = self._now = 1000.0
        self._changed = threading.Condition()
        self._resting: dict[int, float] = {}
        #: Called with the time that has passed, after each sleep.
        self.on_sleep: Callable[[float], None] | None = None

    def monotonic(self) -> float:
        return self._now

    def utcnow(self) -> datetime.datetime:
        return self._utc + datetime.timedelta(seconds=self._now - self._start)

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        if seconds and self.on_sleep is not None:
            self.on_sleep(seconds)

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        me = threading.get_ident()
        until = float("inf") if seconds is None else self._now + seconds
        with self._changed:
            self._resting[me] = until
            self._changed.notify_all()
            while me in self._resting and not event.is_set():
                self._changed.wait(0.01)  # an event is set without a notice
            self._resting.pop(me, None)
        return event.is_set()

    def settle(self, threads: int) -> None:
        """Wait until this many threads wait for the time."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self._resting) >= threads, PATIENCE_SECONDS
            ), f"{len(self._resting)} of {threads} threads wait"

    def advance(self, seconds: float) -> None:
        """Let time pass; every thread that waits wakes at its time, one after another.

        A woken thread must wait again. One that is to hang does so in ``wait(event, None)``.
        """
        until = self._now + seconds
        with self._changed:
            while True:
                waiting = len(self._resting)
                due = min(self._resting.values(), default=float("inf"))
                if due > until:
                    break
                self._now = max(self._now, due)
                for thread in [t for t, at in self._resting.items() if at <= self._now]:
                    del self._resting[thread]
                self._changed.notify_all()
                assert self._changed.wait_for(
                    lambda enough=waiting: len(self._resting) >= enough, PATIENCE_SECONDS
                ), "a woken thread does not wait again"
            self._now = until


class LowestRandom(random.Random):
    """Randomness without chance: always the lowest value."""

    def random(self) -> float:
        return 0.0


class FakeAgent(Agent):
    """An agent on a directory of its own.

    :param drivers: objects by kind
    :param settings: what a cepheid.conf says
    """

    def __init__(
        self,
        state_path: Path,
        drivers: dict[str, Any] | None = None,
        settings: str = "",
        clock: Clock | None = None,
    ) -> None:
        file = Path(state_path) / "cepheid.conf"
        file.write_text(
            f"[DEFAULT]\nstate_path = {state_path}\nhost = host1\nobservers =\n{settings}"
        )
        super().__init__(config.load([str(file)]), clock or FakeClock(), LowestRandom())
        self.conf_file = file
        for kind, driver in (drivers or {}).items():
            self.drivers.use(kind, driver)

    def build(self, factory: type[Task]) -> Task:
        """Register the options of a task class and build the task."""
        self.conf.register_opts(factory.all_options(), group=factory.task_name())
        for group, options in factory.shared_options:
            self.conf.register_opts(options, group=group)
        return factory(self)

    def set(self, group: str | None, **values: Any) -> None:
        """Override options."""
        for name, value in values.items():
            self.conf.set_override(name, value, group=group)

    def run(self, task: Task, dry_run: bool | None = None) -> Run:
        """Run a task's main method once."""
        run: Run = task.run_now("test", dry_run)
        return run
