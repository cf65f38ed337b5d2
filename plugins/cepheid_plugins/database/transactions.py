# SPDX-License-Identifier: Apache-2.0
"""How the database is reached: one connection pool, transactions, and when they are tried again."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from oslo_db import api as oslo_db_api

from cepheid import concurrency
from cepheid.call_record import CallRecord
from cepheid_plugins.database import engine, errors
from cepheid_plugins.database.server_clock import ServerClock

if TYPE_CHECKING:
    from cepheid.agent import Agent

T = TypeVar("T")

# At info, alembic tells which kind of database it looks at, each time that it does.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
# oslo.db would log each error with its traceback. The error is raised as well, and reported once.
for _name in ("oslo_db.api", "oslo_db.sqlalchemy.exc_filters"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def _once(transaction: Callable[[], T]) -> T:
    return transaction()


#: On a server, a transaction is tried again after a deadlock or a lost connection.
_on_server = oslo_db_api.wrap_db_retry(
    max_retries=3, retry_interval=0.1, retry_on_deadlock=True, retry_on_disconnect=True
)(_once)
#: In SQLite, green threads try it again for half a minute while another process writes. Native
#: threads need not: they have waited as long in SQLite itself.
_on_green_sqlite = oslo_db_api.wrap_db_retry(
    max_retries=30, retry_interval=0.1, max_retry_interval=1, exception_checker=engine.is_locked
)(_once)


class Transactions:
    """Carries out queries on ``[database] connection``, each in a transaction of its own.

    A query is a function that takes a connection and the arguments that are given with it. It may
    be called more than once: see :data:`_on_server` and :data:`_on_green_sqlite`. It connects when
    it is first used; usable by several threads.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.url = engine.parse_url(agent.conf.database.connection)
        #: How many statements were sent, by their first word.
        self.statements: Counter[str] = Counter()
        #: The same with their times, transactions as a whole, and whether the database answers.
        self.record = CallRecord(errors.DatabaseUnavailable)
        self._engine: sa.Engine | None = None
        self._server_clock = ServerClock()
        self._lock = threading.Lock()
        # Threads of this process wait for each other here rather than in SQLite.
        self._one_writer = threading.Lock() if self._is_sqlite else contextlib.nullcontext()

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()

    def _read(self, query: Callable[..., T], *arguments: Any) -> T:
        def transaction() -> T:
            with self._connected().connect() as connection:
                return query(connection, *arguments)

        return self._retried(transaction)

    def _write(self, query: Callable[..., T], *arguments: Any) -> T:
        def transaction() -> T:
            with self._one_writer, engine.writing(self._connected()) as connection:
                return query(connection, *arguments)

        return self._retried(transaction)

    def _retried(self, transaction: Callable[[], T]) -> T:
        self._require_file()
        carry_out = _once
        if not self._is_sqlite:
            carry_out = _on_server
        elif concurrency.is_green():
            carry_out = _on_green_sqlite
        with self._asking():
            return carry_out(transaction)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Record what is done inside as one transaction, and raise its errors as ours."""
        with self.record.call("transaction"), errors.translated(self.url):
            yield

    @property
    def _is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def _connected(self) -> sa.Engine:
        """Return the engine, made on first use."""
        with self._lock:
            if self._engine is None:
                self._engine = engine.create(self._agent.conf, self.url, self._server_clock)
                sa.event.listen(self._engine, "before_cursor_execute", self._count)
                sa.event.listen(self._engine, "after_cursor_execute", self._time)
            return self._engine

    def _require_file(self) -> None:
        """Refuse to use a SQLite file that does not exist: to open it would make an empty one.

        :raises DatabaseNotMigrated: it does not exist
        """
        if self._is_missing_file():
            raise errors.not_migrated(self.url)

    def _is_missing_file(self) -> bool:
        path = self.url.database
        return (
            self._is_sqlite and bool(path) and path != ":memory:" and not os.path.exists(str(path))
        )

    def _count(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.statements[_verb(statement)] += 1
        connection.info["statement_began"] = time.monotonic()

    def _time(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seconds = time.monotonic() - connection.info["statement_began"]
        self.record.add(_verb(statement), seconds)

    def _now(self) -> datetime.datetime:
        """Return the time that a write is dated with: naive UTC, as all times in the database."""
        now: datetime.datetime = self._agent.clock.utcnow()
        return now


def _verb(statement: str) -> str:
    return statement.split(None, 1)[0].upper()
