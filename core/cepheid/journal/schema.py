# SPDX-License-Identifier: Apache-2.0
"""The journal's tables, and how a journal of an earlier version becomes one of this."""

from __future__ import annotations

import datetime
import logging
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from cepheid import errors, host_lock
from cepheid.journal import seals

LOG = logging.getLogger(__name__)

SCHEMA_VERSION = 2

#: Runs that are read and sealed at one time when a journal is migrated.
BATCH = 500

VERSION_1 = """
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

#: ``seal`` is the id of the record's newest seal. ``pauses`` holds what was said and when, not a
#: state: the newest pause or resume of a task (of all where it is empty) counts. ``seals.at`` is
#: in Unix seconds. ``anchor`` is where the chain begins; see :mod:`cepheid.journal.seals`.
VERSION_2 = """
ALTER TABLE runs ADD COLUMN seal INTEGER;
ALTER TABLE changes ADD COLUMN seal INTEGER;
CREATE TABLE pauses (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    action TEXT NOT NULL,
    at TEXT NOT NULL,
    until TEXT,
    reason TEXT NOT NULL,
    who TEXT NOT NULL,
    seal INTEGER
);
CREATE INDEX pauses_task_id ON pauses (task, id);
CREATE TABLE seals (
    id INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    record_id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    digest BLOB NOT NULL,
    hash BLOB NOT NULL
);
CREATE TABLE anchor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seal_id INTEGER NOT NULL,
    hash BLOB NOT NULL,
    change_id INTEGER NOT NULL,
    seal INTEGER
);
"""


def version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 for a file without any."""
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)


def migrate(connection: sqlite3.Connection, path: Path, now: int) -> None:
    """Make the tables what this version needs, within the caller's transaction.

    :param now: in Unix seconds
    :raises JournalError: the journal is of a later version, or an agent of an earlier one uses it
    """
    found = version(connection)
    if found > SCHEMA_VERSION:
        raise errors.JournalError(
            f"The journal {path} has version {found}, this cepheid knows "
            f"{SCHEMA_VERSION}. Upgrade cepheid, or move the file aside to start a new one."
        )
    if 0 < found < SCHEMA_VERSION:
        # An agent of this version would have migrated it, so one that runs is older. It looked
        # at the version when it started, and would go on writing records without seals.
        holder = host_lock.holder(path.parent)
        if holder is not None:
            raise errors.JournalError(
                f"The journal {path} has version {found} and is in use by an agent of an earlier "
                f"cepheid (process {holder}). Restart the agent; it brings the journal up to date."
            )
        LOG.info("Migrating the journal %s from version %d to %d", path, found, SCHEMA_VERSION)
    for step in MIGRATIONS[found:]:
        step(connection, now)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _to_version_1(connection: sqlite3.Connection, now: int) -> None:
    _execute(connection, VERSION_1)


def _to_version_2(connection: sqlite3.Connection, now: int) -> None:
    """Add seals, and seal what is there as it is: nothing is known of what was edited before."""
    _execute(connection, VERSION_2)
    connection.execute(
        "INSERT INTO anchor (id, seal_id, hash, change_id) VALUES (1, 0, ?, 0)", (seals.GENESIS,)
    )
    last = -1
    while True:
        runs = connection.execute(
            "SELECT id, started_at FROM runs WHERE id > ? ORDER BY id LIMIT ?", (last, BATCH)
        ).fetchall()
        if not runs:
            break
        changes: dict[int, list[int]] = {}
        for change_id, run_id in connection.execute(
            "SELECT id, run_id FROM changes WHERE run_id BETWEEN ? AND ? ORDER BY id",
            (runs[0]["id"], runs[-1]["id"]),
        ):
            changes.setdefault(run_id, []).append(change_id)
        for run_id, started_at in runs:
            at = seals.unix_seconds(datetime.datetime.fromisoformat(started_at))
            chain = seals.Chain(connection, at)
            chain.reseal("changes", changes.get(run_id, ()))
            chain.reseal("runs", [run_id])
        last = runs[-1]["id"]
    orphans = connection.execute("SELECT id FROM changes WHERE seal IS NULL ORDER BY id")
    chain = seals.Chain(connection, now)
    chain.reseal("changes", [row["id"] for row in orphans])
    chain.reseal("anchor", [1])


#: Each brings the tables from the version of its place to the next.
MIGRATIONS: list[Callable[[sqlite3.Connection, int], None]] = [_to_version_1, _to_version_2]


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    for statement in _split(statements):
        connection.execute(statement)


def _split(statements: str) -> Iterable[str]:
    return (statement for statement in statements.split(";") if statement.strip())
