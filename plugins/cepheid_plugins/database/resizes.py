# SPDX-License-Identifier: Apache-2.0
"""Queries on migrations, as far as they are resizes and cold migrations to be confirmed."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import flavors, instances, models
from cepheid_plugins.database.bulk import records, update_each
from cepheid_plugins.database.records import Confirmed, InstanceUpdate, Migration, Resized

#: The system metadata that a revert would need.
OLD_VM_STATE = "old_vm_state"

_migrations = models.migrations
_extra = models.instance_extra
_COLUMNS = [_migrations.c[name] for name in Migration._fields]


_ALL = sa.select(*_COLUMNS).order_by(_migrations.c.id)
#: Of the finished ones deleted rows too, as in Nova: their instances are gone.
_WAITING = _ALL.where(
    sa.or_(
        sa.and_(
            _migrations.c.dest_compute == sa.bindparam("host"),
            _migrations.c.status == "finished",
            _migrations.c.updated_at <= sa.bindparam("before"),
        ),
        sa.and_(
            _migrations.c.source_compute == sa.bindparam("host"),
            _migrations.c.status == "confirming",
            _migrations.c.deleted == 0,
        ),
    )
)
_OF_INSTANCES = _ALL.where(
    _migrations.c.instance_uuid.in_(sa.bindparam("uuids", expanding=True)),
    _migrations.c.status == sa.bindparam("of_status"),
    _migrations.c.deleted == 0,
)


def waiting(
    connection: sa.Connection, host: str, before: datetime.datetime
) -> tuple[list[Migration], list[Migration]]:
    """Return the migrations whose confirmation waits for a host's part.

    :return: the live confirming ones from it; the finished ones to it, deleted ones included, that
        are unchanged since `before`
    """
    rows = records(connection, _WAITING, Migration, host=host, before=before)
    confirming = [row for row in rows if row.status == "confirming"]
    return confirming, [row for row in rows if row.status == "finished"]


def of_instances(connection: sa.Connection, uuids: Sequence[str], status: str) -> list[Migration]:
    """Return the live migrations of instances that have a status."""
    return records(connection, _OF_INSTANCES, Migration, uuids=uuids, of_status=status)


def start_confirming(
    connection: sa.Connection, rows: Sequence[Migration], now: datetime.datetime
) -> set[int]:
    """Set finished migrations to confirming whose instances are resized and idle.

    The instances are locked while that is found out, so that a revert comes before or after.

    :return: the ids of the migrations; the others had moved on
    """
    table = models.instances
    query = (
        sa.select(table.c.uuid, table.c.host)
        .where(
            table.c.uuid.in_({row.instance_uuid for row in rows}),
            table.c.vm_state == "resized",
            table.c.task_state.is_(None),
            table.c.deleted == 0,
        )
        .with_for_update()
    )
    waiting = {(row.uuid, row.host) for row in connection.execute(query)}
    ids = [row.id for row in rows if (row.instance_uuid, row.dest_compute) in waiting]
    return set_status(connection, ids, "finished", "confirming", now)


def set_status(
    connection: sa.Connection,
    ids: Iterable[int],
    expected: str,
    status: str,
    now: datetime.datetime,
) -> set[int]:
    """Give migrations another status, if they have the expected one; return their ids."""
    conditions = [_migrations.c.id.in_(list(ids)), _migrations.c.status == expected]
    query = sa.select(_migrations.c.id).where(*conditions).with_for_update()
    as_expected = set(connection.scalars(query))
    if as_expected:
        connection.execute(
            sa.update(_migrations).where(*conditions).values(status=status, updated_at=now)
        )
    return as_expected


def finish(
    connection: sa.Connection, host: str, rows: Sequence[Resized], now: datetime.datetime
) -> set[str]:
    """Record same-host resizes as done but for their confirmation; return their uuids."""
    won = instances.update(connection, host, [row.update for row in rows], now)
    done = [row for row in rows if row.update.uuid in won]
    if not done:
        return won
    sizes = {row.update.uuid: row.update.values for row in done}
    _rewrite_flavors(
        connection,
        sorted(won),
        lambda owner, text: flavors.resized(
            text, {name: sizes[owner][name] for name in ("memory_mb", "vcpus", "root_gb")}
        ),
        {"updated_at": now},
    )
    instances.set_system_metadata(
        connection, {row.update.uuid: {OLD_VM_STATE: row.old_vm_state} for row in done}, now
    )
    connection.execute(
        sa.insert(_migrations),
        [
            {
                "created_at": now,
                "updated_at": now,
                "deleted": 0,
                "uuid": str(uuid.uuid4()),
                "instance_uuid": row.update.uuid,
                "status": "finished",
                "migration_type": "resize",
                "source_compute": host,
                "dest_compute": host,
                "source_node": row.node,
                "dest_node": row.node,
                "hidden": False,
                "cross_cell_move": False,
            }
            for row in done
        ],
    )
    return won


def complete(
    connection: sa.Connection, rows: Sequence[Confirmed], now: datetime.datetime
) -> set[str]:
    """Record resizes as confirmed, and their instances as what they are now.

    An instance that somebody works on meanwhile keeps its states.

    :return: the uuids of the instances that were written
    """
    instances.lock(connection, [row.instance_uuid for row in rows])
    ids = set_status(connection, [row.migration_id for row in rows], "confirming", "confirmed", now)
    done = [row for row in rows if row.migration_id in ids]
    uuids = [row.instance_uuid for row in done]
    won: set[str] = set()
    for host in sorted({row.dest_compute for row in done}):
        won |= instances.update(
            connection,
            host,
            [
                InstanceUpdate(row.instance_uuid, "resized", None, {"vm_state": row.vm_state})
                for row in done
                if row.dest_compute == host
            ],
            now,
        )
    if uuids:
        _rewrite_flavors(
            connection,
            uuids,
            lambda owner, text: flavors.confirmed(text),
            {"migration_context": None, "updated_at": now},
        )
        instances.delete_system_metadata(connection, uuids, [OLD_VM_STATE])
    return won


def _rewrite_flavors(
    connection: sa.Connection,
    uuids: Sequence[str],
    rewrite: Callable[[str, str | None], str | None],
    values: dict[str, Any],
) -> None:
    query = (
        sa.select(_extra.c.id, _extra.c.instance_uuid, _extra.c.flavor)
        .where(_extra.c.instance_uuid.in_(uuids), _extra.c.deleted == 0)
        .with_for_update()
    )
    update_each(
        connection,
        _extra.c.flavor,
        {row.id: rewrite(row.instance_uuid, row.flavor) for row in connection.execute(query)},
        values,
    )
