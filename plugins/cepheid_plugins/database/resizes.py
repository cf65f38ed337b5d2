# SPDX-License-Identifier: Apache-2.0
"""Queries on migrations, as far as they are resizes and cold migrations to be confirmed."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import flavors, instances, models, system_metadata
from cepheid_plugins.database.bulk import batches, records, update_each
from cepheid_plugins.database.instances import READ_BATCH
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
#: Of whatever type and status: a later one has moved the instance, or has tried to.
_NEWEST = (
    sa.select(_migrations.c.instance_uuid, sa.func.max(_migrations.c.id))
    .where(
        _migrations.c.instance_uuid.in_(sa.bindparam("uuids", expanding=True)),
        _migrations.c.deleted == 0,
    )
    .group_by(_migrations.c.instance_uuid)
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


def newer(connection: sa.Connection, rows: Iterable[Migration]) -> dict[int, int]:
    """Return the newest migration of an instance for each older one among the rows, by its id."""
    return _newer(connection, {row.id: row.instance_uuid for row in rows})


def start_confirming(
    connection: sa.Connection, rows: Sequence[Migration], now: datetime.datetime
) -> set[int]:
    """Set finished migrations to confirming which their instances wait with.

    The instances are locked while that is found out, so that a revert comes before or after.

    :return: the ids of the migrations; the others had moved on
    """
    ids = _waited_with(connection, {row.id: (row.instance_uuid, row.dest_compute) for row in rows})
    return set_status(connection, ids, "finished", "confirming", now)


def still_confirming(connection: sa.Connection, rows: Iterable[Migration]) -> set[int]:
    """Return the ids of migrations that are being confirmed, and that their instances wait with.

    The instances are locked while that is found out.
    """
    ids = _waited_with(connection, {row.id: (row.instance_uuid, row.dest_compute) for row in rows})
    return _lock_as_expected(connection, ids, "confirming")


def set_status(
    connection: sa.Connection,
    ids: Iterable[int],
    expected: str,
    status: str,
    now: datetime.datetime,
) -> set[int]:
    """Give migrations another status, if they have the expected one; return their ids."""
    as_expected = _lock_as_expected(connection, ids, expected)
    if as_expected:
        connection.execute(
            sa.update(_migrations)
            .where(_migrations.c.id.in_(as_expected), _migrations.c.status == expected)
            .values(status=status, updated_at=now)
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
    system_metadata.save(
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

    Nothing is written of an instance that does not wait with its migration any more.

    :return: the uuids of the instances that were written
    """
    waiting = _waited_with(
        connection, {row.migration_id: (row.instance_uuid, row.dest_compute) for row in rows}
    )
    ids = set_status(connection, waiting, "confirming", "confirmed", now)
    done = [row for row in rows if row.migration_id in ids]
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
    if won:
        uuids = sorted(won)
        _rewrite_flavors(
            connection,
            uuids,
            lambda owner, text: flavors.confirmed(text),
            {"migration_context": None, "updated_at": now},
        )
        system_metadata.delete(connection, uuids, [OLD_VM_STATE])
    return won


def _waited_with(
    connection: sa.Connection, moves: Mapping[int, tuple[str | None, str | None]]
) -> list[int]:
    """Return the migrations with which their instances wait, resized and idle, to be confirmed.

    An instance waits with its newest migration, on that one's destination. It is locked until the
    transaction ends.

    :param moves: instance and destination, by the migration's id
    """
    table = models.instances
    query = (
        sa.select(table.c.uuid, table.c.host)
        .where(
            table.c.uuid.in_({uuid for uuid, _ in moves.values()}),
            table.c.vm_state == "resized",
            table.c.task_state.is_(None),
            table.c.deleted == 0,
        )
        .with_for_update()
    )
    resized = {(row.uuid, row.host) for row in connection.execute(query)}
    there = {number: uuid for number, (uuid, host) in moves.items() if (uuid, host) in resized}
    # After the lock, so that what is read is not older than it.
    older = _newer(connection, there)
    return [number for number in there if number not in older]


def _newer(connection: sa.Connection, owners: Mapping[int, str | None]) -> dict[int, int]:
    """Return the newest migration of an instance for each older one.

    :param owners: the instances, by the migration's id
    """
    newest: dict[str | None, int] = {}
    for batch in batches(sorted({owner for owner in owners.values() if owner}), READ_BATCH):
        for owner, number in connection.execute(_NEWEST, {"uuids": batch}):
            newest[owner] = number
    return {
        number: newest[owner]
        for number, owner in owners.items()
        if owner in newest and newest[owner] > number
    }


def _lock_as_expected(connection: sa.Connection, ids: Iterable[int], expected: str) -> set[int]:
    """Lock the migrations that have the expected status; return their ids."""
    query = sa.select(_migrations.c.id).where(
        _migrations.c.id.in_(list(ids)), _migrations.c.status == expected
    )
    return set(connection.scalars(query.with_for_update()))


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
