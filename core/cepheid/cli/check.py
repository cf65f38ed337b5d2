# SPDX-License-Identifier: Apache-2.0
"""``cepheid task check``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cepheid.cli import base
from cepheid.cli.printable import printable
from cepheid.testing.conformance.check import check
from cepheid.testing.conformance.findings import FAILED, OK

COLUMNS = ("Task", "Check", "Result", "What", "Where", "Remedy")


class TaskCheck(base.Lister):
    """Check whether an installed package of tasks keeps the rules for them.

    Its tasks run with drivers in memory, in processes that may write to a temporary directory
    only. The exit status is 0 where no check failed, and 1 otherwise.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("distribution", metavar="DIST", help="its name, as 'pip list' shows it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        found = check(parsed_args.distribution)
        self._failed = any(one.result == FAILED for one in found)
        return COLUMNS, [
            (one.task, one.check, one.result, one.what, one.where, one.remedy) for one in found
        ]

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]
    ) -> int:
        """Print a line for each check; a table would be too wide for what they say."""
        if parsed_args.formatter != "table" or parsed_args.columns:
            return int(super().produce_output(parsed_args, column_names, data) or 0)
        counted: Counter[str] = Counter()
        for task, name, result, what, where, remedy in data:
            counted[result] += 1
            self.app.stdout.write(printable(_line(task, name, result, what, where, remedy)) + "\n")
        summary = ", ".join(f"{number} {result}" for result, number in sorted(counted.items()))
        self.app.stdout.write(f"{parsed_args.distribution}: {summary}\n")
        return 0

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Check, and say with the exit status whether all is well."""
        self._failed = False
        status = super().run(parsed_args)
        return status or int(self._failed)


def _line(task: str, name: str, result: str, what: str, where: str, remedy: str) -> str:
    text = f"{result:<8} {f'{task}: ' if task else ''}{name}"
    if result == OK:
        return text
    place = f" [{where}]" if where else ""
    mend = f". To mend it: {remedy}." if remedy else ""
    return f"{text}: {what}{place}{mend}"
