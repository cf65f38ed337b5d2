# SPDX-License-Identifier: Apache-2.0
"""What the commands have in common."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cliff import command, lister, show
from oslo_config import cfg

from cepheid import admin, config, errors, journal_priorities
from cepheid.agent import Agent
from cepheid.cli.printable import printable
from cepheid.journal import FILE_NAME, Journal

T = TypeVar("T")


class _WithConfiguration(command.Command):
    """A command that reads the configuration."""

    #: What it exits with when its result is printed. One that was carried out in part sets it.
    exit_code = 0

    def get_epilog(self) -> str:
        """Return how the help ends.

        cliff names there whose command it is if it is another's than the program's. It scans all
        distributions for that, whenever a command is run.
        """
        if type(self).__module__.partition(".")[0] in ("cepheid", "cepheid_plugins"):
            return self._epilog or ""
        return str(super().get_epilog())

    @property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration; it is read on first use."""
        return self.app.conf  # type: ignore[attr-defined, no-any-return]

    @contextmanager
    def agent(self) -> Iterator[Agent]:
        """Give an agent without timers, for its drivers and its journal."""
        agent = Agent(self.conf)
        try:
            config.check(self.conf)
            yield agent
        finally:
            agent.close()

    def read_journal(self, read: Callable[[Journal], T]) -> T | None:
        """Return what `read` finds in the journal; None where there is no journal yet."""
        path = Path(self.conf.state_path) / FILE_NAME
        if not path.exists():
            return None
        journal = Journal(path)
        try:
            return read(journal)
        finally:
            journal.close()

    def ask_agent(self, command: str) -> Any:
        """Return the running agent's answer; None where none runs."""
        return admin.ask(self.conf.state_path, command)

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Carry out the command; an error of the operator's is one line, not a traceback."""
        try:
            return self._run(parsed_args)
        except errors.CepheidError as err:
            if self.app.options.debug:
                raise
            if not isinstance(err, errors.AlreadyReported):
                line = f"cepheid: {printable(str(err))}"
                if journal_priorities.is_journal(sys.stderr):
                    line = journal_priorities.marked(line, logging.ERROR)
                print(line, file=sys.stderr)
            return err.exit_code

    def _run(self, parsed_args: argparse.Namespace) -> int:
        try:
            return int(super().run(parsed_args) or self.exit_code)
        except PermissionError as err:
            if not err.filename or os.geteuid() == 0:
                raise  # of something else than this user's rights to the agent's files
            raise errors.NotPermitted(err.filename) from err

    def say(self, text: str) -> None:
        """Tell the operator something beside the result."""
        print(printable(text), file=sys.stderr)


class Command(_WithConfiguration):
    """A command that prints what it wants."""


class Lister(_WithConfiguration, lister.Lister):
    """A command that answers with rows: a table, json, yaml, csv or values."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]
    ) -> int:
        """Print the rows; what is for people has no control characters."""
        if _is_for_people(parsed_args):
            data = [tuple(printable(cell) for cell in row) for row in data]
        return int(super().produce_output(parsed_args, column_names, data) or 0)


class ShowOne(_WithConfiguration, show.ShowOne):
    """A command that answers with the fields of one thing."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]
    ) -> int:
        """Print the fields; what is for people has no control characters."""
        if _is_for_people(parsed_args):
            data = [printable(value) for value in data]
        return int(super().produce_output(parsed_args, column_names, data) or 0)


def is_for_scripts(parsed_args: argparse.Namespace) -> bool:
    """Tell whether the format is one that programs read: whole texts, ISO times, numbers."""
    return bool(parsed_args.formatter != "table")


def _is_for_people(parsed_args: argparse.Namespace) -> bool:
    return parsed_args.formatter == "table" or sys.stdout.isatty()
