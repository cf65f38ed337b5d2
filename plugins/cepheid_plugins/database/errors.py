# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the database, as an operator reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import sqlalchemy.exc
from oslo_db import exception as oslo_db_exception

from cepheid import durations, errors

#: What servers call a table that is not there: MySQL's ER_NO_SUCH_TABLE, PostgreSQL's SQLSTATE
#: undefined_table. oslo.db tells it for SQLite only.
MYSQL_NO_SUCH_TABLE = 1146
POSTGRESQL_UNDEFINED_TABLE = "42P01"


class DatabaseError(errors.CepheidError):
    """The database refused a statement."""


class DatabaseUnavailable(DatabaseError):
    """The database did not answer."""


class DatabaseNotMigrated(DatabaseError):
    """The database has not the tables that this version needs."""


class ClockDiffers(DatabaseError):
    """This host's clock and the server's show different times."""


class DuplicateRow(DatabaseError):
    """There is such a row already."""


@contextmanager
def translated(url: sa.URL) -> Iterator[None]:
    """Turn the errors of SQLAlchemy and oslo.db into ours, which name the database."""
    try:
        yield
    except (oslo_db_exception.DBNonExistentTable, sqlalchemy.exc.NoSuchTableError) as err:
        raise not_migrated(url) from err
    except (
        oslo_db_exception.DBConnectionError,
        oslo_db_exception.DBNonExistentDatabase,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.TimeoutError,
    ) as err:
        raise unavailable(url, err) from err
    except oslo_db_exception.DBDuplicateEntry as err:
        raise DuplicateRow(f"The database {_name(url)}: {_reason(err)}") from err
    except (oslo_db_exception.DBError, sqlalchemy.exc.SQLAlchemyError) as err:
        if _is_about_connecting(err):
            raise unavailable(url, err) from err
        if _is_about_a_missing_table(err):
            raise not_migrated(url) from err
        raise DatabaseError(f"The database {_name(url)}: {_reason(err)}{_remedy(err)}") from err


def unavailable(url: sa.URL, err: Exception) -> DatabaseUnavailable:
    """Return the error for a database that did not answer."""
    remedy = "Check the server and"
    if url.get_backend_name() == "sqlite" and isinstance(
        err, oslo_db_exception.DBNonExistentDatabase
    ):
        remedy = "See that its directory is there and this user may write to it, or correct"
    return DatabaseUnavailable(
        f"The database {_name(url)} does not answer: {_reason(err).rstrip('.?')}. {remedy} "
        "[database] connection."
    )


def not_migrated(url: sa.URL) -> DatabaseNotMigrated:
    """Return the error for a database without our tables."""
    return DatabaseNotMigrated(
        f"The database {_name(url)} has not been made or migrated; run 'cepheid db sync'."
    )


def clock_differs(url: sa.URL, seconds_ahead: float) -> ClockDiffers:
    """Return the error for a host whose clock is that much ahead of the server's, or behind."""
    differs = "ahead of" if seconds_ahead > 0 else "behind"
    return ClockDiffers(
        f"This host's clock is {durations.in_words(abs(seconds_ahead))} {differs} that of the "
        f"database {_name(url)}, so nothing is destroyed. Set the one that is wrong ('timedatectl' "
        "tells about this host's); after that it goes on by itself."
    )


def _name(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def _is_about_connecting(err: Exception) -> bool:
    """Tell whether an error came before any statement, as psycopg2's of a server that is away."""
    inner = getattr(err, "inner_exception", None) or err
    return isinstance(inner, sqlalchemy.exc.OperationalError) and inner.statement is None


def _is_about_a_missing_table(err: Exception) -> bool:
    """Tell whether a server has not the table that a statement names."""
    original = _original(err)
    if getattr(original, "pgcode", None) == POSTGRESQL_UNDEFINED_TABLE:
        return True
    return getattr(original, "args", ())[:1] == (MYSQL_NO_SUCH_TABLE,)


def _remedy(err: Exception) -> str:
    """Return what can be done about an error, where that is known."""
    if getattr(_original(err), "sqlite_errorname", "") == "SQLITE_NOTADB":
        return ". Correct [database] connection, or put a backup of the database there."
    return ""


def _reason(err: Exception) -> str:
    return " ".join(str(_original(err)).split())


def _original(err: Exception) -> BaseException:
    """Return what the database's library has raised."""
    inner = getattr(err, "inner_exception", None) or err
    return getattr(inner, "orig", None) or inner
