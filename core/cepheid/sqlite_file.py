# SPDX-License-Identifier: Apache-2.0
"""An SQLite file of this host's own: how it is opened, made, written, and what its errors say.

It is in WAL mode, and a transaction that was committed survives a loss of power.
"""

from __future__ import annotations

import abc
import os
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from cepheid import closed_files, concurrency, errors

#: Seconds to wait for another process that is writing.
BUSY_TIMEOUT_SECONDS = 10

#: The same for who only reads; in WAL mode a writer rarely stands in the way.
READ_ONLY_TIMEOUT_SECONDS = 1


class SqliteFile(abc.ABC):
    """A file with tables, made when it is missing.

    Usable by several threads, and by several processes at one time. With green threads a
    transaction must not let others run: no logging, no waiting in it.

    :param path: the file; its directory must exist
    :param name: what messages call it
    :param error: what is raised when the file cannot be used
    :raises CepheidError: as `error` says: it cannot be opened, or is not of this version
    """

    def __init__(self, path: str | Path, name: str, error: type[errors.CepheidError]) -> None:
        self._set_up(path, name, error, threading.RLock())
        closed_files.make(self.path)
        with self._errors():
            self.connection = sqlite3.connect(
                self.path,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self.connection.row_factory = sqlite3.Row
                if self._is_empty():
                    # In one that is not it has no effect, and yet is a write.
                    self.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.execute("PRAGMA synchronous = FULL")
                self._make_tables()
            except BaseException:
                self.connection.close()
                raise

    @classmethod
    def _read_only(cls, path: str | Path, name: str, error: type[errors.CepheidError]) -> Self:
        """Open a file that is there, to read it on the calling thread, which may be a native one.

        :raises CepheidError: as `error` says
        """
        # What the threads of the agent wait for, such as a lock of theirs, is not waited for.
        file = cls.__new__(cls)
        file._set_up(path, name, error, concurrency.original("threading").RLock())
        with file._errors():
            file.connection = sqlite3.connect(
                f"file:{urllib.parse.quote(str(path))}?mode=ro",
                uri=True,
                timeout=READ_ONLY_TIMEOUT_SECONDS,
                isolation_level=None,
            )
            file.connection.row_factory = sqlite3.Row
        return file

    def _set_up(
        self, path: str | Path, name: str, error: type[errors.CepheidError], lock: Any
    ) -> None:
        self.path = Path(path)
        self._name = name
        self._error = error
        self._lock = lock
        #: Why the newest transaction could not be written; empty where it was.
        self.failure = ""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.connection.close()

    def rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return what a query finds."""
        with self._lock, self._errors():
            return self.connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all that is done inside, or nothing when an error comes out."""
        try:
            with self._lock, self._errors():
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self.connection
                    self.connection.execute("COMMIT")
                finally:
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
        except self._error as err:
            self.failure = str(err)
            raise
        self.failure = ""

    def shrink(self, pages: int = 256) -> None:
        """Give the room of what was deleted back to the file system, so many pages at most."""
        with self._lock, self._errors():
            # It gives back a page for each row, of no columns, that is fetched; only a script
            # fetches those.
            self.connection.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _is_permitted(self) -> bool:
        """Tell whether this user may use the file, or make it; SQLite does not say so."""
        if os.geteuid() == 0:
            return True  # what root may not do is not a matter of permissions
        there = self.path if os.access(self.path, os.F_OK, effective_ids=True) else self.path.parent
        return os.access(there, os.R_OK | os.W_OK, effective_ids=True)

    def _is_empty(self) -> bool:
        (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
        return bool(pages == 0)

    @abc.abstractmethod
    def _make_tables(self) -> None:
        """Make the tables, or see that they are those of this version."""

    def _create(self, schema: str, known: int) -> None:
        """Make the tables of a schema that has had one version only.

        :param schema: statements, each ended by a semicolon
        """
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version == known:
            return
        if version != 0:
            raise self._error(
                f"The {self._name} {self.path} has version {version}, this cepheid knows "
                f"{known}. Upgrade cepheid, or move the file aside to start a new one."
            )
        # Another process may be making it as well: the winner's work is kept.
        with self.transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in schema.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {known}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            if not self._is_permitted():
                raise self._error(errors.not_permitted(self.path)) from err
            raise self._error(
                f"The {self._name} {self.path} cannot be used: {str(err).rstrip('.')}. "
                "Check state_path, its owner and the free space there."
            ) from err
