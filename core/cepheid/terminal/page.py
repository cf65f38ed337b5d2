# SPDX-License-Identifier: Apache-2.0
"""An overview printed once, from top to bottom."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from cepheid.terminal import shapes, task_table, view

Document = dict[str, Any]

#: Characters by which the further lines of a long text stand in.
INDENT = 4


def console(ascii_only: bool = False) -> tuple[Console, shapes.Shapes]:
    """Return standard output as rich has it, and the shapes that it can show.

    rich leaves colours out where NO_COLOR says so, and all escape sequences where it is no
    terminal or a dumb one.
    """
    output = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    if ascii_only:
        return output, shapes.ASCII
    terminal = os.environ.get("TERM", "dumb")
    return output, shapes.choose(output.encoding, terminal, output.is_terminal)


def show(output: Console, document: Document, drawn: shapes.Shapes, changes: int) -> None:
    """Print an overview.

    :param changes: how many of the newest are shown
    """
    width = output.width
    _print(output, drawn, [view.headline(document, drawn), view.facts(document, drawn)])
    _wrap(output, view.points(document, drawn))
    if document["tasks"]:
        output.print()
        output.print(task_table.table(document, drawn, width))
        _wrap(output, [task_table.legend(document, drawn)])
    for title, lines in (
        ("Operators' commands", view.operations(document, drawn, width)),
        ("Newest changes", view.changes(document, drawn, width, changes)),
    ):
        if lines:
            output.print()
            output.print(title, style="bold")
            _print(output, drawn, lines)
    lines = view.rest(document, drawn)
    if lines:
        output.print()
        _wrap(output, lines)


def _print(output: Console, drawn: shapes.Shapes, lines: Iterable[Text]) -> None:
    """Print lines, each on one line of the terminal."""
    for line in lines:
        output.print(drawn.cut(line, output.width), no_wrap=True, overflow="ignore")


def _wrap(output: Console, lines: Iterable[Text]) -> None:
    """Print lines, each as long as it is."""
    for line in lines:
        first, *more = (
            line.wrap(output, output.width)
            if len(line) <= output.width
            else (line.wrap(output, output.width - INDENT))
        )
        for part in (first, *more):
            part.rstrip()
        output.print(first, no_wrap=True)
        for part in more:
            output.print(Text(" " * INDENT).append_text(part), no_wrap=True)
