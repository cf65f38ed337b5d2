# SPDX-License-Identifier: Apache-2.0
"""``cepheid task history``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from cepheid import catalogue, errors, loading
from cepheid.cli import cells, lists
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


class TaskHistory(lists.FittedLister):
    """List the latest runs, their changes, and pauses, newest last, from the journal."""

    importance = ("Change", "Target", "Result", "After", "Before", "Seconds", "Run")
    marked = "Outcome"
    result = "Result"
    shorter = {"Started": cells.short_times, "Target": cells.short_targets}

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", nargs="?", help="only this task's runs")
        parser.add_argument(
            "--limit", type=int, default=20, help="how many runs to list (default: 20)"
        )
        parser.add_argument(
            "--changed", action="store_true", help="only runs that changed, or planned, something"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        name, limit = parsed_args.name, parsed_args.limit
        names = {plugin.name for plugin in loading.discover(catalogue.NAMESPACE)} if name else set()
        if name and name not in names:
            known = self.read_journal(lambda it: it.runs(name, 1))
            if not known:
                raise errors.NoSuchTask(name, names)
        rows = self.read_journal(lambda it: _read(it, name, limit, parsed_args.changed))
        return COLUMNS, rows or []


def _read(it: Journal, name: str | None, limit: int, changed: bool) -> list[tuple[Any, ...]]:
    runs = it.changed_runs(name, limit) if changed else it.runs(name, limit)
    changes: dict[int, list[dict[str, Any]]] = {}
    for change in it.changes(run["id"] for run in runs):
        changes.setdefault(change["run_id"], []).append(change)
    told: list[tuple[str, Iterable[tuple[Any, ...]]]] = [
        (run["started_at"], _run_rows(run, changes.get(run["id"], []))) for run in reversed(runs)
    ]
    if not changed:
        oldest = runs[-1]["started_at"] if len(runs) == limit else ""
        told += [
            (said["at"], [_pause_row(said)])
            for said in reversed(it.pauses.said(name, limit))
            if said["at"] >= oldest
        ]
        told.sort(key=lambda at_rows: at_rows[0])
    return [row for _, rows in told for row in rows]


def _run_rows(run: dict[str, Any], changes: list[dict[str, Any]]) -> Iterable[tuple[Any, ...]]:
    seconds = "" if run["duration_seconds"] is None else f"{run['duration_seconds']:.3f}"
    outcome = run["outcome"] + (" (dry run)" if run["dry_run"] else "")
    head = (run["id"], run["started_at"][:19], run["task"], outcome, seconds)
    if not changes:
        yield (*head, "", "", "", "", "", run["error"])
    for change in changes:
        yield (
            *head,
            change["kind"],
            change["target"],
            cells.value(change["before"]),
            cells.value(change["after"]),
            cells.outcome(change),
            change["reason"],
        )


def _pause_row(said: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row for a pause, a resume, or the first run that was held in a pause."""
    reason = said["reason"]
    if said["action"] != "held":
        until = "until resumed" if said["action"] == "pause" else ""
        if said["until"]:
            until = f"until {said['until'][:19].replace('T', ' ')} UTC"
        reason = ", ".join(part for part in (f"by {said['who']}", until, reason) if part)
    head = ("", said["at"][:19], said["task"] or "(all)", said["action"], "")
    return (*head, "", "", "", "", "", reason)
