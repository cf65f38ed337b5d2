# SPDX-License-Identifier: Apache-2.0
"""An inventory in memory: the part of the database's contract that is about instances."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cepheid import errors
from cepheid.clock import Clock
from cepheid_plugins.compute import power_state, task_states, vm_states
from cepheid_plugins.database.records import (
    ANY,
    UUID_BEGINNING,
    Instance,
    InstanceUpdate,
    NewInstance,
)
from cepheid_plugins.testing import names

#: The host whose instances are made by their numbers.
HOST, NODE = "host1", "node1"

#: How long ago the states of such instances began: long enough for any time-out.
LONG_AGO = datetime.timedelta(days=400)

#: What is special of every thirteenth of them, by its remainder; the others are active and idle.
SPECIAL: dict[int, dict[str, Any]] = {
    5: {"vm_state": vm_states.STOPPED, "power_state": power_state.SHUTDOWN},
    8: {"vm_state": vm_states.BUILDING, "task_state": task_states.SPAWNING},
    9: {"task_state": task_states.REBOOTING},
    10: {"vm_state": vm_states.SOFT_DELETED},
    11: {"vm_state": vm_states.RESCUED},
    12: {"vm_state": vm_states.SHELVED},
}


class NotInMemory(errors.CepheidError, AttributeError):
    """The inventory in memory has not this part of the contract."""


class InventoryUnavailable(errors.CepheidError):
    """The inventory in memory was told not to answer."""


class MemoryInventory:
    """Instances in memory, as the database driver has them.

    It has no other tables. What asks for those needs the real driver on SQLite, which takes its
    place where SQLAlchemy is installed (:func:`make`).
    """

    #: What a call that is not answered raises.
    unavailable: type[Exception] = InventoryUnavailable

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: The rows, by uuid, in the order in which they were made.
        self.rows: dict[str, Instance] = {}
        #: System metadata, by uuid and key.
        self.metadata: dict[str, dict[str, str]] = {}
        #: Questions and answers, as the statements that they would have been.
        self.statements: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        raise NotInMemory(
            f"The inventory in memory has no {name}; with SQLAlchemy installed (pip install "
            "'cepheid[database]') a real one on SQLite takes its place."
        )

    @property
    def changes(self) -> int:
        """How often anything was changed."""
        return sum(self.statements[word] for word in ("INSERT", "UPDATE", "DELETE"))

    def add(self, number: int, **columns: Any) -> str:
        """Add an instance, active and running unless told otherwise; return its uuid."""
        columns = {"uuid": names.uuid_of(number), "display_name": names.name_of(number), **columns}
        return self._insert(columns)

    def _insert(self, columns: Mapping[str, Any]) -> str:
        began = self._clock.utcnow() - LONG_AGO
        values: dict[str, Any] = dict.fromkeys(Instance._fields)
        values |= {
            "id": len(self.rows) + 1,
            "host": HOST,
            "node": NODE,
            "vm_state": vm_states.ACTIVE,
            "power_state": power_state.RUNNING,
            "created_at": began,
            "updated_at": began,
            "launched_at": began,
            "deleted": 0,
            "cleaned": 0,
            "hidden": False,
            "vcpus": 1,
            "memory_mb": 128,
            "root_gb": 0,
            "ephemeral_gb": 0,
        }
        row = Instance(**{**values, **columns})
        self.rows[row.uuid] = row
        return row.uuid

    def populate(self, numbers: Iterable[int]) -> None:
        """Add instances of these numbers, of every sort in turn."""
        for number in numbers:
            self.add(number, **SPECIAL.get(number % 13, {}))

    def close(self) -> None:
        """Nothing is open."""

    # Of the contract.

    def check_clock(self) -> None:
        """Do nothing: it has no clock of its own."""

    def is_novas(self) -> bool:
        return False

    def instances_on_host(self, host: str) -> list[Instance]:
        return self._select(lambda row: row.host == host and row.deleted == 0)

    def instance_uuids_on_host(self, host: str) -> list[str]:
        return [row.uuid for row in self.instances_on_host(host)]

    def deleted_at_on_host(self, host: str) -> dict[str, datetime.datetime | None]:
        return {row.uuid: row.deleted_at for row in self.instances_on_host(host)}

    def instances_in_vm_state(self, host: str, vm_state: str) -> list[Instance]:
        return self._visible(host, lambda row: row.vm_state == vm_state)

    def instances_in_task_states(self, host: str, task_states: Sequence[str]) -> list[Instance]:
        return self._visible(host, lambda row: row.task_state in task_states)

    def instances_by_uuid(self, uuids: Iterable[str]) -> list[Instance]:
        wanted = set(uuids)
        return self._select(lambda row: row.uuid in wanted)

    def deleted_instances(self, uuids: Iterable[str]) -> list[Instance]:
        wanted = set(uuids)
        return self._select(
            lambda row: row.uuid in wanted and row.deleted == row.id and not row.hidden
        )

    def find_instances(self, name: str, deleted: bool = False) -> list[Instance]:
        may_be_uuid = len(name) >= UUID_BEGINNING
        return self._select(
            lambda row: (
                row.deleted == (row.id if deleted else 0)
                and (row.display_name == name or (may_be_uuid and row.uuid.startswith(name)))
            )
        )

    def system_metadata(self, uuids: Sequence[str], key: str) -> dict[str, str]:
        self.statements["SELECT"] += 1
        found = {uuid: self.metadata.get(uuid, {}) for uuid in uuids}
        return {uuid: values[key] for uuid, values in found.items() if key in values}

    def system_metadata_on_host(self, host: str, key: str) -> dict[str, str]:
        on_host = [r.uuid for r in self.rows.values() if r.host == host and r.deleted == 0]
        return self.system_metadata(on_host, key)

    def set_system_metadata(self, values: Mapping[str, Mapping[str, str]]) -> None:
        self.statements["UPDATE"] += 1
        for uuid, of_one in values.items():
            self.metadata.setdefault(uuid, {}).update(of_one)

    def create_instances(self, rows: Sequence[NewInstance]) -> dict[str, Exception]:
        self.statements["INSERT"] += 1
        now = self._clock.utcnow()
        for new in rows:
            common = {"created_at": now, "updated_at": None, "launched_at": now}
            self._insert({**dataclasses.asdict(new), **common, "shutdown_terminate": False})
        return {}

    def update_instances(self, host: str | None, updates: Sequence[InstanceUpdate]) -> set[str]:
        return self._update(host, updates, {"updated_at": self._clock.utcnow()})

    def destroy_instances(self, host: str, updates: Sequence[InstanceUpdate]) -> set[str]:
        now = self._clock.utcnow()
        won = self._update(host, updates, {"updated_at": now, "deleted_at": now})
        for uuid in won:
            self.rows[uuid] = self.rows[uuid]._replace(deleted=self.rows[uuid].id)
        return won

    def set_cleaned(self, uuids: Sequence[str]) -> set[str]:
        found = {row.uuid for row in self.deleted_instances(uuids)}
        self.statements["UPDATE"] += bool(found)
        for uuid in found:
            self.rows[uuid] = self.rows[uuid]._replace(cleaned=1)
        return found

    def _select(self, is_wanted: Any) -> list[Instance]:
        self.statements["SELECT"] += 1
        return [row for row in self.rows.values() if is_wanted(row)]

    def _visible(self, host: str, is_wanted: Any) -> list[Instance]:
        found = self._select(
            lambda row: row.host == host and row.deleted == 0 and not row.hidden and is_wanted(row)
        )
        return sorted(found, key=lambda row: (row.created_at, row.id), reverse=True)

    def _update(
        self, host: str | None, updates: Sequence[InstanceUpdate], common: Mapping[str, Any]
    ) -> set[str]:
        self.statements["UPDATE"] += bool(updates)
        won: set[str] = set()
        for wanted in updates:
            row = self.rows.get(wanted.uuid)
            if row is None or row.host != host or row.deleted != 0:
                continue
            if wanted.expected_vm_state not in (ANY, row.vm_state):
                continue
            if wanted.expected_task_state not in (ANY, row.task_state):
                continue
            if wanted.expected_deleted_at not in (ANY, row.deleted_at):
                continue
            values = {key: value for key, value in wanted.values.items() if key in Instance._fields}
            self.rows[row.uuid] = row._replace(**{**common, **values})
            won.add(row.uuid)
        return won


def make(clock: Clock, path: Path) -> Any:
    """Return the double of the database: the real driver on SQLite where it can be had."""
    if importlib.util.find_spec("sqlalchemy") and importlib.util.find_spec("oslo_db"):
        from cepheid_plugins.testing.sqlite_inventory import SqliteInventory

        return SqliteInventory(clock, path)
    return MemoryInventory(clock)
