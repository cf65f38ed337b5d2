# SPDX-License-Identifier: Apache-2.0
"""Queries on compute_nodes, and on what takes room on a host: instances and migrations."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.bulk import records
from cepheid_plugins.database.records import ComputeNode, Move, Occupant, Sizes

#: The statuses of a migration that takes no room any more. Source: Nova's migration list.
ENDED = ("confirmed", "reverted", "failed", "completed", "cancelled", "done")

_nodes = models.compute_nodes
_instances = models.instances
_extra = models.instance_extra
_migrations = models.migrations
_volumes = models.block_device_mapping
_COLUMNS = [_nodes.c[name] for name in ComputeNode._fields]
_SIZES = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb")
_OF_INSTANCE = ("uuid", "host", "node", "vm_state", "task_state", "os_type", "project_id",
                "instance_type_id")  # fmt: skip
_OF_MIGRATION = tuple(name for name in Move._fields if name != "instance")

_ROOT_ON_VOLUME = sa.exists().where(
    _volumes.c.instance_uuid == _instances.c.uuid,
    _volumes.c.boot_index == 0,
    _volumes.c.destination_type == "volume",
    _volumes.c.deleted == 0,
)
#: The first are fields of :class:`Occupant`, in its order; of the others the rest is made.
_OCCUPANT_COLUMNS: list[Any] = [
    *(_instances.c[name] for name in (*_OF_INSTANCE, *_SIZES)),
    _extra.c.flavor,
    _extra.c.migration_context,
    _ROOT_ON_VOLUME.label("root_on_volume"),
]
_IS_EXTRA = sa.and_(_extra.c.instance_uuid == _instances.c.uuid, _extra.c.deleted == 0)
_OCCUPANTS = (
    sa.select(*_OCCUPANT_COLUMNS)
    .select_from(_instances.outerjoin(_extra, _IS_EXTRA))
    .where(_instances.c.host == sa.bindparam("on_host"), _instances.c.deleted == 0)
)
_MOVES = (
    sa.select(*(_migrations.c[name] for name in _OF_MIGRATION), *_OCCUPANT_COLUMNS)
    .select_from(
        _migrations.join(
            _instances,
            sa.and_(_instances.c.uuid == _migrations.c.instance_uuid, _instances.c.deleted == 0),
        ).outerjoin(_extra, _IS_EXTRA)
    )
    .where(
        _migrations.c.deleted == 0,
        sa.or_(
            _migrations.c.source_compute == sa.bindparam("on_host"),
            _migrations.c.dest_compute == sa.bindparam("on_host"),
        ),
        _migrations.c.status.not_in(ENDED),
    )
    .order_by(_migrations.c.id)
)


def on_host(connection: sa.Connection, host: str) -> list[ComputeNode]:
    """Return the live records of a host: one, but for what is left of another name."""
    query = sa.select(*_COLUMNS).where(_nodes.c.host == host, _nodes.c.deleted == 0)
    return records(connection, query.order_by(_nodes.c.id), ComputeNode)


def create(
    connection: sa.Connection, host: str, values: Mapping[str, Any], now: datetime.datetime
) -> None:
    """Insert the record of a host."""
    connection.execute(
        sa.insert(_nodes).values(
            **values,
            host=host,
            uuid=str(uuid.uuid4()),
            metrics="[]",
            mapped=0,
            created_at=now,
            updated_at=now,
            deleted=0,
        )
    )


def update(
    connection: sa.Connection, before: ComputeNode, values: Mapping[str, Any], now: Any
) -> bool:
    """Write to a record that still is as it was read; tell whether it was."""
    query = sa.select(*_COLUMNS).where(_nodes.c.id == before.id, _nodes.c.deleted == 0)
    row = connection.execute(query.with_for_update()).first()
    if row is None or ComputeNode(*row) != before:
        return False
    connection.execute(
        sa.update(_nodes).where(_nodes.c.id == before.id).values(**values, updated_at=now)
    )
    return True


def use_of_host(
    connection: sa.Connection, host: str
) -> tuple[list[ComputeNode], list[Occupant], list[Move]]:
    """Return the records of a host, its instances, and its migrations, in one transaction."""
    return on_host(connection, host), occupants(connection, host), moves(connection, host)


def occupants(connection: sa.Connection, host: str) -> list[Occupant]:
    """Return the live instances of a host, hidden and soft-deleted ones included."""
    rows = connection.execute(_OCCUPANTS, {"on_host": host}).all()
    # Nothing keeps instance_extra from having two rows of an instance.
    return list({row.uuid: _occupant(row) for row in rows}.values())


def moves(connection: sa.Connection, host: str) -> list[Move]:
    """Return the migrations from and to a host that have not ended, of live instances."""
    return [_move(row) for row in connection.execute(_MOVES, {"on_host": host}).all()]


def _move(row: Any) -> Move:
    of_migration, of_instance = row[: len(_OF_MIGRATION)], row[len(_OF_MIGRATION) :]
    return Move._make((*of_migration, _occupant(of_instance)))


def _occupant(row: Any) -> Occupant:
    """Return the record of a row of :data:`_OCCUPANT_COLUMNS`."""
    *of_instance, vcpus, memory_mb, root_gb, ephemeral_gb, flavor, context, root_on_volume = row
    known = flavors.sizes(flavor)
    return Occupant._make(
        (
            *of_instance,
            bool(root_on_volume),
            flavors.context_migration_id(context),
            known.cur or _sizes_of_row(vcpus, memory_mb, root_gb, ephemeral_gb),
            known.old,
            known.new,
        )
    )


def _sizes_of_row(
    vcpus: int | None, memory_mb: int | None, root_gb: int | None, ephemeral_gb: int | None
) -> Sizes | None:
    if vcpus is None or memory_mb is None:
        return None
    return Sizes(vcpus, memory_mb, root_gb or 0, ephemeral_gb or 0, swap_mb=0)
