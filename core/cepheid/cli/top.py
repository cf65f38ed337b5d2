# SPDX-License-Identifier: Apache-2.0
"""``cepheid top``."""

from __future__ import annotations

import argparse
import os
import sys

from cepheid import errors
from cepheid.cli import base
from cepheid.cli.status import add_ascii


class TopCommand(base.Command):
    """Show how the agent is and what it does, again and again; run and pause tasks by a key.

    Keys: q quit; arrows or j, k choose a task; r run it now; d dry run; p pause or resume it;
    s sort.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=1.0,
            metavar="SECONDS",
            help="between two looks at the agent (default: 1)",
        )
        add_ascii(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise errors.CepheidError("top needs a terminal; 'cepheid status' does without.")
        if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
            raise errors.CepheidError(
                "top cannot draw on a terminal of TERM = dumb; 'cepheid status' does without."
            )
        from cepheid.terminal import live, page

        console, shapes = page.console(parsed_args.ascii)
        live.Live(self.conf, console, shapes, parsed_args.interval).run()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("from 0.1 to 3600 seconds")
    return seconds
