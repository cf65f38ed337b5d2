# SPDX-License-Identifier: Apache-2.0
"""The journal's file: one connection for all threads, transactions, errors in one line."""

from __future__ import annotations

import datetime
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cepheid import errors
from cepheid.clock import Clock
from cepheid.journal import schema, seals

#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT_SECONDS = 10

#: The same while it is being migrated; a large one takes a minute.
MIGRATION_TIMEOUT_SECONDS = 600


class Store:
    """Opens the file, which is made when it is missing and migrated when it is old.

    Usable by several threads, and by several processes at one time.

    :param path: the file; its directory must exist
    :raises JournalError: the file cannot be opened or is not a journal that can be used
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.RLock()
        with self._errors():
            self.connection = sqlite3.connect(
                path,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self.connection.row_factory = sqlite3.Row
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.execute("PRAGMA synchronous = FULL")
                self._migrate()
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return what a query finds."""
        with self._lock, self._errors():
            return self.connection.execute(query, values).fetchall()

    def stream(self, query: str, values: Sequence[Any] = ()) -> Iterator[sqlite3.Row]:
        """Give what a query finds, row by row; for a thread that has the journal to itself."""
        with self._errors():
            yield from self.connection.execute(query, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing."""
        with self._lock, self._errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the file as it is now, whatever others write meanwhile."""
        with self._lock, self._errors():
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("ROLLBACK")

    def _migrate(self) -> None:
        if schema.version(self.connection) != schema.SCHEMA_VERSION:
            self.connection.execute(f"PRAGMA busy_timeout = {MIGRATION_TIMEOUT_SECONDS * 1000}")
            # Another process may be at it as well: the winner's work is kept.
            with self.transaction() as connection:
                schema.migrate(connection, self.path, seals.unix_seconds(self._clock.utcnow()))
            self.connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            raise errors.JournalError(
                f"The journal {self.path} cannot be used: {err}. "
                "Check state_path, its owner and the free space there."
            ) from err


def text(at: datetime.datetime) -> str:
    """Return a time as the tables hold it."""
    return at.isoformat(timespec="microseconds")
