# SPDX-License-Identifier: Apache-2.0
"""The catalogue of task plugins: which there are, which are wanted, and which can be used."""

from __future__ import annotations

import contextlib
import fnmatch
from collections import Counter
from collections.abc import Collection, Sequence

from oslo_config import cfg

from cepheid import config, drivers, errors, loading, opts
from cepheid.task import Task

NAMESPACE = "cepheid.tasks"

#: Options of every task that are reckoned with, whoever declares them.
NUMBERS = ("spacing", "time_limit", "max_changes")


class Finder:
    """Finds each kind of driver once, for a look at many tasks: it scans what is installed once.

    :param offered: where to look for them; by default, what is installed when one is asked for
    """

    def __init__(
        self, conf: cfg.ConfigOpts, offered: Sequence[loading.Plugin] | None = None
    ) -> None:
        self._conf = conf
        self._offered = offered
        self._found: dict[str, loading.Plugin | errors.PluginError] = {}

    def find(self, kind: str) -> loading.Plugin:
        """Return what :func:`drivers.find` does, or raise what it raises."""
        if self._offered is None:
            self._offered = loading.discover_under(drivers.PREFIX)
        if kind not in self._found:
            try:
                self._found[kind] = drivers.find(self._conf, kind, self._offered)
            except errors.PluginError as err:
                self._found[kind] = err
        found = self._found[kind]
        if isinstance(found, errors.PluginError):
            raise errors.PluginError(str(found)) from found
        return found


def find_tasks(
    conf: cfg.ConfigOpts,
    offered: Sequence[loading.Plugin] | None = None,
    misnamed: list[errors.ConfigError] | None = None,
) -> list[loading.Plugin]:
    """Find all task plugins and settle which are wanted; those that are stay ``found``.

    :param offered: where to look for them; by default, what is installed now
    :param misnamed: takes the errors of names that nobody provides, which are raised without it
    :raises ConfigError: enabled_tasks or disabled_tasks name a task that nobody provides
    """
    if offered is None:
        offered = loading.discover(NAMESPACE)
    plugins = [plugin for plugin in offered if plugin.namespace == NAMESPACE]
    names = sorted({plugin.name for plugin in plugins})
    bundled = {plugin.name for plugin in plugins if plugin.is_bundled}
    providers = config.register_providers(conf, names)
    loading.settle_conflicts(plugins, providers, "[task_providers] {name}")
    enabled = _select(conf.enabled_tasks, names, bundled, "enabled_tasks", misnamed)
    disabled = _select(conf.disabled_tasks, names, bundled, "disabled_tasks", misnamed)
    for plugin in plugins:
        if plugin.state != "found":
            continue
        if plugin.name in disabled:
            plugin.state, plugin.reason = "disabled", "named in disabled_tasks"
        elif plugin.name not in enabled:
            plugin.state, plugin.reason = "disabled", "not named in enabled_tasks"
    return plugins


def idle_patterns(patterns: Sequence[str], plugins: Sequence[loading.Plugin]) -> list[str]:
    """Return those of `patterns`, as enabled_tasks has them, that match no task."""
    names = [plugin.name for plugin in plugins]
    return [
        pattern
        for pattern in patterns
        if pattern != opts.BUNDLED_TASKS and not fnmatch.filter(names, pattern)
    ]


def describe(
    conf: cfg.ConfigOpts, misnamed: list[errors.ConfigError] | None = None
) -> list[loading.Plugin]:
    """Find all task plugins and load them, so that each can be described, without running any.

    :param misnamed: as for :func:`find_tasks`
    """
    offered = loading.discover_under(drivers.PREFIX)
    plugins = find_tasks(conf, offered, misnamed)
    finder = Finder(conf, offered)
    for plugin in plugins:
        if plugin.state == "found":
            prepare(conf, plugin, finder=finder)
            if plugin.state == "found":
                plugin.state = "enabled"
        elif plugin.state == "disabled":
            reason = plugin.reason
            prepare(conf, plugin, even_disabled=True, finder=finder)
            if plugin.state == "disabled":
                plugin.reason = reason
        else:
            try:
                plugin.load()
            except errors.PluginError as err:
                plugin.reason = f"{plugin.reason}; {err}"
    return plugins


