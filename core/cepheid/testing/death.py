# SPDX-License-Identifier: Apache-2.0
"""Deaths of an agent in a test: as by SIGKILL, in the middle of a driver's call or between runs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from cepheid.testing.clock import FakeClock


class Crash(SystemExit):
    """Raised out of the calls of a dead agent, so that its threads end."""


class Death:
    """What kills an agent, and what of it is left on its disk.

    From its death on nothing that it does counts: its disk is set back, and its calls fail.
    """

    def __init__(self, state_path: Path, clock: FakeClock) -> None:
        self._state_path = state_path
        self._kept = state_path.with_name(f"{state_path.name}-at-death")
        self._clock = clock
        self._planned: tuple[str, str, bool] | None = None
        self._buried = threading.Event()
        self.is_dead = False

    def plan(self, kind: str, name: str, after: bool) -> None:
        """Let it die in the next call `name` of a driver, before it takes effect or after."""
        self._planned = (kind, name, after)

    def before_call(self, kind: str) -> Callable[[str], object]:
        """Return what is to be called with its name before each call of a driver."""
        return lambda name: self._look(kind, name, False)

    def after_call(self, kind: str) -> Callable[[str, object], object]:
        """Return what is to be called with its name and arguments after each call."""
        return lambda name, args: self._look(kind, name, True)

    def die(self) -> None:
        """Keep what is on the disk now."""
        shutil.copytree(self._state_path, self._kept)
        self.is_dead = True

    def bury(self) -> None:
        """Let the threads that were caught in the death end."""
        self._buried.set()

    def undo_what_came_after(self) -> None:
        """Set the disk back to where it was at the death; another agent may begin."""
        shutil.rmtree(self._state_path)
        self._kept.rename(self._state_path)
        self._buried.clear()
        self.is_dead = False

    def _look(self, kind: str, name: str, after: bool) -> None:
        if self._planned == (kind, name, after) and not self.is_dead:
            self._planned = None
            self.die()
        if not self.is_dead:
            return
        if threading.current_thread().name.startswith("timer-"):
            self._clock.wait(self._buried, None)
        raise Crash(f"the agent died in {name}")
