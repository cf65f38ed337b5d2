# SPDX-License-Identifier: Apache-2.0
"""The journal: what ran on this host and what it changed, in one local SQLite file.

Changes are written before they are carried out and completed afterwards, so that a change an agent
died in is still on record. Times are UTC, as ISO 8601 text. Each state of a record is sealed in
the transaction that writes it, see :mod:`cepheid.journal.seals`.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.clock import Clock
from cepheid.journal import retention, seals
from cepheid.journal.reader import Reader
from cepheid.journal.schema import SCHEMA_VERSION
from cepheid.journal.store import Store, text
from cepheid.texts import encodable

if TYPE_CHECKING:
    from cepheid.run import Change, Run

FILE_NAME = "cepheid-journal.sqlite"


class Journal(Reader):
    """Reads and writes the journal file, which is made when it is missing.

    Usable by several threads, and by several processes at one time.

    :param path: the file; its directory must exist
    :raises JournalError: the file cannot be opened or is not a journal of this version
    """

    def __init__(self, path: str | Path, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self._clock = clock or Clock()
        super().__init__(Store(self.path, self._clock))
        self._identity = _identity(self.path)
        self._displacement = ""

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    @property
    def failure(self) -> str:
        """Why the newest write failed, or is of no use; empty where it did not."""
        return self._displacement or self._store.failure

    def check_place(self) -> None:
        """See that the file is still the one that others open.

        :raises JournalError: it was moved, removed or replaced while it is open here
        """
        self._displacement = ""
        if _identity(self.path) != self._identity:
            self._displacement = (
                f"The journal {self.path} was moved, removed or replaced while this agent uses it: "
                "what others write, such as a pause, does not reach the agent. Restart it."
            )
            raise errors.JournalError(self._displacement)

    def probe(self) -> None:
        """Write what is there already, to see that it can be done.

        :raises JournalError: it cannot
        """
        with self._store.transaction() as connection:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def start_run(self, run: Run, scheduled_at: datetime.datetime | None = None) -> None:
        """Record that `run` began, and give it its id.

        :param scheduled_at: its time in the task's schedule, see :meth:`set_last_run`
        """
        with self._sealing() as (connection, chain):
            cursor = connection.execute(
                "INSERT INTO runs (task, distribution, trigger, dry_run, request_id, started_at,"
                " lateness_seconds, outcome, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.task,
                    run.distribution,
                    run.trigger,
                    run.dry_run,
                    run.request_id,
                    text(run.started_at),
                    run.lateness_seconds,
                    run.outcome,
                    chain.next_id,
                ),
            )
            assert cursor.lastrowid is not None
            run.id = cursor.lastrowid
            chain.seal("runs", run.id, run.id)
            if scheduled_at is not None:
                _set_last_run(connection, run.task, scheduled_at)

    def end_run(self, run: Run) -> None:
        """Record how `run` ended."""
        assert run.id is not None
        with self._sealing() as (connection, chain):
            connection.execute(
                "UPDATE runs SET duration_seconds = ?, outcome = ?, counters = ?, error = ?,"
                " seal = ? WHERE id = ?",
                (
                    run.duration_seconds,
                    run.outcome,
                    json.dumps(run.counters),
                    encodable(run.error),
                    chain.next_id,
                    run.id,
                ),
            )
            chain.seal("runs", run.id, run.id)

    def set_outcome(self, run: Run) -> None:
        """Record the outcome of a run that is still going on; one that has ended keeps its own."""
        assert run.id is not None
        with self._sealing() as (connection, chain):
            connection.execute(
                "UPDATE runs SET outcome = ?, seal = ? WHERE id = ? AND duration_seconds IS NULL",
                (run.outcome, chain.next_id, run.id),
            )
            chain.seal("runs", run.id, run.id)

    def add_changes(self, run: Run, changes: Sequence[Change]) -> None:
        """Record `changes` with their outcomes as they are now, and give each its id."""
        with self._sealing() as (connection, chain):
            # Ids that retention has set free are not used again.
            (last,) = connection.execute(
                "SELECT max(change_id, (SELECT coalesce(max(id), 0) FROM changes)) FROM anchor"
            ).fetchone()
            ids = range(last + 1, last + 1 + len(changes))
            connection.executemany(
                "INSERT INTO changes"
                " (id, run_id, kind, target, before, after, reason, outcome, seal)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        number,
                        run.id,
                        change.kind,
                        encodable(str(change.target)),
                        _json(change.before),
                        _json(change.after),
                        encodable(change.reason),
                        change.outcome,
                        seal,
                    )
                    for number, seal, change in zip(
                        ids, range(chain.next_id, chain.next_id + len(ids)), changes, strict=True
                    )
                ],
            )
            chain.seal("changes", last + 1, last + len(changes))
        for number, change in zip(ids, changes, strict=True):
            change.id = number

    def complete_changes(self, changes: Sequence[Change]) -> None:
        """Record what came of `changes`."""
        ids = [change.id for change in changes if change.id is not None]
        if not ids:
            return
        with self._sealing() as (connection, chain):
            connection.executemany(
                "UPDATE changes SET outcome = ?, error = ?, seal = ? WHERE id = ?",
                [
                    (change.outcome, encodable(change.error), seal, change.id)
                    for seal, change in enumerate(changes, chain.next_id)
                ],
            )
            chain.seal("changes", min(ids), max(ids))

    def set_last_run(self, task: str, at: datetime.datetime) -> None:
        """Remember when `task` last ran or its schedule began, for the time after a restart."""
        with self._store.transaction() as connection:
            _set_last_run(connection, task, at)

    def mark_interrupted(self) -> int:
        """Mark the runs that an earlier agent did not end; return how many there were.

        For an agent at its start only, when no other process may be running tasks.
        """
        with self._sealing() as (connection, chain):
            changes = _ids(connection, "SELECT id FROM changes WHERE outcome = 'started'")
            connection.execute("UPDATE changes SET outcome = 'unknown' WHERE outcome = 'started'")
            chain.reseal("changes", changes)
            open_runs = "duration_seconds IS NULL AND outcome != 'interrupted'"
            runs = _ids(connection, f"SELECT id FROM runs WHERE {open_runs}")
            connection.execute(f"UPDATE runs SET outcome = 'interrupted' WHERE {open_runs}")
            chain.reseal("runs", runs)
            return len(runs)

    def prune(self, days: float) -> bool:
        """Remove a batch of what is older than `days`; tell whether there may be more of it.

        :raises DoubtfulTime: the time of day may be wrong, so everything stays
        """
        return retention.prune(self._store, days, seals.unix_seconds(self._clock.utcnow()))

    @contextmanager
    def _sealing(self) -> Iterator[tuple[sqlite3.Connection, seals.Chain]]:
        now = seals.unix_seconds(self._clock.utcnow())
        with self._store.transaction() as connection:
            yield connection, seals.Chain(connection, now)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from every other that there is; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise errors.JournalError(f"The journal {path} cannot be looked at: {err}") from err
    return found.st_dev, found.st_ino


def _ids(connection: sqlite3.Connection, query: str) -> list[int]:
    return [row[0] for row in connection.execute(query)]


def _set_last_run(connection: sqlite3.Connection, task: str, at: datetime.datetime) -> None:
    connection.execute(
        "INSERT INTO last_runs (task, at) VALUES (?, ?)"
        " ON CONFLICT (task) DO UPDATE SET at = excluded.at",
        (task, text(at)),
    )


def _json(value: Any) -> str:
    return json.dumps(value, default=str)
