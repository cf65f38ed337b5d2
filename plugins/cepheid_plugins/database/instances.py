# SPDX-License-Identifier: Apache-2.0
"""Queries on instances."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.records import ANY, Instance, InstanceUpdate, NewInstance

#: Rows that one statement names at most.
BATCH = 500

_instances = models.instances
_COLUMNS = [_instances.c[field.name] for field in dataclasses.fields(Instance)]


def on_host(connection: sa.Connection, host: str) -> list[Instance]:
    """Return the live instances of a host, hidden and soft-deleted ones included."""
    query = sa.select(*_COLUMNS).where(_instances.c.host == host, _instances.c.deleted == 0)
    return _records(connection, query)


def building(connection: sa.Connection, host: str) -> list[Instance]:
    """Return the live instances of a host that are building, newest first; no hidden ones."""
    query = (
        sa.select(*_COLUMNS)
        .where(
            _instances.c.host == host,
            _instances.c.deleted == 0,
            _instances.c.vm_state == "building",
            sa.or_(_instances.c.hidden.is_(None), _instances.c.hidden.is_(sa.false())),
        )
        .order_by(_instances.c.created_at.desc(), _instances.c.id.desc())
    )
    return _records(connection, query)


def by_uuids(connection: sa.Connection, uuids: Iterable[str]) -> list[Instance]:
    """Return the instances with these uuids, on any host, deleted ones too."""
    found: list[Instance] = []
    for batch in _batches(list(uuids)):
        query = sa.select(*_COLUMNS).where(_instances.c.uuid.in_(batch))
        found += _records(connection, query)
    return found


def by_name(connection: sa.Connection, name: str) -> list[Instance]:
    """Return the live instances of this display name, or whose uuid begins so."""
    query = sa.select(*_COLUMNS).where(
        _instances.c.deleted == 0,
        sa.or_(
            _instances.c.display_name == name,
            _instances.c.uuid.startswith(name, autoescape=True),
        ),
    )
    return _records(connection, query)


def system_metadata(connection: sa.Connection, uuids: Sequence[str], key: str) -> dict[str, str]:
    """Return the value of a key in instance_system_metadata, for the instances that have it."""
    table = models.instance_system_metadata
    found: dict[str, str] = {}
    for batch in _batches(uuids):
        query = sa.select(table.c.instance_uuid, table.c.value).where(
            table.c.instance_uuid.in_(batch), table.c.key == key, table.c.deleted == 0
        )
        found.update({row.instance_uuid: row.value or "" for row in connection.execute(query)})
    return found


def update(
    connection: sa.Connection,
    host: str,
    updates: Sequence[InstanceUpdate],
    now: datetime.datetime,
) -> set[str]:
    """Write each update whose instance still is on `host`, live, and in the expected states.

    Equal updates of many instances share their statements.

    :return: the uuids that were written; the others had moved on
    """
    groups: dict[Any, tuple[InstanceUpdate, list[str]]] = {}
    for wanted in updates:
        key = (
            wanted.expected_vm_state,
            wanted.expected_task_state,
            tuple(sorted(wanted.values.items())),
        )
        groups.setdefault(key, (wanted, []))[1].append(wanted.uuid)
    written: set[str] = set()
    for example, uuids in groups.values():
        for batch in _batches(uuids):
            written |= _update_alike(connection, host, example, batch, now)
    return written


def create(connection: sa.Connection, rows: Sequence[NewInstance], now: datetime.datetime) -> None:
    """Insert instances with the rows that hang on each."""
    if not rows:
        return
    common = {"created_at": now, "deleted": 0}
    connection.execute(
        sa.insert(_instances),
        [
            {
                **common,
                **dataclasses.asdict(row),
                "hostname": row.display_name[:255],
                "display_description": row.display_name,
                "ephemeral_gb": 0,
                "launched_at": now,
                "launched_on": row.host,
                "image_ref": "",
                "kernel_id": "",
                "ramdisk_id": "",
                "locked": False,
                "hidden": False,
                "cleaned": 0,
                "progress": 0,
                "shutdown_terminate": False,
                "disable_terminate": False,
            }
            for row in rows
        ],
    )
    connection.execute(
        sa.insert(models.instance_info_caches),
        [{**common, "instance_uuid": row.uuid, "network_info": "[]"} for row in rows],
    )
    connection.execute(
        sa.insert(models.instance_extra),
        [
            {**common, "instance_uuid": row.uuid, "flavor": _flavor(row), "pci_requests": "[]"}
            for row in rows
        ],
    )


def _update_alike(
    connection: sa.Connection,
    host: str,
    example: InstanceUpdate,
    uuids: Sequence[str],
    now: datetime.datetime,
) -> set[str]:
    conditions = [
        _instances.c.uuid.in_(uuids),
        _instances.c.host == host,
        _instances.c.deleted == 0,
    ]
    if example.expected_vm_state is not ANY:
        conditions.append(_instances.c.vm_state == example.expected_vm_state)
    if example.expected_task_state is not ANY:
        conditions.append(_instances.c.task_state == example.expected_task_state)
    # The rows are locked as they are read, so what is read is what is written.
    query = sa.select(_instances.c.uuid).where(*conditions).with_for_update()
    as_expected = set(connection.scalars(query))
    if as_expected:
        connection.execute(
            sa.update(_instances).where(*conditions).values({**example.values, "updated_at": now})
        )
    return as_expected


def _flavor(row: NewInstance) -> str:
    """Return instance_extra.flavor for an instance that came without one."""
    flavor = {
        "nova_object.name": "Flavor",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.1",
        "nova_object.data": {
            "id": None,
            "flavorid": "adopted",
            "name": "adopted",
            "memory_mb": row.memory_mb,
            "vcpus": row.vcpus,
            "root_gb": row.root_gb,
            "ephemeral_gb": 0,
            "swap": 0,
            "rxtx_factor": 1.0,
            "vcpu_weight": 0,
            "disabled": False,
            "is_public": True,
            "extra_specs": {},
            "created_at": None,
            "updated_at": None,
            "deleted_at": None,
            "deleted": False,
        },
    }
    return json.dumps({"cur": flavor, "old": None, "new": None})


def _records(connection: sa.Connection, query: sa.Select[Any]) -> list[Instance]:
    return [Instance(*row) for row in connection.execute(query)]


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
