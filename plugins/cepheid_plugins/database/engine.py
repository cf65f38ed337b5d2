# SPDX-License-Identifier: Apache-2.0
"""The connection to the database: oslo.db's engine, set up for an agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from oslo_config import cfg
from oslo_db.sqlalchemy import engines

from cepheid import errors

#: Seconds that SQLite waits for another writer.
SQLITE_BUSY_SECONDS = 30

#: Which of a database's drivers is used where the URL names none.
DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


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
        url.get_dialect()
    except (sqlalchemy.exc.NoSuchModuleError, ImportError) as err:
        raise errors.ConfigError(
            f"[database] connection names {url.drivername}, which is not installed: {err}"
        ) from err
    return url


def create(conf: cfg.ConfigOpts, url: sa.URL) -> sa.Engine:
    """Make the engine; it connects when it is first used, and tries once."""
    options = conf.database
    is_sqlite = url.get_backend_name() == "sqlite"
    pool = {} if is_sqlite else {"pool_timeout": options.pool_timeout}
    engine: sa.Engine = engines.create_engine(
        url,
        mysql_sql_mode=options.mysql_sql_mode,
        connection_recycle_time=options.connection_recycle_time,
        max_pool_size=options.max_pool_size,
        max_overflow=options.max_overflow,
        **pool,
        connection_debug=options.connection_debug,
        connection_trace=options.connection_trace,
        max_retries=0,
    )
    if is_sqlite:
        _set_up_sqlite(engine)
    return engine


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


def _set_up_sqlite(engine: sa.Engine) -> None:
    """Let readers and a writer work side by side, and writers wait for each other."""

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")
