# SPDX-License-Identifier: Apache-2.0
"""Lists: tables that a terminal has room for, with the reasons below."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from cliff import utils
from cliff.formatters import table

from cepheid.cli import base
from cepheid.loading import Plugin

Rows = list[tuple[Any, ...]]

#: Writes the cells of a column shorter.
Shorten = Callable[[list[Any]], list[Any]]

#: What a table needs around a cell: a line, and a space on either side.
BORDER_WIDTH = 3

#: Characters of a docstring's first line in a list.
SUMMARY_WIDTH = 60


class FittedLister(base.Lister):
    """Lists in a table that fits the terminal; a column ``Reason`` then stands below it."""

    #: The columns that a narrow table may lack, those that matter most first.
    importance: Sequence[str] = ()
    #: The column that says which reason below is meant.
    marked = "State"
    #: The column whose cells are a word, or a word and an error that then stands below as well.
    result = ""
    #: How the cells of a column are written in a narrow table, by column.
    shorter: Mapping[str, Shorten] = {}

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]
    ) -> int:
        """Print the rows; a table that shows every column fits the terminal."""
        if parsed_args.formatter == "table" and not parsed_args.columns:
            self.formatter = FittedTable(self.importance, self.marked, self.shorter, self.result)
        return int(super().produce_output(parsed_args, column_names, data) or 0)


class FittedTable(table.TableFormatter):
    """A table without its empty columns, and no wider than the terminal.

    Where it would be wider, cells are written shorter; where that is not enough, reasons and errors
    stand below, each once, and columns are left out.

    :param importance: the columns that may be left out, those that matter most first
    :param marked: the column that says which reason below is meant
    :param shorter: how cells are written shorter, by column
    :param result: the column whose cells are a word, or a word and an error
    """

    def __init__(
        self,
        importance: Sequence[str],
        marked: str = "State",
        shorter: Mapping[str, Shorten] | None = None,
        result: str = "",
    ) -> None:
        self.importance = importance
        self.marked = marked
        self.shorter = shorter or {}
        self.result = result

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        names, rows = list(column_names), [tuple(row) for row in data]
        if rows:
            told = {name for name in names if any(_cells(names, rows, name))}
            names, rows = keep(names, rows, told)
        width = _width_there_is(parsed_args)
        notes: list[str] = []
        if width and width_of(names, rows) > width:
            rows = _shortened(names, rows, self.shorter)
        if width and width_of(names, rows) > width:
            names, rows = with_errors_as_reasons(names, rows, self.result)
            names, rows, notes = with_notes(names, rows, self.marked)
            names, rows = fit(names, rows, width, self.importance)
        super().emit_list(names, rows, stdout, parsed_args)
        for number, note in enumerate(notes, 1):
            stdout.write(_wrapped(f"[{number}] ", note, width or 0) + "\n")


def _shortened(names: Sequence[str], rows: Rows, shorter: Mapping[str, Shorten]) -> Rows:
    columns = [_cells(names, rows, name) for name in names]
    for place, name in enumerate(names):
        if name in shorter:
            columns[place] = shorter[name](columns[place])
    return list(zip(*columns, strict=True))


def _wrapped(mark: str, note: str, width: int) -> str:
    # A command is to be copied from one line.
    whole = note.replace("pip install ", "pip\N{NO-BREAK SPACE}install\N{NO-BREAK SPACE}")
    text = textwrap.fill(
        mark + whole,
        width,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace("\N{NO-BREAK SPACE}", " ")


def _width_there_is(parsed_args: argparse.Namespace) -> int | None:
    """Return the characters of a line, as cliff would; nothing where any number will do."""
    if parsed_args.max_width > 0:
        return int(parsed_args.max_width)
    if sys.stdout.isatty() or parsed_args.fit_width:
        return utils.terminal_width()
    return None


def width_of(names: Sequence[str], rows: Rows) -> int:
    """Return the characters of a line of a table."""
    return 1 + sum(
        max(len(str(cell)) for cell in (name, *_cells(names, rows, name))) + BORDER_WIDTH
        for name in names
    )


def keep(names: Sequence[str], rows: Rows, kept: Iterable[str]) -> tuple[list[str], Rows]:
    """Return the table with these columns alone."""
    places = [place for place, name in enumerate(names) if name in kept]
    return [names[place] for place in places], [tuple(row[p] for p in places) for row in rows]


def with_errors_as_reasons(names: Sequence[str], rows: Rows, result: str) -> tuple[list[str], Rows]:
    """Move what follows the word of each cell of `result` to the column ``Reason``."""
    if result not in names:
        return list(names), rows
    told = _cells(names, rows, result)
    if "Reason" not in names:
        names, rows = [*names, "Reason"], [(*row, "") for row in rows]
    at, reason = names.index(result), names.index("Reason")
    moved = []
    for row, cell in zip(rows, told, strict=True):
        cells = list(row)
        cells[at], _, error = cell.partition(": ")
        if error:
            cells[reason] = "; ".join(part for part in (row[reason], cell) if part)
        moved.append(tuple(cells))
    return list(names), moved


def with_notes(names: Sequence[str], rows: Rows, marked: str) -> tuple[list[str], Rows, list[str]]:
    """Move the column ``Reason`` below: the cells of `marked` get its number, as ``[1]``."""
    if "Reason" not in names:
        return list(names), rows, []
    state, reason = names.index(marked), names.index("Reason")
    notes = list(dict.fromkeys(row[reason] for row in rows if row[reason]))
    numbered = []
    for row in rows:
        mark = f" [{notes.index(row[reason]) + 1}]" if row[reason] else ""
        numbered.append((*row[:state], row[state] + mark, *row[state + 1 :]))
    names, rows = keep(names, numbered, set(names) - {"Reason"})
    return names, rows, notes


def fit(
    names: Sequence[str], rows: Rows, width: int, importance: Sequence[str]
) -> tuple[list[str], Rows]:
    """Return the table with the columns that there is room for, the most important ones first.

    Who provides a plugin matters most where not all are of one distribution, and least where
    they are.
    """
    order = list(importance)
    if "Distribution" in names and len(set(_cells(names, rows, "Distribution"))) > 1:
        order = ["Distribution", *order]
    kept = set(names) - set(importance)
    for name in order:
        if name in names and width_of(*keep(names, rows, kept | {name})) <= width:
            kept.add(name)
    return keep(names, rows, kept)


def summary(plugin: Plugin, is_whole: bool = False) -> str:
    """Return a plugin's summary, shortened where it is long unless it is to be whole."""
    first = plugin.summary
    if is_whole:
        return first
    return first if len(first) <= SUMMARY_WIDTH else first[: SUMMARY_WIDTH - 1] + "…"


def _cells(names: Sequence[str], rows: Rows, name: str) -> list[Any]:
    place = list(names).index(name)
    return [row[place] for row in rows]
