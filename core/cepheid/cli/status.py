# SPDX-License-Identifier: Apache-2.0
"""``cepheid status``."""

from __future__ import annotations

import argparse
import json

from cepheid import overview
from cepheid.cli import base

#: The exit status by the state of the health, as monitoring plugins have it: OK, WARNING,
#: CRITICAL, UNKNOWN. Source: Nagios Plugin Development Guidelines, plugin return codes.
EXIT_STATUS = {"ok": 0, "attention": 1, "failing": 2, "unknown": 3}

#: The changes that are shown unless told otherwise.
CHANGES = 8


class StatusCommand(base.Command):
    """Show how the agent is and what it does: health, tasks, their last hour, newest changes.

    The exit status is 0 where all is well, 1 where something needs a look, 2 where something
    fails, 3 where no agent answers or it cannot be told; then the journal is shown.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "-f",
            "--format",
            choices=("text", "json"),
            default="text",
            help="text, or the whole overview as json for scripts (default: text)",
        )
        parser.add_argument(
            "--brief", action="store_true", help="one line that says whether all is well"
        )
        parser.add_argument(
            "--changes",
            type=number_of_changes,
            default=CHANGES,
            metavar="N",
            help=f"how many of the newest changes to show (default: {CHANGES}, at most "
            f"{overview.MAX_CHANGES})",
        )
        add_ascii(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Carry out the command; whatever keeps the state from being told is not known."""
        self._status = EXIT_STATUS["unknown"]
        super().run(parsed_args)
        return self._status

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        # Imported here, as each command's rich is: the other commands do without.
        from cepheid.terminal import page, source, view

        document = source.Source(self.conf).look()
        if parsed_args.format == "json":
            print(json.dumps(document, indent=2))
        else:
            console, shapes = page.console(parsed_args.ascii)
            if parsed_args.brief:
                print(view.brief(document, shapes))
            else:
                page.show(console, document, shapes, parsed_args.changes)
        self._status = EXIT_STATUS[document["health"]["state"]]


def number_of_changes(text: str) -> int:
    """Return how many changes to show.

    :raises ArgumentTypeError: there are not so many
    """
    if text.isascii() and text.isdigit() and int(text) <= overview.MAX_CHANGES:
        return int(text)
    raise argparse.ArgumentTypeError(f"a number from 0 to {overview.MAX_CHANGES} is wanted")


def add_ascii(parser: argparse.ArgumentParser) -> None:
    """Add the option for terminals whose fonts lack the shapes."""
    parser.add_argument(
        "--ascii", action="store_true", help="draw with ASCII alone, whatever the terminal can show"
    )
