# SPDX-License-Identifier: Apache-2.0
"""Making and migrating the tables, on a database of our own and on Nova's.

Our mark is the table ``cepheid_alembic_version``. A database that carries Nova's mark is Nova's:
none of its tables is touched, and only ``bw_usage_cache`` is added, should it be missing.

alembic is imported where tables are made and nowhere else: an agent has no use for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cepheid import closed_files, errors
from cepheid_plugins.database import engine as engines
from cepheid_plugins.database import grants, models

if TYPE_CHECKING:
    from alembic.config import Config

#: Where alembic keeps our revision; Nova's own is in alembic_version.
VERSION_TABLE = "cepheid_alembic_version"

#: The newest of the migrations: what a database of our own needs.
HEAD = "0001"

#: The tables by which Nova marks its revision: since 24.0.0, and before.
NOVA_MARKS = ("alembic_version", "migrate_version")


@dataclass(frozen=True)
class Version:
    """The revision of a database."""

    #: ``cepheid``, ``nova``, or empty for a database without tables.
    owner: str
    #: What the owner's mark says; empty if there is none.
    revision: str
    #: What a database of our own needs.
    head: str
    #: The table that has the revision.
    mark: str = VERSION_TABLE


def version(engine: sa.Engine) -> Version:
    """Return whose the database is and which revision it has."""
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        mark = _nova_mark(tables)
        if mark:
            column = "version_num" if mark == "alembic_version" else "version"
            return Version("nova", _revision(connection, mark, column), HEAD, mark)
        known = VERSION_TABLE in tables
        revision = _revision(connection, VERSION_TABLE, "version_num") if known else ""
        return Version("cepheid" if revision else "", revision, HEAD)


def _revision(connection: sa.Connection, mark: str, column: str) -> str:
    table = sa.table(mark, sa.column(column))
    return str(connection.scalar(sa.select(table.c[column]).limit(1)) or "")


def is_current(engine: sa.Engine) -> bool:
    """Tell whether the tables are those that this version needs."""
    found = version(engine)
    if found.owner == "nova":
        return sa.inspect(engine).has_table(models.bw_usage_cache.name)
    return found.revision == found.head


def missing(engine: sa.Engine) -> list[str]:
    """Return the tables and columns that an agent needs and this account does not see."""
    inspector = sa.inspect(engine)
    tables = set(inspector.get_table_names())
    lacking = []
    for name in grants.AGENT:
        if name not in tables:
            lacking.append(name)
            continue
        wanted = set(models.metadata.tables[name].columns.keys())
        found = {column["name"] for column in inspector.get_columns(name)}
        lacking += [f"{name}.{column}" for column in wanted - found]
    return sorted(lacking)


def sync(engine: sa.Engine) -> list[str]:
    """Make or migrate the tables; return what was done, a line each."""
    if engine.dialect.name == "sqlite":
        closed_files.make(engine.url.database or "")
    found = version(engine)
    if found.owner == "nova":
        if sa.inspect(engine).has_table(models.bw_usage_cache.name):
            return [f"This is Nova's database (revision {found.revision}); nothing to do."]
        with engines.writing(engine) as connection:
            models.bw_usage_cache.create(connection)
        return [f"This is Nova's database (revision {found.revision}); added bw_usage_cache."]
    if found.revision == found.head:
        return [f"The database is at revision {found.head} already."]
    tables = set() if found.owner else set(sa.inspect(engine).get_table_names())
    left = sorted(tables & set(models.metadata.tables))
    if left and VERSION_TABLE in tables and _are_empty(engine, left):
        # MariaDB and MySQL make each table for good at once, and take none back.
        raise errors.CepheidError(
            "A 'cepheid db sync' was interrupted here. Drop the tables that it has left, "
            f"{', '.join([*left, VERSION_TABLE])}, or name an empty database in [database] "
            "connection, and repeat it."
        )
    if models.instances.name in tables:
        raise errors.CepheidError(
            "The database has a table 'instances' but neither Nova's mark nor ours; "
            "it is left alone. Name an empty database in [database] connection."
        )
    from alembic import command

    with _alembic(engine) as config:
        command.upgrade(config, "head")
    return [f"Migrated the database from {found.revision or 'nothing'} to {found.head}."]


def _are_empty(engine: sa.Engine, names: Iterable[str]) -> bool:
    with engine.connect() as connection:
        return all(
            connection.execute(
                sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)
            ).first()
            is None
            for name in names
        )


@contextmanager
def _alembic(engine: sa.Engine) -> Iterator[Config]:
    config = _config()
    with engines.writing(engine) as connection:
        config.attributes["connection"] = connection
        yield config


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _nova_mark(tables: set[str]) -> str:
    if models.instances.name not in tables:
        return ""
    return next((mark for mark in NOVA_MARKS if mark in tables), "")
