# SPDX-License-Identifier: Apache-2.0
"""``cepheid task history``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from cepheid import catalogue, errors, loading, repetition
from cepheid.cli import base, cells, lists
from cepheid.journal import Journal

COLUMNS = (
    "Run",
    "Started",
    "Task",
    "Outcome",
    "Seconds",
    "Change",
    "Target",
    "Before",
    "After",
    "Result",
    "Reason",
)


#: How often the same was tried in vain, and since when; for people alone.
REPEATED = ("Times", "Since")

#: The newest changes in which what was tried again is looked for.
CHANGES_READ = 5000

#: The runs that are read for each that is to be listed.
READ_FACTOR = 10

#: The most runs that can be asked for.
MAX_RUNS = 1_000_000


class TaskHistory(lists.FittedLister):
    """List the latest runs, their changes, and pauses, newest last, from the journal.

    What was tried in vain again and again, with the same error, is listed once: where it was tried
    last, with how often that was and since when, as far as the newest 5000 changes tell. -f json,
    csv, yaml and value list each.
    """

    importance = (
        "Change",
        "Target",
        "Result",
        "Times",
        "Since",
        "After",
        "Before",
        "Seconds",
        "Run",
    )
    marked = "Outcome"
    result = "Result"
    shorter = {
        "Started": cells.short_times,
        "Target": cells.short_targets,
        "Since": cells.short_dates,
    }

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", nargs="?", help="only this task's runs")
        parser.add_argument(
            "--limit",
            type=_number_of_runs,
            default=20,
            metavar="RUNS",
            help="how many runs to list (default: 20)",
        )
        parser.add_argument(
            "--changed", action="store_true", help="only runs that changed, or planned, something"
        )
        parser.add_argument(
            "--each", action="store_true", help="list each change, also what was tried again"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        name = parsed_args.name
        names = {plugin.name for plugin in loading.discover(catalogue.NAMESPACE)} if name else set()
        if name and name not in names:
            known = self.read_journal(lambda it: it.runs(name, 1))
            if not known:
                raise errors.NoSuchTask(name, names)
        each = parsed_args.each or base.is_for_scripts(parsed_args)
        rows = self.read_journal(lambda it: _read(it, parsed_args, each)) or []
        if each:
            return COLUMNS, [row[: len(COLUMNS)] for row in rows]
        return COLUMNS + REPEATED, rows


def _number_of_runs(text: str) -> int:
    """Return how many runs to list.

    :raises ArgumentTypeError: there are not so many
    """
    if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_RUNS:
        return int(text)
    raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_RUNS} is wanted")


def _read(it: Journal, wanted: argparse.Namespace, each: bool) -> list[tuple[Any, ...]]:
    name, limit = wanted.name, wanted.limit
    repeated = _Repeated([] if each else it.newest_changes(CHANGES_READ, name))
    read = it.changed_runs if wanted.changed else it.runs
    told: list[tuple[str, Iterable[tuple[Any, ...]]]] = []
    for run in read(name, limit if each else limit * READ_FACTOR):
        changes = it.changes([run["id"]])
        shown = [change for change in changes if change["id"] not in repeated.earlier]
        if shown or not changes:
            told.append((run["started_at"], list(_run_rows(run, shown, repeated))))
        if len(told) == limit:
            break
    if not wanted.changed:
        oldest = told[-1][0] if len(told) == limit else ""
        told += [
            (said["at"], [_pause_row(said)])
            for said in it.pauses.said(name, limit)
            if said["at"] >= oldest
        ]
    told.reverse()
    told.sort(key=lambda at_rows: at_rows[0])
    return [row for _, rows in told for row in rows]


class _Repeated:
    """Tells which changes are listed with a later one that came to the same.

    :param changes: newest first
    """

    def __init__(self, changes: Iterable[dict[str, Any]]) -> None:
        #: The ids of those that are.
        self.earlier: set[int] = set()
        self._streaks: dict[int, list[dict[str, Any]]] = {}
        for streak in repetition.streaks(changes):
            if len(streak) > 1:
                self._streaks[streak[0]["id"]] = streak
                self.earlier |= {change["id"] for change in streak[1:]}

    def cells(self, change: dict[str, Any]) -> tuple[Any, Any]:
        """Return how often a change came to the same, and since when; empty for once."""
        streak = self._streaks.get(change["id"])
        return (len(streak), streak[-1]["started_at"][:19]) if streak else ("", "")


def _run_rows(
    run: dict[str, Any], changes: list[dict[str, Any]], repeated: _Repeated
) -> Iterable[tuple[Any, ...]]:
    seconds = "" if run["duration_seconds"] is None else f"{run['duration_seconds']:.3f}"
    outcome = run["outcome"] + (" (dry run)" if run["dry_run"] else "")
    head = (run["id"], run["started_at"][:19], run["task"], outcome, seconds)
    if not changes:
        yield (*head, "", "", "", "", "", run["error"], "", "")
    for change in changes:
        yield (*head, *cells.change(change), *repeated.cells(change))


def _pause_row(said: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row for a pause, a resume, or the first run that was held in a pause."""
    reason = said["reason"]
    if said["action"] != "held":
        until = "until resumed" if said["action"] == "pause" else ""
        if said["until"]:
            until = f"until {said['until'][:19].replace('T', ' ')} UTC"
        reason = ", ".join(part for part in (f"by {said['who']}", until, reason) if part)
    head = ("", said["at"][:19], said["task"] or "(all)", said["action"], "")
    return (*head, "", "", "", "", "", reason, "", "")
