# SPDX-License-Identifier: Apache-2.0
"""``cepheid driver list | check``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from cepheid import admin, config, drivers, errors, loading
from cepheid.cli import base, lists


class DriverList(lists.FittedLister):
    """List every driver that is installed, which of each kind is chosen, and why one is not there.

    In use are those that the running agent has built. Where another one is chosen by now, it
    comes with the agent's next start.
    """

    importance = ("Chosen", "In use", "Summary", "Distribution", "Version")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        conf = self.conf
        kinds = drivers.find_all(conf)
        config.check(conf)
        live = admin.ask(conf.state_path, "status") or {}
        used = {row["kind"]: (row["name"], row["distribution"]) for row in live.get("drivers", ())}
        columns = (
            "Kind",
            "Name",
            "Chosen",
            "State",
            "Reason",
            "In use",
            "Distribution",
            "Version",
            "Summary",
        )
        is_whole = base.is_for_scripts(parsed_args)
        return columns, [
            row for kind in kinds for row in _rows(kind, used.get(kind.name), is_whole)
        ]


def _rows(
    kind: drivers.Kind, used: tuple[str, str] | None, is_whole: bool
) -> Iterator[tuple[str, ...]]:
    if kind.reason:
        yield (kind.name, kind.wanted or "", "yes", "missing", kind.reason, "", "", "", "")
    for plugin in kind.plugins:
        yield (
            kind.name,
            plugin.name,
            "yes" if plugin.name == kind.wanted else "",
            plugin.state,
            plugin.reason,
            "yes" if used == (plugin.name, plugin.distribution) else "",
            plugin.distribution,
            plugin.version,
            lists.summary(plugin, is_whole),
        )


class DriverCheck(base.Command):
    """Build the driver that is chosen for a kind, and let it check that it can work.

    This is what the agent does at its start with the drivers that its tasks need.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("kind", metavar="KIND", help="the kind, such as bandwidth")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        kind = parsed_args.kind
        with self.agent() as agent:
            if kind not in drivers.DEFAULTS and not loading.discover(drivers.PREFIX + kind):
                raise errors.PluginError(
                    f"There is no kind of driver {kind!r}; 'cepheid driver list' shows those "
                    "there are."
                )
            driver = agent.driver(kind)
            config.check(agent.conf)
            agent.drivers.check()
            plugin = agent.drivers.in_use[kind]
        checked = "works" if hasattr(driver, "check") else "is built; it has no check of its own"
        print(f"The {kind} driver {plugin.name} of {plugin.provider} {checked}.")
