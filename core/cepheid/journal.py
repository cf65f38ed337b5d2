# SPDX-License-Identifier: Apache-2.0
"""The journal: what ran on this host and what it changed, in one local SQLite file.

Changes are written before they are carried out and completed afterwards, so that a change an agent
died in is still on record. Times are UTC, as ISO 8601 text.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.sqlite_file import SqliteFile

if TYPE_CHECKING:
    from cepheid.run import Change, Run

FILE_NAME = "cepheid-journal.sqlite"

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    distribution TEXT NOT NULL,
    trigger TEXT NOT NULL,
    dry_run INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    started_at TEXT NOT NULL,
    lateness_seconds REAL NOT NULL,
    duration_seconds REAL,
    outcome TEXT NOT NULL,
    counters TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX runs_task_id ON runs (task, id);
CREATE INDEX runs_request_id ON runs (request_id);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,
    after TEXT,
    reason TEXT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX changes_run_id ON changes (run_id);
CREATE TABLE last_runs (
    task TEXT PRIMARY KEY,
    at TEXT NOT NULL
);
"""


class Journal(SqliteFile):
    """Reads and writes the journal file, which is made when it is missing.

    Usable by several threads, and by several processes at one time.

    :param path: the file; its directory must exist
    :raises JournalError: the file cannot be opened or is not a journal of this version
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "journal", SCHEMA, SCHEMA_VERSION, errors.JournalError)

    # Writing.

    def start_run(self, run: Run, scheduled_at: datetime.datetime | None = None) -> None:
        """Record that `run` began, and give it its id.

        :param scheduled_at: its time in the task's schedule, see :meth:`set_last_run`
        """
        with self.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (task, distribution, trigger, dry_run, request_id, started_at,"
                " lateness_seconds, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.task,
                    run.distribution,
                    run.trigger,
                    run.dry_run,
                    run.request_id,
                    _text(run.started_at),
                    run.lateness_seconds,
                    run.outcome,
                ),
            )
            run.id = cursor.lastrowid
            if scheduled_at is not None:
                _set_last_run(connection, run.task, scheduled_at)

    def end_run(self, run: Run) -> None:
        """Record how `run` ended."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE runs SET duration_seconds = ?, outcome = ?, counters = ?, error = ?"
                " WHERE id = ?",
                (
                    run.duration_seconds,
                    run.outcome,
                    json.dumps(run.counters),
                    run.error,
                    run.id,
                ),
            )

    def set_outcome(self, run: Run) -> None:
        """Record the outcome of a run that is still going on; one that has ended keeps its own."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE runs SET outcome = ? WHERE id = ? AND duration_seconds IS NULL",
                (run.outcome, run.id),
            )

    def add_changes(self, run: Run, changes: Sequence[Change]) -> None:
        """Record `changes` with their outcomes as they are now, and give each its id."""
        with self.transaction() as connection:
            for change in changes:
                cursor = connection.execute(
                    "INSERT INTO changes (run_id, kind, target, before, after, reason, outcome)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        run.id,
                        change.kind,
                        str(change.target),
                        _json(change.before),
                        _json(change.after),
                        change.reason,
                        change.outcome,
                    ),
                )
                change.id = cursor.lastrowid

    def complete_changes(self, changes: Sequence[Change]) -> None:
        """Record what came of `changes`."""
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE changes SET outcome = ?, error = ? WHERE id = ?",
                [(change.outcome, change.error, change.id) for change in changes],
            )

    def set_last_run(self, task: str, at: datetime.datetime) -> None:
        """Remember when `task` last ran or its schedule began, for the time after a restart."""
        with self.transaction() as connection:
            _set_last_run(connection, task, at)

    def mark_interrupted(self) -> int:
        """Mark the runs that an earlier agent did not end; return how many there were.

        For an agent at its start only, when no other process may be running tasks.
        """
        with self.transaction() as connection:
            connection.execute("UPDATE changes SET outcome = 'unknown' WHERE outcome = 'started'")
            cursor = connection.execute(
                "UPDATE runs SET outcome = 'interrupted' WHERE duration_seconds IS NULL"
                " AND outcome != 'interrupted'"
            )
            return cursor.rowcount

    # Reading.

    def last_run(self, task: str) -> datetime.datetime | None:
        """Return when `task` last ran in its schedule, or that began, in UTC; None for never."""
        rows = self.rows("SELECT at FROM last_runs WHERE task = ?", (task,))
        return datetime.datetime.fromisoformat(rows[0]["at"]) if rows else None

    def runs(self, task: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest runs, of one task or of all, newest first."""
        where, values = ("WHERE task = ?", [task]) if task else ("", [])
        rows = self.rows(f"SELECT * FROM runs {where} ORDER BY id DESC LIMIT ?", [*values, limit])
        return [{**row, "counters": json.loads(row["counters"])} for row in map(dict, rows)]

    def newest_runs(self) -> dict[str, dict[str, Any]]:
        """Return the newest run of each task, by task."""
        rows = self.rows(
            "SELECT * FROM runs WHERE id IN (SELECT max(id) FROM runs GROUP BY task)", ()
        )
        return {row["task"]: dict(row) for row in rows}

    def tasks_of_requests(self, request_ids: Iterable[str]) -> dict[str, str]:
        """Return the task of each of these requests that belongs to a run on record."""
        ids = list(request_ids)
        marks = ", ".join("?" * len(ids))
        rows = self.rows(f"SELECT request_id, task FROM runs WHERE request_id IN ({marks})", ids)
        return {row["request_id"]: row["task"] for row in rows}

    def changes(self, run_ids: Iterable[int]) -> list[dict[str, Any]]:
        """Return the changes of these runs, in the order in which they were made."""
        ids = list(run_ids)
        marks = ", ".join("?" * len(ids))
        rows = self.rows(f"SELECT * FROM changes WHERE run_id IN ({marks}) ORDER BY id", ids)
        return [
            {**row, "before": json.loads(row["before"]), "after": json.loads(row["after"])}
            for row in map(dict, rows)
        ]


def _set_last_run(connection: sqlite3.Connection, task: str, at: datetime.datetime) -> None:
    connection.execute(
        "INSERT INTO last_runs (task, at) VALUES (?, ?)"
        " ON CONFLICT (task) DO UPDATE SET at = excluded.at",
        (task, _text(at)),
    )


def _text(at: datetime.datetime) -> str:
    return at.isoformat(timespec="microseconds")


def _json(value: Any) -> str:
    return json.dumps(value, default=str)
