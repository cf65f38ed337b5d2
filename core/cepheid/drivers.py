# SPDX-License-Identifier: Apache-2.0
"""Drivers: what tasks share. A kind leads to a namespace, a configured name and one object.

The core knows no driver's contract: a task asks for a kind and knows what it gets.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from cepheid import errors, loading

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: The driver of each bundled kind when ``[KIND] driver`` is not set. Of another kind, the only
#: one that is installed.
DEFAULTS = {
    "bandwidth": "libvirt",
    "database": "sqlalchemy",
    "hypervisor": "libvirt",
    "network": "libvirt",
    "notifications": "messaging",
    "scheduler": "messaging",
}


#: Every kind has a namespace of its own that begins so. These others do too.
PREFIX = "cepheid."
OTHER_NAMESPACES = (
    "cepheid.cli",
    "cepheid.observers",
    "cepheid.tasks",
    "cepheid.testing",
    "cepheid.upgrade_checks",
)


@dataclass
class Kind:
    """A kind of driver: what is installed of it, and which of that is wanted.

    A plugin's state is ``installed``, ``failed`` or ``in conflict``.
    """

    name: str
    wanted: str | None
    plugins: list[loading.Plugin]
    #: Why nothing that is installed is the one wanted; empty where something is.
    reason: str = ""


def driver_option(kind: str) -> cfg.Opt:
    """Return the option that names the driver of a kind, for group ``[KIND]``."""
    return cfg.StrOpt(
        "driver",
        default=DEFAULTS.get(kind),
        help=f"The {kind} driver: the name of an entry point in cepheid.{kind}.",
    )


def find(
    conf: cfg.ConfigOpts, kind: str, offered: Iterable[loading.Plugin] | None = None
) -> loading.Plugin:
    """Return the plugin that is configured for `kind`, loaded, its options registered.

    :param offered: where to look for it; by default, what is installed now
    :raises PluginError: there is none, or several, or it cannot be loaded
    """
    namespace = PREFIX + kind
    if offered is None:
        offered = loading.discover(namespace)
    return _choose(conf, kind, [plugin for plugin in offered if plugin.namespace == namespace])


def find_all(conf: cfg.ConfigOpts) -> list[Kind]:
    """Find every kind of driver there is, and load all that is installed of each."""
    kinds: dict[str, list[loading.Plugin]] = {kind: [] for kind in DEFAULTS}
    for plugin in loading.discover_under(PREFIX):
        if plugin.namespace not in OTHER_NAMESPACES:
            kinds.setdefault(plugin.namespace.removeprefix(PREFIX), []).append(plugin)
    return [_look_at(conf, kind, plugins) for kind, plugins in sorted(kinds.items())]


def _look_at(conf: cfg.ConfigOpts, kind: str, plugins: list[loading.Plugin]) -> Kind:
    found = Kind(kind, _wanted(conf, kind, plugins), plugins)
    try:
        _choose(conf, kind, plugins)
    except errors.PluginError as err:
        if not any(plugin.name == found.wanted for plugin in plugins):
            found.reason = str(err)
    for plugin in plugins:
        if plugin.state == "found":
            try:
                plugin.load()
                plugin.state = "installed"
            except errors.PluginError as err:
                plugin.fail(err)
    return found


def _wanted(conf: cfg.ConfigOpts, kind: str, offered: list[loading.Plugin]) -> str | None:
    """Return the name that is configured, or the only one there is."""
    conf.register_opt(driver_option(kind), group=kind)
    name: str | None = conf[kind].driver
    names = {plugin.name for plugin in offered}
    return names.pop() if name is None and len(names) == 1 else name


def _choose(conf: cfg.ConfigOpts, kind: str, offered: list[loading.Plugin]) -> loading.Plugin:
    name = _wanted(conf, kind, offered)
    chosen = [plugin for plugin in offered if plugin.name == name]
    if not chosen:
        names = ", ".join(sorted({plugin.name for plugin in offered})) or "none"
        raise errors.PluginError(
            f"[{kind}] driver = {name or '(not set)'}: no such driver is installed; "
            f"installed are: {names}."
        )
    if len(chosen) > 1:
        providers = " and ".join(plugin.provider for plugin in chosen)
        for plugin in chosen:
            plugin.state, plugin.reason = "in conflict", f"offered by {providers}; uninstall one"
        raise errors.PluginError(
            f"The {kind} driver {name} is offered by {providers}; uninstall one of them."
        )
    plugin = chosen[0]
    try:
        conf.register_opts(list(getattr(plugin.load(), "options", ())), group=kind)
    except errors.PluginError as err:
        plugin.fail(err)
        raise errors.PluginError(
            f"The {kind} driver {name} of {plugin.provider} cannot be loaded: {err}"
        ) from err
    except (cfg.Error, TypeError, AttributeError) as err:
        plugin.fail(f"bad options: {err}")
        raise errors.PluginError(
            f"The {kind} driver {name} of {plugin.provider} has bad options: {err}"
        ) from err
    return plugin


class DriverSet:
    """The drivers of one agent: each is built on first use, shared, and closed at the end."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._drivers: dict[str, Any] = {}
        self._plugins: dict[str, loading.Plugin] = {}
        #: The kinds whose drivers were given, whatever is configured.
        self.given: set[str] = set()
        self._lock = threading.RLock()

    def get(self, kind: str) -> Any:
        """Return the agent's driver of `kind`.

        :raises PluginError: it cannot be had
        """
        with self._lock:
            if kind not in self._drivers:
                self._drivers[kind] = self._build(kind)
            return self._drivers[kind]

    def _build(self, kind: str) -> Any:
        plugin = self._plugins[kind] = find(self._agent.conf, kind)
        try:
            return plugin.factory(self._agent)
        except (errors.CepheidError, KeyboardInterrupt):
            raise
        except BaseException as err:  # a vendor's driver may do anything
            LOG.debug("The %s driver %s cannot be built", kind, plugin.name, exc_info=True)
            raise errors.PluginError(
                f"The {kind} driver {plugin.name} of {plugin.provider} cannot be built: "
                f"{type(err).__name__}: {err}"
            ) from err

    def use(self, kind: str, driver: Any) -> None:
        """Let `driver` be the agent's driver of `kind`, whatever is configured."""
        self._drivers[kind] = driver
        self.given.add(kind)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the drivers in use."""
        return [kind for kind in self._drivers if kind not in self.given]

    @property
    def built(self) -> dict[str, Any]:
        """The drivers themselves, by kind, those included that were given."""
        return dict(self._drivers)

    @property
    def in_use(self) -> dict[str, loading.Plugin]:
        """The plugins of the drivers in use, by kind."""
        return {kind: self._plugins[kind] for kind in self.kinds}

    def prepare(self, conf: cfg.ConfigOpts) -> None:
        """Register the options of the drivers in use with a configuration read anew.

        It may have chosen others, which come with the next start; until then these go on.
        """
        for kind, plugin in self.in_use.items():
            find(conf, kind)
            for option in getattr(plugin.factory, "options", ()):
                with contextlib.suppress(cfg.DuplicateOptError):  # the other's, of that name
                    conf.register_opt(option, group=kind)

    def check(self) -> None:
        """Let every driver in use that can check itself do so.

        :raises CepheidError: one of them cannot work as it is configured
        """
        for driver in list(self._drivers.values()):
            check = getattr(driver, "check", None)
            if check is not None:
                check()

    def serve(self) -> None:
        """Let every driver in use begin what it does of its own accord, in an agent with timers."""
        for driver in list(self._drivers.values()):
            serve = getattr(driver, "serve", None)
            if serve is not None:
                serve()

    def close(self) -> None:
        """Close the drivers; an error in one does not keep the others open."""
        with self._lock:
            for kind, driver in reversed(list(self._drivers.items())):
                close = getattr(driver, "close", None)
                try:
                    if close is not None:
                        close()
                except KeyboardInterrupt:
                    raise
                except BaseException:
                    LOG.exception("The %s driver did not close", kind)
            self._drivers.clear()
