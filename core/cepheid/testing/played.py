# SPDX-License-Identifier: Apache-2.0
"""The agent and the service that a player plays, and what was played."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from cepheid import config, errors, loading
from cepheid.agent import Agent
from cepheid.catalogue import NAMESPACE
from cepheid.observers import Observer
from cepheid.run import Change, Run
from cepheid.service import Service
from cepheid.task import Task
from cepheid.testing.faults import Watched

if TYPE_CHECKING:
    from cepheid.testing.player import Player


@dataclass(frozen=True)
class Played:
    """What happened in a stretch of time."""

    runs: list[Run]

    @property
    def changes(self) -> list[Change]:
        """The changes of all its runs, in their order."""
        return [change for run in self.runs for change in run.changes]

    @property
    def outcomes(self) -> list[str]:
        """The outcome of each run."""
        return [run.outcome for run in self.runs]

    def of(self, task: str) -> Played:
        """Return what one task did."""
        return Played([run for run in self.runs if run.task == task])


class PlayedAgent(Agent):
    """An agent that has the player's tasks, whatever is installed, and its drivers."""

    def __init__(self, player: Player, conf: cfg.ConfigOpts) -> None:
        self._player = player
        super().__init__(conf, player.clock, player.random)
        # No test pulls the plug, and it is what takes most of the time.
        self.journal._store.connection.execute("PRAGMA synchronous = OFF")
        self.runner.observers = [*self.runner.observers, Recorder(player, self)]
        self._use_drivers()

    def find_tasks(self, conf: cfg.ConfigOpts) -> list[loading.Plugin]:
        plugins = [find(task, conf) for task in self._player.tasks]
        for plugin in plugins:
            if plugin.name in conf.disabled_tasks:
                plugin.state, plugin.reason = "disabled", "named in disabled_tasks"
            else:
                self._provide_drivers(plugin)
        self._use_drivers()
        return plugins

    def driver(self, kind: str) -> Any:
        """Return the double of a kind that a task has named in its ``drivers``.

        :raises PluginError: none has; a real driver would act on this machine
        """
        if kind not in self.drivers.given:
            raise errors.PluginError(
                f"a task asks for the {kind} driver, which is not in its drivers: write "
                f"drivers = ({kind!r}, ...) on its class"
            )
        return super().driver(kind)

    def _provide_drivers(self, plugin: loading.Plugin) -> None:
        for kind in getattr(plugin.load(), "drivers", ()):
            self._player.driver(kind)

    def _use_drivers(self) -> None:
        for kind, driver in self._player.drivers.items():
            if kind not in self.drivers.given:
                self.drivers.use(kind, Watched(driver, self._player.faults[kind]))


class PlayedService(Service):
    """A service that nobody asks from outside."""

    def _open_admin(self) -> None:
        return None

    def release_host(self) -> None:
        """Let another agent run on this host, though this one did not end as it should."""
        if self._lock is not None:
            os.close(self._lock)


class Recorder(Observer):
    """Keeps every run that has ended."""

    def __init__(self, player: Player, agent: Agent) -> None:
        super().__init__(agent)
        self._player = player

    def run_ended(self, run: Run) -> None:
        if not self._player.is_dead:
            self._player.runs.append(run)


def find(task: type[Task] | str, conf: cfg.ConfigOpts) -> loading.Plugin:
    """Return a task as a plugin: a class is one, installed or not.

    :raises PluginError: nothing that is installed provides a task of this name
    """
    if not isinstance(task, str):
        point = importlib.metadata.EntryPoint(
            task.task_name(), f"{task.__module__}:{task.__qualname__}", NAMESPACE
        )
        return loading.Plugin(NAMESPACE, point.name, "test", "0", point, factory=task)
    plugins = [plugin for plugin in loading.discover(NAMESPACE) if plugin.name == task]
    providers = config.register_providers(conf, [task])
    loading.settle_conflicts(plugins, providers, "[task_providers] {name}")
    usable = [plugin for plugin in plugins if plugin.state == "found"]
    if not plugins:
        raise errors.NoSuchTask(task)
    return usable[0] if usable else plugins[0]


@contextmanager
def unchanged_logging() -> Iterator[None]:
    """Keep the log as the test has set it up."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
