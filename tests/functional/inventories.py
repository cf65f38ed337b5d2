# SPDX-License-Identifier: Apache-2.0
"""Inventories on SQLite, MariaDB and PostgreSQL: opening, filling and reading them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.driver import Database
from tests.fake_agent import FakeAgent
from tests.worlds import uuid_of


def open_database(path: Path, url: sa.URL) -> tuple[FakeAgent, Database]:
    """Open the inventory with an agent of its own; return both."""
    agent = FakeAgent(path)
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=url.render_as_string(hide_password=False))
    return agent, Database(agent)


def add_many(engine: sa.Engine, numbers: Iterable[int], **columns: Any) -> None:
    """Insert alike instances."""
    values = {"host": "host1", "vm_state": "active", "power_state": 1, "deleted": 0, **columns}
    rows = [{"uuid": uuid_of(n), "display_name": f"guest-{n}", **values} for n in numbers]
    with engine.begin() as connection:
        connection.execute(sa.insert(models.instances), rows)


def rows(engine: sa.Engine, table: sa.Table) -> list[Any]:
    """Return all rows of a table."""
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table).order_by(table.c.id)))


class Used:
    """Which privileges an agent has made use of, by table."""

    STATEMENT = re.compile(r"\b(FROM|JOIN|INSERT INTO|UPDATE|DELETE FROM) (\w+)(?= |$)", re.M)
    NEEDS: ClassVar[dict[str, set[str]]] = {
        "FROM": {"SELECT"},
        "JOIN": {"SELECT"},
        "INSERT INTO": {"INSERT"},
        "UPDATE": {"SELECT", "UPDATE"},  # which rows is read
        "DELETE FROM": {"SELECT", "DELETE"},
    }

    def __init__(self, database: Database) -> None:
        self.privileges: dict[str, set[str]] = {}
        sa.event.listen(database._connected(), "before_cursor_execute", self._listen)

    def _listen(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        for word, table in self.STATEMENT.findall(statement):
            self.privileges.setdefault(table, set()).update(self.NEEDS[word])
