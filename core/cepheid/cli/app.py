# SPDX-License-Identifier: Apache-2.0
"""The ``cepheid`` program: its global options, its configuration, how it reports errors."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
from typing import Any

from cliff import app, commandmanager
from oslo_config import cfg

from cepheid import config, loading

NAMESPACE = "cepheid.cli"


class Commands(commandmanager.CommandManager):
    """The commands, looked up anew each time and imported when they are called.

    stevedore would import all of them, from a cache that a package installed in the same second
    can leave out of date.
    """

    def load_commands(self, namespace: str) -> None:
        self.group_list.append(namespace)
        for plugin in loading.discover(namespace):
            self.commands[plugin.name.replace("_", " ")] = plugin.entry_point

    def find_command(self, argv: list[str]) -> tuple[Any, str, list[str]]:
        """Return the command that `argv` begins with, its name, and what follows.

        :raises ValueError: it begins with none; the message is what an operator is told
        """
        try:
            return super().find_command(argv)
        except ValueError as err:
            word = argv[0]
            what = "option" if word.startswith("-") else "command"
            raise ValueError(
                f"cepheid: There is no {what} {word!r}; 'cepheid --help' shows those there are."
            ) from err


class App(app.App):
    """Finds the commands in the entry points of ``cepheid.cli`` and runs one."""

    #: A command prints its result, and warnings; --verbose adds what it logs besides.
    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self) -> None:
        super().__init__(
            description="A host agent for libvirt/KVM hypervisors that runs periodic tasks.",
            version=importlib.metadata.version("cepheid"),
            command_manager=Commands(NAMESPACE),
            deferred_help=True,
        )
        self._conf: cfg.ConfigOpts | None = None

    @property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, read on first use."""
        if self._conf is None:
            self._conf = self.load_conf()
        return self._conf

    def load_conf(self) -> cfg.ConfigOpts:
        """Read the configuration anew.

        :raises ConfigError: a file or value is bad
        """
        return config.load(self.options.config_file, self.options.config_dir)

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument(
            "--config-file",
            action="append",
            metavar="PATH",
            help="A configuration file; may be given several times, a later one wins. "
            "nova.conf is understood.",
        )
        parser.add_argument(
            "--config-dir",
            action="append",
            metavar="PATH",
            help="A directory; its files that end in .conf are read in the order of their names.",
        )
        return parser

    def get_fuzzy_matches(self, cmd: str) -> list[str]:
        """Return the commands that may be meant by a first word that begins none."""
        names = sorted(name for name, _ in self.command_manager)
        words = {word for name in names for word in name.split()}
        meant = {word for word in words if word.startswith(cmd)}
        meant = meant or set(difflib.get_close_matches(cmd, sorted(words), 1))
        return [name for name in names if meant & set(name.split())]

    def run(self, argv: list[str]) -> int:
        """Run the command in `argv`, or show what there is; return the exit status."""
        return int(super().run(argv or ["help"]) or 0)