def prepare(
    conf: cfg.ConfigOpts,
    plugin: loading.Plugin,
    even_disabled: bool = False,
    given: Collection[str] = (),
    finder: Finder | None = None,
) -> None:
    """Load a task plugin's class and register its options and those of its drivers.

    Whatever fails is written into the plugin's state and reason, as is that its own options
    switch it off.

    :param given: kinds of drivers that need not be found
    :param finder: who finds the others, where many tasks are prepared
    """
    finder = finder or Finder(conf)
    with (
        plugin.set_aside_if("it declares something bad"),
        # Of a bad value: config.check() names it, and nothing is started.
        contextlib.suppress(ValueError, cfg.Error),
    ):
        _register_options(conf, plugin)
        for kind in plugin.factory.drivers or ():
            if kind not in given:
                finder.find(kind)
        options = conf[plugin.name]
        _require_numbers(options)
        if even_disabled:
            return
        if not options.enabled:
            plugin.state, plugin.reason = "disabled", f"[{plugin.name}] enabled is false"
        elif options.spacing < 0:
            plugin.state, plugin.reason = "disabled", f"[{plugin.name}] spacing is negative"


def require_usable(plugins: Sequence[loading.Plugin]) -> None:
    """Refuse to go on where tasks are wanted, and not one of them can be used.

    :raises PluginError: the message has the reason that most of them have
    """
    states = Counter(plugin.state for plugin in plugins)
    if states["enabled"] or not states["failed"]:
        return
    reasons = Counter(plugin.reason for plugin in plugins if plugin.state == "failed")
    ((reason, _),) = reasons.most_common(1)
    raise errors.PluginError(
        f"None of the {states['failed']} tasks that are enabled can be used; 'cepheid task list' "
        f"has the reasons, such as: {reason}"
    )


def _register_options(conf: cfg.ConfigOpts, plugin: loading.Plugin) -> None:
    factory = plugin.load()
    if not (isinstance(factory, type) and issubclass(factory, Task)):
        raise errors.PluginError(f"{plugin.entry_point.value} is not a subclass of cepheid.Task")
    if factory.task_name() != plugin.name:
        raise errors.PluginError(
            f"{plugin.entry_point.value} is the task {factory.task_name()!r}; "
            f"name the entry point {plugin.name!r} and the task alike"
        )
    try:
        conf.register_opts(factory.all_options(), group=plugin.name)
        for group, options in factory.shared_options:
            conf.register_opts(options, group=group)
    except KeyboardInterrupt:
        raise
    except BaseException as err:
        raise errors.PluginError(f"its options are bad: {type(err).__name__}: {err}") from err


def _require_numbers(options: cfg.ConfigOpts.GroupAttr) -> None:
    """Refuse a task whose own option in the place of a common one is not a number."""
    for name in NUMBERS:
        if not isinstance(options[name], int | float):
            raise errors.PluginError(
                f"its option {name} is {options[name]!r}; it must be a number and have a default"
            )


def _select(
    patterns: Sequence[str],
    names: Sequence[str],
    bundled: set[str],
    option: str,
    misnamed: list[errors.ConfigError] | None,
) -> set[str]:
    selected: set[str] = set()
    for pattern in patterns:
        if pattern == opts.BUNDLED_TASKS:
            selected |= bundled
            continue
        matches = set(fnmatch.filter(names, pattern))
        if not matches and not set(pattern) & set("*?["):
            error = errors.ConfigError(
                f"[DEFAULT] {option} names the task {pattern!r}, which nothing installed "
                "provides. Install the package that does, or correct the name "
                "('cepheid task list' shows those there are)."
            )
            if misnamed is None:
                raise error
            misnamed.append(error)
        selected |= matches
    return selected
