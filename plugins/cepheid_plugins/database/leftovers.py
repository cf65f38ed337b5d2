# SPDX-License-Identifier: Apache-2.0
"""Queries on what is left of deleted instances."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.bulk import batches, records, update_each
from cepheid_plugins.database.compute_nodes import ENDED
from cepheid_plugins.database.instances import IS_VISIBLE, READ_BATCH, set_cleaned
from cepheid_plugins.database.records import CLEAN_ATTEMPTS, BrokenMigration, DeadInstance

_instances = models.instances
_metadata = models.instance_system_metadata
_migrations = models.migrations

_IS_DELETED = _instances.c.deleted == _instances.c.id


_IS_COUNT = sa.and_(
    _metadata.c.instance_uuid == _instances.c.uuid, _metadata.c.key == CLEAN_ATTEMPTS
)
_other = _migrations.alias()
#: Whether an instance, deleted or not, has a migration that goes on; one of unknown status counts.
#: A migration that was deleted with its instance keeps its last status for ever; that says nothing,
#: so it is left out. Source: Nova's instance_destroy.
_IS_MOVING = (
    sa.exists()
    .where(
        _other.c.instance_uuid == _instances.c.uuid,
        _other.c.deleted == 0,
        sa.or_(_other.c.status.is_(None), _other.c.status.not_in((*ENDED, "error"))),
    )
    .label("is_moving")
)
_UUIDS: Any = sa.bindparam("uuids", expanding=True)
_DEAD = (
    sa.select(
        *(_instances.c[name] for name in ("uuid", "host", "display_name", "deleted_at", "cleaned")),
        _metadata.c.value,
        sa.func.coalesce(_metadata.c.updated_at, _metadata.c.created_at),
        _IS_MOVING,
    )
    .select_from(_instances.outerjoin(_metadata, _IS_COUNT))
    .where(
        _instances.c.host == sa.bindparam("on_host"),
        _instances.c.deleted > 0,  # it holds the row's id; this lets the index skip live rows
        _IS_DELETED,
        IS_VISIBLE,
        sa.or_(
            _instances.c.cleaned == 0,
            _instances.c.uuid.in_(_UUIDS),
            _instances.c.deleted_at >= sa.bindparam("since"),
        ),
    )
    .order_by(_instances.c.created_at.desc(), _instances.c.id.desc(), _metadata.c.id)
)
_MOVED = _migrations.join(_instances, _instances.c.uuid == _migrations.c.instance_uuid)
_IS_OF_HOST = sa.and_(
    sa.or_(
        _migrations.c.source_compute == sa.bindparam("on_host"),
        _migrations.c.dest_compute == sa.bindparam("on_host"),
    ),
    _migrations.c.status.in_(("error", "failed")),
    sa.or_(_migrations.c.cross_cell_move.is_(None), _migrations.c.cross_cell_move.is_(sa.false())),
    sa.or_(_instances.c.host.is_(None), _instances.c.host != sa.bindparam("on_host")),
    sa.or_(_IS_DELETED, _instances.c.deleted == 0),
    IS_VISIBLE,
)
_ANY_BROKEN = sa.select(_migrations.c.id).select_from(_MOVED).where(_IS_OF_HOST).limit(1)
_BROKEN = (
    sa.select(
        *(_migrations.c[name] for name in ("id", "status", "source_compute", "dest_compute")),
        *(_instances.c[name] for name in ("uuid", "display_name", "host", "deleted_at")),
        _IS_DELETED,
        _IS_MOVING,
    )
    .select_from(_MOVED)
    .where(
        _IS_OF_HOST,
        sa.or_(_migrations.c.status == "error", _migrations.c.instance_uuid.in_(_UUIDS)),
    )
    .order_by(_migrations.c.id)
)


def dead_instances(
    connection: sa.Connection,
    host: str,
    uuids: Collection[str],
    since: datetime.datetime | None,
) -> list[DeadInstance]:
    """Return a host's deleted instances that are not clean, are among `uuids`, or were deleted
    at `since` or later; newest first.

    Not clean is `cleaned` = 0; whoever wrote NULL has not said that files are left.
    """
    found: dict[str, DeadInstance] = {}
    for batch in _portions(uuids):
        rows = records(connection, _DEAD, DeadInstance, on_host=host, uuids=batch, since=since)
        found.update({row.uuid: row for row in rows})
    return list(found.values())


def has_broken_migrations(connection: sa.Connection, host: str) -> bool:
    """Tell whether there is a migration in error or a failed one from or to a host.

    It counts those of :func:`broken_migrations`, and failed ones of any instance.
    """
    return connection.execute(_ANY_BROKEN, {"on_host": host}).first() is not None


def broken_migrations(
    connection: sa.Connection, host: str, uuids: Collection[str]
) -> list[BrokenMigration]:
    """Return the migrations in error from and to a host, and the failed ones of `uuids`.

    Deleted rows are among them, since a migration is deleted with its instance. Left out are those
    of instances that are on this host, and those between cells, whose instance lives on in another.
    """
    found: dict[int, BrokenMigration] = {}
    for batch in _portions(uuids):
        rows = records(connection, _BROKEN, BrokenMigration, on_host=host, uuids=batch)
        found.update({row.id: row for row in rows})
    return list(found.values())


def record_cleaning(
    connection: sa.Connection,
    attempts: Mapping[str, int],
    cleaned: Collection[str],
    now: datetime.datetime,
) -> set[str]:
    """Record how often the files of instances were tried to be removed, and who has none left.

    The row of a count is deleted together with its instance. It is written to all the same, as
    Nova does.

    :param attempts: by uuid, the count to be written
    :param cleaned: the uuids of the instances that have no files left
    :return: the uuids that were written as clean
    """
    known: dict[str, int] = {}
    for batch in batches(sorted(attempts)):
        query = sa.select(_metadata.c.instance_uuid, _metadata.c.id).where(
            _metadata.c.instance_uuid.in_(batch), _metadata.c.key == CLEAN_ATTEMPTS
        )
        for row in connection.execute(query.order_by(_metadata.c.id)):
            known[row.instance_uuid] = row.id
    counts = {known[uuid]: str(count) for uuid, count in attempts.items() if uuid in known}
    update_each(connection, _metadata.c.value, counts, {"updated_at": now})
    missing = [uuid for uuid in sorted(attempts) if uuid not in known]
    if missing:
        connection.execute(
            sa.insert(_metadata),
            [
                {
                    "instance_uuid": uuid,
                    "key": CLEAN_ATTEMPTS,
                    "value": str(attempts[uuid]),
                    "created_at": now,
                    "deleted": 0,
                }
                for uuid in missing
            ],
        )
    written: set[str] = set()
    for batch in batches(sorted(cleaned)):
        written |= set_cleaned(connection, batch)
    return written


def _portions(uuids: Iterable[str]) -> Iterable[Any]:
    """Give the uuids in portions that one statement can name, and one portion at least."""
    return list(batches(sorted(uuids), READ_BATCH)) or [()]
