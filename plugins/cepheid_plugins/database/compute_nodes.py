# SPDX-License-Identifier: Apache-2.0
"""Queries on compute_nodes, and on what takes room on a host: instances and migrations."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.records import ComputeNode, Move, Occupant, Sizes

#: The statuses of a migration that takes no room any more. Source: Nova's migration list.
ENDED = ("confirmed", "reverted", "failed", "completed", "cancelled", "done")

_nodes = models.compute_nodes
_instances = models.instances
_extra = models.instance_extra
_migrations = models.migrations
_COLUMNS = [_nodes.c[field.name] for field in dataclasses.fields(ComputeNode)]
_SIZES = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb")
_OF_INSTANCE = ("uuid", "host", "node", "vm_state", "task_state", "os_type", "project_id",
                "instance_type_id")  # fmt: skip
_OF_MIGRATION = tuple(f.name for f in dataclasses.fields(Move) if f.name != "instance")


def on_host(connection: sa.Connection, host: str) -> list[ComputeNode]:
    """Return the live records of a host: one, but for what is left of another name."""
    query = sa.select(*_COLUMNS).where(_nodes.c.host == host, _nodes.c.deleted == 0)
    return [ComputeNode(*row) for row in connection.execute(query.order_by(_nodes.c.id))]


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
    query = (
        sa.select(*_occupant_columns())
        .select_from(_instances.outerjoin(_extra, _is_extra()))
        .where(_instances.c.host == host, _instances.c.deleted == 0)
    )
    return [_occupant(row) for row in connection.execute(query)]


def moves(connection: sa.Connection, host: str) -> list[Move]:
    """Return the migrations from and to a host that have not ended, of live instances."""
    columns = [_migrations.c[name].label(f"migration_{name}") for name in _OF_MIGRATION]
    query = (
        sa.select(*columns, *_occupant_columns())
        .select_from(
            _migrations.join(
                _instances,
                sa.and_(
                    _instances.c.uuid == _migrations.c.instance_uuid, _instances.c.deleted == 0
                ),
            ).outerjoin(_extra, _is_extra())
        )
        .where(
            _migrations.c.deleted == 0,
            sa.or_(_migrations.c.source_compute == host, _migrations.c.dest_compute == host),
            _migrations.c.status.not_in(ENDED),
        )
        .order_by(_migrations.c.id)
    )
    return [_move(row) for row in connection.execute(query)]


def _move(row: Any) -> Move:
    columns: dict[str, Any] = {name: getattr(row, f"migration_{name}") for name in _OF_MIGRATION}
    return Move(**columns, instance=_occupant(row))


def _is_extra() -> sa.ColumnElement[bool]:
    return sa.and_(_extra.c.instance_uuid == _instances.c.uuid, _extra.c.deleted == 0)


def _occupant_columns() -> list[Any]:
    volumes = models.block_device_mapping
    root_on_volume = sa.exists().where(
        volumes.c.instance_uuid == _instances.c.uuid,
        volumes.c.boot_index == 0,
        volumes.c.destination_type == "volume",
        volumes.c.deleted == 0,
    )
    return [
        *(_instances.c[name] for name in (*_OF_INSTANCE, *_SIZES)),
        _extra.c.flavor,
        _extra.c.migration_context,
        root_on_volume.label("root_on_volume"),
    ]


def _occupant(row: Any) -> Occupant:
    sizes = flavors.sizes(row.flavor)
    columns: dict[str, Any] = {name: getattr(row, name) for name in _OF_INSTANCE}
    return Occupant(
        **columns,
        root_on_volume=bool(row.root_on_volume),
        context_migration_id=flavors.context_migration_id(row.migration_context),
        present=sizes["cur"] or _sizes_of_row(row),
        old=sizes["old"],
        new=sizes["new"],
    )


def _sizes_of_row(row: Any) -> Sizes | None:
    if row.vcpus is None or row.memory_mb is None:
        return None
    return Sizes(row.vcpus, row.memory_mb, row.root_gb or 0, row.ephemeral_gb or 0, swap_mb=0)
