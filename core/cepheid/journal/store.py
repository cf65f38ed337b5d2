# SPDX-License-Identifier: Apache-2.0
"""The journal's file: one connection for all threads, transactions, errors in one line."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cepheid import errors
from cepheid.clock import Clock
from cepheid.journal import schema, seals
from cepheid.sqlite_file import BUSY_TIMEOUT_SECONDS, SqliteFile

#: Seconds to wait for another process while it migrates the file; a large one takes a minute.
MIGRATION_TIMEOUT_SECONDS = 600


class Store(SqliteFile):
    """Opens the file, which is made when it is missing and migrated when it is old.

    Usable by several threads, and by several processes at one time.

    :param path: the file; its directory must exist
    :raises JournalError: the file cannot be opened or is not a journal that can be used
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        super().__init__(path, "journal", errors.JournalError)

    @classmethod
    def read_only(cls, path: Path) -> Store:
        """Open a journal to read it on the calling thread alone.

        :raises JournalError: the file cannot be opened
        """
        return cls._read_only(path, "journal", errors.JournalError)

    def stream(self, query: str, values: Sequence[Any] = ()) -> Iterator[sqlite3.Row]:
        """Give what a query finds, row by row; for a thread that has the journal to itself."""
        with self._errors():
            yield from self.connection.execute(query, values)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the file as it is now, whatever others write meanwhile."""
        with self._lock, self._errors():
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("ROLLBACK")

    def _make_tables(self) -> None:
        if schema.version(self.connection) != schema.SCHEMA_VERSION:
            self.connection.execute(f"PRAGMA busy_timeout = {MIGRATION_TIMEOUT_SECONDS * 1000}")
            # Another process may be at it as well: the winner's work is kept.
            with self.transaction() as connection:
                schema.migrate(connection, self.path, seals.unix_seconds(self._clock.utcnow()))
            self.connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")


def text(at: datetime.datetime) -> str:
    """Return a time as the tables hold it."""
    return at.isoformat(timespec="microseconds")
