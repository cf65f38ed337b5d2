# SPDX-License-Identifier: Apache-2.0
"""Inventories on SQLite, MariaDB and PostgreSQL: opening, filling and reading them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
