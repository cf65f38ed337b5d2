# SPDX-License-Identifier: Apache-2.0
"""An agent for tests: real journal, runner and options; its clock, randomness and drivers given."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cepheid import config
from cepheid.agent import Agent
from cepheid.clock import Clock
from cepheid.run import Run
from cepheid.task import Task
from cepheid.testing.clock import FakeClock, LowestRandom


def write_conf(state_path: Path, settings: str = "") -> Path:
    """Write the configuration of an agent on a directory; return the file.

    :param settings: what a cepheid.conf says besides; it begins in ``[DEFAULT]``
    """
    file = state_path / "cepheid.conf"
    file.write_text(f"[DEFAULT]\nstate_path = {state_path}\nhost = host1\nobservers =\n{settings}")
    return file


class FakeAgent(Agent):
    """An agent on a directory of its own, without timers.

    :param drivers: objects by kind
    :param settings: what a cepheid.conf says
    """

    def __init__(
        self,
        state_path: Path | str,
        drivers: Mapping[str, Any] | None = None,
        settings: str = "",
        clock: Clock | None = None,
        uniform: random.Random | None = None,
    ) -> None:
        file = write_conf(Path(state_path), settings)
        super().__init__(config.load([str(file)]), clock or FakeClock(), uniform or LowestRandom())
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
