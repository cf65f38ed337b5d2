# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the journal."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Iterable
from typing import Any

from cepheid.journal import audit
from cepheid.journal.pauses import PauseRecords
from cepheid.journal.seals import Head, head
from cepheid.journal.store import Store, text


class Reader:
    """Answers from the journal's file; rows are dictionaries named as the columns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pauses = PauseRecords(store)

    def last_run(self, task: str) -> datetime.datetime | None:
        """Return when `task` last ran in its schedule, or that began, in UTC; None for never."""
        rows = self._store.rows("SELECT at FROM last_runs WHERE task = ?", (task,))
        return datetime.datetime.fromisoformat(rows[0]["at"]) if rows else None

    def runs(self, task: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest runs, of one task or of all, newest first."""
        where, values = ("WHERE task = ?", [task]) if task else ("", [])
        rows = self._store.rows(
            f"SELECT * FROM runs {where} ORDER BY id DESC LIMIT ?", [*values, limit]
        )
        return [_run(row) for row in rows]

    def changed_runs(self, task: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Return the newest runs with changes, of one task or of all, newest first."""
        # The index by run gives them in order, so nothing is read of the runs without changes.
        where, values = ("WHERE r.task = ?", [task]) if task else ("", [])
        rows = self._store.rows(
            f"SELECT r.* FROM changes c CROSS JOIN runs r ON r.id = c.run_id {where}"
            " GROUP BY c.run_id ORDER BY c.run_id DESC LIMIT ?",
            [*values, limit],
        )
        return [_run(row) for row in rows]

    def runs_since(self, at: datetime.datetime, limit: int = 10_000) -> list[dict[str, Any]]:
        """Return the runs that have begun since `at`, newest first."""
        # There is no index by time; the newest are read until one is older.
        with self._store.snapshot():
            rows = itertools.takewhile(
                lambda row: row["started_at"] >= text(at),
                self._store.stream("SELECT * FROM runs ORDER BY id DESC LIMIT ?", (limit,)),
            )
            return [_run(row) for row in rows]

    def newest_runs(self, ended: bool = False) -> dict[str, dict[str, Any]]:
        """Return the newest run of each task, by task.

        :param ended: of those that go on no more
        """
        # Each task is looked up in the index; to group all runs would read all of it.
        over = "AND (duration_seconds IS NOT NULL OR outcome = 'interrupted')" if ended else ""
        rows = self._store.rows(
            "WITH RECURSIVE names (task) AS (SELECT min(task) FROM runs UNION ALL"
            " SELECT (SELECT min(task) FROM runs WHERE task > names.task) FROM names"
            " WHERE task IS NOT NULL)"
            " SELECT runs.* FROM names JOIN runs ON runs.id = (SELECT id FROM runs AS r"
            f" WHERE r.task = names.task {over} ORDER BY r.id DESC LIMIT 1)"
        )
        return {row["task"]: _run(row) for row in rows}

    def tasks_of_requests(self, request_ids: Iterable[str]) -> dict[str, str]:
        """Return the task of each of these requests that belongs to a run on record."""
        ids = list(request_ids)
        marks = ", ".join("?" * len(ids))
        rows = self._store.rows(
            f"SELECT request_id, task FROM runs WHERE request_id IN ({marks})", ids
        )
        return {row["request_id"]: row["task"] for row in rows}

    def changes(self, run_ids: Iterable[int]) -> list[dict[str, Any]]:
        """Return the changes of these runs, in the order in which they were made."""
        ids = list(run_ids)
        marks = ", ".join("?" * len(ids))
        rows = self._store.rows(f"SELECT * FROM changes WHERE run_id IN ({marks}) ORDER BY id", ids)
        return [_change(row) for row in rows]

    def newest_changes(self, limit: int = 20, task: str | None = None) -> list[dict[str, Any]]:
        """Return the newest changes with their runs' task, start and dry_run, newest first.

        They are those of one task or of all.

        ``sealed_at``, in Unix seconds, tells when the change last became what it is; None where
        the journal does not keep that any more.
        """
        where, values = ("WHERE r.task = ?", [task]) if task else ("", [])
        rows = self._store.rows(
            "SELECT c.*, r.task, r.started_at, r.dry_run, s.at AS sealed_at"
            " FROM changes c CROSS JOIN runs r ON r.id = c.run_id"
            f" LEFT JOIN seals s ON s.id = c.seal {where} ORDER BY c.id DESC LIMIT ?",
            [*values, limit],
        )
        return [_change(row) for row in rows]

    def last_changes_of(self, targets: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the newest change of any of these targets that each task made or tried, by task.

        There is no index by target: each change would pay for it, and a million of them are read
        in a second.
        """
        names = list(targets)
        marks = ", ".join("?" * len(names))
        rows = self._store.rows(
            "SELECT c.*, r.task, r.started_at, r.dry_run"
            " FROM changes c JOIN runs r ON r.id = c.run_id WHERE c.id IN ("
            "SELECT max(c.id) FROM changes c JOIN runs r ON r.id = c.run_id"
            f" WHERE c.target IN ({marks}) AND c.outcome NOT IN ('planned', 'refused')"
            " GROUP BY r.task)",
            names,
        )
        return {row["task"]: _change(row) for row in rows}

    def unsuccessful_targets(self, task: str) -> list[str]:
        """Return the targets whose newest change that `task` tried did not succeed, the one tried
        longest ago first: those that failed, and those at which the agent died.

        It looks at each run of the task, of which there is one a minute for as long as the journal
        is kept at most: a tenth of a second.
        """
        # With max(), SQLite gives the other columns of the row that it is of.
        rows = self._store.rows(
            "SELECT c.target, c.outcome, max(c.id) AS newest"
            " FROM runs r CROSS JOIN changes c ON c.run_id = r.id"
            " WHERE r.task = ? AND c.outcome NOT IN ('planned', 'refused')"
            " GROUP BY c.target ORDER BY newest",
            (task,),
        )
        return [row["target"] for row in rows if row["outcome"] not in ("done", "raced")]

    def head(self) -> Head:
        """Return the newest seal; see :mod:`cepheid.journal.seals`."""
        with self._store.snapshot():
            return head(self._store.connection)

    def verify(self, expect: Head | None = None) -> audit.Verdict:
        """Look whether any record was edited afterwards, see :func:`.audit.verify`.

        It takes some seconds per million records, and the journal to itself.
        """
        return audit.verify(self._store, expect)


def _run(row: Any) -> dict[str, Any]:
    run = {**row, "counters": json.loads(row["counters"])}
    del run["seal"]
    return run


def _change(row: Any) -> dict[str, Any]:
    change = {**row, "before": json.loads(row["before"]), "after": json.loads(row["after"])}
    del change["seal"]
    return change
