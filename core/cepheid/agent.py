# SPDX-License-Identifier: Apache-2.0
"""The agent of one host: what tasks share, and which tasks there are.

It has no timers; the service (:mod:`cepheid.service`) gives it those. The command line uses one
without them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from oslo_config import cfg

from cepheid import catalogue, closed_files, config, drivers, errors, loading, observers
from cepheid.clock import Clock
from cepheid.journal import FILE_NAME as JOURNAL_FILE_NAME
from cepheid.journal import Journal
from cepheid.native import NativePool
from cepheid.pausing import PauseWatch
from cepheid.runner import Runner
from cepheid.task import Task

LOG = logging.getLogger(__name__)


class Agent:
    """Holds the configuration, the journal, the drivers and the tasks of one host.

    :param conf: as :func:`cepheid.config.load` returns it
    :param journal: another than that under state_path
    :raises CepheidError: state_path or the journal cannot be used
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        clock: Clock | None = None,
        uniform: random.Random | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.conf = conf
        self.clock = clock or Clock()
        self.started_at = self.clock.utcnow()
        self.random = uniform or random.Random()
        #: The name of this host in the inventory.
        self.host: str = conf.host
        self.state_path = _make_state_path(conf)
        self.journal = journal or Journal(self.state_path / JOURNAL_FILE_NAME, self.clock)
        self.pauses = PauseWatch(self.journal, self.clock)
        self.native = NativePool(conf.native_workers)
        self.drivers = drivers.DriverSet(self)
        self.runner = Runner(
            self.journal,
            self.state_path / "cepheid-locks",
            self.clock,
            _load_observers(self, conf.observers),
            dry_run=lambda: self.conf.dry_run,
        )
        #: Every task plugin that was found, loaded or not.
        self.plugins: list[loading.Plugin] = []
        #: The tasks that are enabled and could be built, by name.
        self.tasks: dict[str, Task] = {}
        self._loaded: dict[str, loading.Plugin] = {}

    def driver(self, kind: str) -> Any:
        """Return the shared driver of `kind`, built on first use.

        :raises PluginError: it cannot be had
        """
        return self.drivers.get(kind)

    def run_native(
        self, call: Callable[..., Any], *args: Any, deadline: float, name: str = ""
    ) -> Any:
        """Make one native call with a deadline, see :meth:`cepheid.native.NativePool.run`."""
        return self.native.run(call, *args, deadline=deadline, name=name)

    def find_tasks(self, conf: cfg.ConfigOpts) -> list[loading.Plugin]:
        """Find all task plugins, see :func:`cepheid.catalogue.find_tasks`."""
        return catalogue.find_tasks(conf)

    def load_tasks(self, conf: cfg.ConfigOpts | None = None) -> None:
        """Find the task plugins and build those that are enabled.

        Called again, with the configuration read anew, it keeps the tasks that stay, drops those
        that go and builds new ones.

        :raises ConfigError: the configuration is wrong; the agent goes on with the one it has
        """
        conf = conf or self.conf
        plugins = self.find_tasks(conf)
        if self.plugins and not plugins:
            raise errors.ConfigError(
                "no task is installed any more; is a package being replaced just now?"
            )
        finder = catalogue.Finder(conf)
        for plugin in plugins:
            known = self._loaded.get(plugin.name)
            if known is not None and known.identity == plugin.identity:
                _warn_if_upgraded(known, plugin)
            if plugin.state == "found":
                catalogue.prepare(conf, plugin, given=self.drivers.given, finder=finder)
        self.drivers.prepare(conf)
        config.check(conf)

        self.conf = conf
        tasks: dict[str, Task] = {}
        for plugin in plugins:
            if plugin.state != "found":
                continue
            known = self._loaded.get(plugin.name)
            task: Task | None
            if known is not None and known.identity == plugin.identity:
                task = _reconfigure(self.tasks[plugin.name], plugin, conf)
            else:
                task = self._build(plugin)
            if task is not None:
                tasks[plugin.name] = task
        self.plugins, self.tasks = plugins, tasks
        self._loaded = {plugin.name: plugin for plugin in plugins if plugin.state == "enabled"}

    def load_task(self, name: str) -> Task:
        """Find and build one task, enabled or not, without the others.

        :raises PluginError: there is none of that name, or it cannot be used
        """
        offered = self.find_tasks(self.conf)
        plugins = [plugin for plugin in offered if plugin.name == name]
        usable = [plugin for plugin in plugins if plugin.state in ("found", "disabled")]
        if not plugins:
            raise errors.NoSuchTask(name, (plugin.name for plugin in offered))
        if usable:
            catalogue.prepare(self.conf, usable[0], even_disabled=True, given=self.drivers.given)
            config.check(self.conf)
            task = None if usable[0].state == "failed" else self._build(usable[0])
            if task is not None:
                return task
        plugin = usable[0] if usable else plugins[0]
        raise errors.PluginError(
            f"The task {name} of {plugin.provider} cannot be used ({plugin.state}): {plugin.reason}"
        )

    def close(self) -> None:
        """Close the drivers, the native threads and the journal."""
        self.drivers.close()
        self.native.close()
        self.journal.close()

    def _build(self, plugin: loading.Plugin) -> Task | None:
        """Construct one task; if that fails, set the plugin aside."""
        with plugin.set_aside_if("its constructor failed"):
            task: Task = plugin.factory(self)
            if not hasattr(task, "_periodic_last_run"):
                raise errors.PluginError("its constructor does not call super().__init__(agent)")
            task.distribution = plugin.distribution
            plugin.state, plugin.reason = "enabled", ""
            return task
        return None


def _reconfigure(task: Task, plugin: loading.Plugin, conf: cfg.ConfigOpts) -> Task | None:
    """Let a task that stays take its options from `conf`; if that fails, set it aside."""
    with plugin.set_aside_if("it does not take its options"):
        task.configure(conf)
        plugin.state, plugin.reason = "enabled", ""
        return task
    return None


def _warn_if_upgraded(known: loading.Plugin, found: loading.Plugin) -> None:
    if known.version != found.version:
        LOG.warning(
            "Task %s: %s is installed now, %s stays loaded until the agent is restarted",
            found.name,
            found.provider,
            known.version,
        )


def _load_observers(agent: Agent, names: Sequence[str]) -> list[observers.Observer]:
    offered = loading.discover(observers.NAMESPACE) if names else []
    found: list[observers.Observer] = []
    for name in names:
        plugins = [plugin for plugin in offered if plugin.name == name]
        if not plugins:
            raise errors.ConfigError(
                f"[DEFAULT] observers names {name!r}, which nothing installed provides."
            )
        try:
            found.append(plugins[0].load()(agent))
        except KeyboardInterrupt:
            raise
        except BaseException as err:  # noqa: BLE001 - a vendor's observer may do anything
            LOG.error("The observer %s of %s: %s", name, plugins[0].provider, err)
    return found


def _make_state_path(conf: cfg.ConfigOpts) -> Path:
    path = Path(conf.state_path)
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(closed_files.DIRECTORY_MODE)  # whatever the umask
    except OSError as err:
        raise errors.ConfigError(
            f"[DEFAULT] state_path = {path} cannot be made: {err.strerror}. Run as the user who "
            "owns it, or set another."
        ) from err
    closed_files.close_all(path)
    return path
