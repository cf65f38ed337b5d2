# SPDX-License-Identifier: Apache-2.0
"""The real inventory on a file of SQLite, as a double."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from cepheid import config
from cepheid.clock import Clock
from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.database import models, opts
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.errors import DatabaseUnavailable
from cepheid_plugins.database.records import NewInstance
from cepheid_plugins.testing import names
from cepheid_plugins.testing.inventory import HOST, LONG_AGO, NODE, SPECIAL

#: What a file with all tables holds, once one was made.
_migrated: list[bytes] = []


def make_tables(database: Database) -> None:
    """Make the tables; in SQLite by a copy, from the second time on."""
    path = Path(database.url.database or "")
    if database.url.get_backend_name() != "sqlite" or path.exists():
        database.sync()
        return
    if not _migrated:
        database.sync()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            _migrated.append(connection.serialize())
        return
    path.write_bytes(_migrated[0])


class SqliteInventory(Database):
    """The database driver, with tables on a file of its own; no agent is needed."""

    #: What a call that is not answered raises.
    unavailable = DatabaseUnavailable

    def __init__(self, clock: Clock, path: Path) -> None:
        file = path / "inventory.conf"
        file.write_text(
            f"[DEFAULT]\nstate_path = {path}\n"
            f"[database]\nconnection = sqlite:///{path}/inventory.sqlite\n"
        )
        conf = config.load([str(file)])
        conf.register_opts(opts.options(), group="database")
        agent: Any = SimpleNamespace(conf=conf, clock=clock)
        super().__init__(agent)
        self._clock = clock
        make_tables(self)
        self.statements.clear()

    @property
    def changes(self) -> int:
        """How many statements were sent that may change something."""
        return sum(self.statements[word] for word in ("INSERT", "UPDATE", "DELETE", "REPLACE"))

    def populate(self, numbers: Iterable[int]) -> None:
        """Add instances of these numbers, of every sort in turn, that began long ago."""
        numbers = list(numbers)
        self.create_instances([_new(number) for number in numbers])
        began = self._clock.utcnow() - LONG_AGO
        times = {"created_at": began, "updated_at": began, "launched_at": began}
        table = models.instances
        with self._connected().begin() as connection:
            connection.execute(sa.update(table).values(**times))
            for remainder, values in SPECIAL.items():
                uuids = [names.uuid_of(n) for n in numbers if n % 13 == remainder]
                if values.get("vm_state") == vm_states.SOFT_DELETED:
                    values = {**values, "deleted_at": began}
                if uuids:
                    connection.execute(
                        sa.update(table).where(table.c.uuid.in_(uuids)).values(**values)
                    )
        self.statements.clear()


def _new(number: int) -> NewInstance:
    return NewInstance(
        uuid=names.uuid_of(number),
        display_name=names.name_of(number),
        host=HOST,
        node=NODE,
        vm_state=vm_states.ACTIVE,
        power_state=power_state.RUNNING,
        vcpus=1,
        memory_mb=128,
        root_gb=0,
    )
