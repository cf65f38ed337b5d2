# SPDX-License-Identifier: Apache-2.0
"""The connection to the database: oslo.db's engine, set up for an agent."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from oslo_config import cfg
from oslo_db.sqlalchemy import engines

from cepheid import concurrency, errors
from cepheid_plugins.database import server_clock
from cepheid_plugins.database.server_clock import ServerClock

#: Seconds that SQLite itself waits for another process that writes. Waiting so, it lets no green
#: thread go on; the rest of the time is waited for between tries.
SQLITE_BUSY_SECONDS = 30
GREEN_SQLITE_BUSY_SECONDS = 0.1

#: Seconds to wait for a server to take a connection.
CONNECT_SECONDS = 10

#: Seconds beyond the statement time-out until a silent connection counts as lost.
SILENCE_SECONDS = 15

#: Which of a database's drivers is used where the URL names none; SQLAlchemy's own choice for
#: PostgreSQL depends on its version. MariaDB is spoken to as MySQL is: oslo.db knows its errors,
#: such as a deadlock, under that name only.
DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
    "postgresql": "postgresql+psycopg2",
}


def parse_url(connection: str) -> sa.URL:
    """Return the URL of ``[database] connection``.

    :raises ConfigError: it is no URL, or of a kind that is not supported
    """
    try:
        url = sa.make_url(connection)
    except sqlalchemy.exc.ArgumentError as err:
        raise errors.ConfigError(
            "[database] connection is not a database URL such as "
            "sqlite:////var/lib/cepheid/cepheid.sqlite or mysql+pymysql://user:…@host/nova."
        ) from err
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    try:
        url.get_dialect().import_dbapi()
    except (sqlalchemy.exc.NoSuchModuleError, ImportError) as err:
        raise errors.ConfigError(
            f"[database] connection names {url.drivername}, which is not installed: {err}"
        ) from err
    return url


def create(conf: cfg.ConfigOpts, url: sa.URL, clock: ServerClock) -> sa.Engine:
    """Make the engine; it connects when it is first used, and tries once.

    :param clock: takes what a server tells of its time at each connection
    """
    options = conf.database
    is_sqlite = url.get_backend_name() == "sqlite"
    pool = {} if is_sqlite else {"pool_timeout": options.pool_timeout}
    engine: sa.Engine = engines.create_engine(
        _with_timeouts(url, options.statement_timeout),
        mysql_sql_mode=options.mysql_sql_mode,
        connection_recycle_time=options.connection_recycle_time,
        max_pool_size=options.max_pool_size,
        max_overflow=options.max_overflow,
        **pool,
        connection_debug=options.connection_debug,
        connection_trace=options.connection_trace,
        max_retries=0,
        # Green threads give way after each transaction; native ones need not.
        thread_checkin=concurrency.is_green(),
    )
    if is_sqlite:
        _set_up_sqlite(engine)
    else:
        _set_up_server(engine, options.statement_timeout, clock)
    return engine


def is_locked(err: BaseException) -> bool:
    """Tell whether SQLite gave up waiting for another process that writes."""
    return "database is locked" in str(err)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection in a transaction that is going to write.

    In SQLite, a transaction that reads and then writes fails at once when another wrote
    meanwhile; one that says at its begin that it will write waits for the other instead.
    """
    with engine.connect() as connection:
        is_sqlite = engine.dialect.name == "sqlite"
        if is_sqlite:
            connection.info["in_transaction"] = True  # oslo.db then emits no BEGIN of its own
        with connection.begin():
            if is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection


def _with_timeouts(url: sa.URL, statement_seconds: int) -> sa.URL:
    """Let no connection wait for ever; what the URL says itself goes first."""
    silence = statement_seconds + SILENCE_SECONDS
    defaults: dict[str, dict[str, str]] = {
        "pymysql": {
            "connect_timeout": str(CONNECT_SECONDS),
            "read_timeout": str(silence),
            "write_timeout": str(silence),
        },
        "psycopg2": {
            "connect_timeout": str(CONNECT_SECONDS),
            "tcp_user_timeout": str(silence * 1000),
        },
    }
    wanted = defaults.get(url.get_driver_name(), {})
    return url.update_query_dict(
        {name: value for name, value in wanted.items() if name not in url.query}
    )


def _set_up_server(engine: sa.Engine, statement_seconds: int, clock: ServerClock) -> None:
    """Let the server end statements that take too long, and green threads go on meanwhile."""
    if engine.dialect.driver == "psycopg2" and concurrency.is_green():
        # It waits in C; this lets it wait in select(), which is green. PyMySQL is all Python.
        import psycopg2.extensions
        import psycopg2.extras

        psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)

    if engine.dialect.driver == "pymysql":
        _read_times_at_once(engine)

    # oslo.db has each connection asked before each transaction whether it still is one: one more
    # way to the server and back. A transaction that finds it lost is carried out on another.
    engine.dialect.do_ping = _take_as_alive  # type: ignore[method-assign]

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        if engine.dialect.name == "postgresql":
            statement = f"SET statement_timeout = {statement_seconds * 1000}"
        elif "MariaDB" in connection.get_server_info():
            statement = f"SET SESSION max_statement_time = {statement_seconds}"
        else:
            statement = f"SET SESSION max_execution_time = {statement_seconds * 1000}"
        with connection.cursor() as cursor:
            cursor.execute(statement)
            cursor.execute(server_clock.QUERIES[engine.dialect.name])
            clock.set(float(cursor.fetchone()[0]))
        connection.commit()


def _take_as_alive(dbapi_connection: Any) -> bool:
    """Say of a connection of the pool that it is one."""
    return True


def _read_times_at_once(engine: sa.Engine) -> None:
    """Let Python's own parser read times: PyMySQL's takes as long as the rest of a small row."""
    import pymysql.converters
    from pymysql.constants import FIELD_TYPE

    def time_of(text: str) -> Any:
        try:
            return datetime.datetime.fromisoformat(text)
        except ValueError:  # such as MySQL's zero
            return pymysql.converters.convert_datetime(text)

    conversions = {
        **pymysql.converters.conversions,
        FIELD_TYPE.DATETIME: time_of,
        FIELD_TYPE.TIMESTAMP: time_of,
    }

    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, parameters: dict[str, Any]) -> None:
        parameters["conv"] = conversions


def _set_up_sqlite(engine: sa.Engine) -> None:
    """Let readers and a writer work side by side, and writers wait for each other."""

    green = concurrency.is_green()
    seconds = GREEN_SQLITE_BUSY_SECONDS if green else SQLITE_BUSY_SECONDS

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        connection.execute("PRAGMA journal_mode = WAL")
