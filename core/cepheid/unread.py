# SPDX-License-Identifier: Apache-2.0
"""Options in Cepheid's configuration files that nothing reads: most of them are misspelt."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

from cepheid import config, errors, loading

#: The libraries whose options Cepheid's configuration may have: their names in oslo.config.opts.
LIBRARIES = ("oslo.log", "oslo.messaging")

#: Those whose options take a library that an agent may do without; they are asked last.
COSTLY = ("oslo.messaging", "cepheid.network.neutron")

#: The name of a file that is Nova's, such as nova.conf or 00-nova.conf.
NOVA = re.compile(r"(?<![a-z])nova")

#: The names of each group's options, those included that it had before.
Names = dict[str, set[str]]


@dataclass(frozen=True)
class Unread:
    """An option in a file that nothing reads.

    :param nearest: what it may be meant to be, with its group; empty where nothing is like it
    """

    group: str
    name: str
    path: Path
    nearest: str = ""

    def __str__(self) -> str:
        """Return it in words: ``[acme] kye in /etc/cepheid/cepheid.conf (is it [acme] key?)``."""
        guess = f" (is it {self.nearest}?)" if self.nearest else ""
        return f"[{self.group}] {self.name} in {self.path}{guess}"


def find(conf: cfg.ConfigOpts, plugins: Sequence[loading.Plugin]) -> list[Unread]:
    """Find the options that nothing installed reads, in the order of the files.

    :param plugins: all tasks; nothing is said of the options of one that is not loaded
    """
    written = [(path, group, name) for path in _files(conf) for group, name in _read(path)]
    names = _names_of_tasks(plugins)
    _add_registered(names, conf)
    unread = [one for one in written if not _is_known(names, *one[1:])]
    for offered in _offered() if unread else ():
        _add_offered(names, offered)
        unread = [one for one in unread if not _is_known(names, *one[1:])]
        if not unread:
            break
    unloaded = {plugin.name for plugin in plugins if not _is_loaded(plugin)}
    unloaded -= {plugin.name for plugin in plugins if _is_loaded(plugin)}
    return [
        Unread(group, name, path, _nearest(names, group, name))
        for path, group, name in unread
        if group not in unloaded
    ]


def _is_known(names: Names, group: str, name: str) -> bool:
    return bool({name, name.replace("-", "_")} & names.get(group, set()))


def _is_loaded(plugin: loading.Plugin) -> bool:
    """Tell whether it is a task's class, and not one set aside, whose options may be the cause."""
    return plugin.state != "failed" and hasattr(plugin.factory, "all_options")


def _names_of_tasks(plugins: Iterable[loading.Plugin]) -> Names:
    names: Names = {"task_providers": {plugin.name for plugin in plugins}}
    for plugin in plugins:
        if not _is_loaded(plugin):
            continue
        _add(names, plugin.name, plugin.factory.all_options())
        for group, options in plugin.factory.shared_options:
            _add(names, group, options)
    return names


def _add_registered(names: Names, conf: cfg.ConfigOpts) -> None:
    """Add what is registered, such as the options of a vendor's driver that is in use."""
    names.setdefault("DEFAULT", set()).update(conf)
    for name in conf:
        if isinstance(conf[name], cfg.ConfigOpts.GroupAttr):
            names.setdefault(name, set()).update(conf[name])


def _offered() -> list[loading.Plugin]:
    """Return who tells options to oslo.config's generator, and may be meant; costly ones last."""
    found = [
        plugin
        for plugin in loading.discover("oslo.config.opts")
        if plugin.is_bundled or plugin.name in LIBRARIES
    ]
    return [
        *(plugin for plugin in found if plugin.name not in COSTLY),
        *(plugin for name in COSTLY for plugin in found if plugin.name == name),
    ]


def _add_offered(names: Names, offered: loading.Plugin) -> None:
    try:
        list_opts = offered.load()
    except errors.PluginError:
        return  # without the library nothing reads its options
    for group, options in list_opts():
        _add(names, str(group or "DEFAULT"), options)


def _add(names: Names, group: str, options: Iterable[cfg.Opt]) -> None:
    for option in options:
        names.setdefault(group, set()).update((option.name, option.dest))
        for old in option.deprecated_opts:
            names.setdefault(old.group or group, set()).add(old.name or option.name)


def _nearest(names: Names, group: str, name: str) -> str:
    likely = group if group in names else _like(group, names)
    if likely is None:
        return ""
    option = _like(name.replace("-", "_"), names[likely])
    return "" if option is None else f"[{likely}] {option}"


def _like(name: str, known: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, sorted(known), 1)), None)


def _files(conf: cfg.ConfigOpts) -> list[Path]:
    """Return the configuration files that are Cepheid's: most of a nova.conf is not for it."""
    return [Path(path) for path in config.files_of(conf) if not _is_novas(path)]


def _is_novas(path: str) -> bool:
    """Tell whether a file is Nova's by its own name or that of what it links to."""
    names = (os.path.basename(path), os.path.basename(os.path.realpath(path)))
    return any(NOVA.search(name) for name in names)


def _read(path: Path) -> list[tuple[str, str]]:
    """Return the options in a file, with their groups."""
    sections: dict[str, dict[str, list[str]]] = {}
    cfg.ConfigParser(str(path), sections).parse()
    return [(group, name) for group, names in sections.items() for name in names]
