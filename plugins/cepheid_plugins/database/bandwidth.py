# SPDX-License-Identifier: Apache-2.0
"""Queries on what went through instances' interfaces, per audit period."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import instances, models
from cepheid_plugins.database.bulk import batches, insert_rows, records, update_rows
from cepheid_plugins.database.records import BandwidthUsage, Networked

_usage = models.bw_usage_cache
_instances = models.instances
_caches = models.instance_info_caches
_COLUMNS = [_usage.c[name] for name in BandwidthUsage._fields]


_NETWORKED = (
    sa.select(_instances.c.uuid, _caches.c.network_info)
    .outerjoin(
        _caches,
        sa.and_(_caches.c.instance_uuid == _instances.c.uuid, _caches.c.deleted == 0),
    )
    .where(instances.IS_ON_HOST)
)
_UUIDS = sa.select(_instances.c.uuid, sa.null()).where(instances.IS_ON_HOST)
_OF_PERIODS = (
    sa.select(*_COLUMNS)
    .join(_instances, _instances.c.uuid == _usage.c.uuid)
    .where(instances.IS_ON_HOST, _usage.c.start_period.in_(sa.bindparam("periods", expanding=True)))
    .order_by(_usage.c.id)
)


def networked(connection: sa.Connection, host: str, with_interfaces: bool) -> list[Networked]:
    """Return the live instances of a host, hidden and soft-deleted ones included.

    :param with_interfaces: whether what is cached of their networks is wanted; else it is None
    """
    query = _NETWORKED if with_interfaces else _UUIDS
    return records(connection, query, Networked, on_host=host)


def on_host(
    connection: sa.Connection, host: str, periods: Sequence[datetime.datetime]
) -> list[BandwidthUsage]:
    """Return what is on record of a host's live instances, the oldest rows first.

    Deleted rows too, as in Nova.

    :param periods: when each begins
    """
    return records(connection, _OF_PERIODS, BandwidthUsage, on_host=host, periods=periods)


def save(
    connection: sa.Connection,
    start_period: datetime.datetime,
    known: Sequence[tuple[BandwidthUsage, Mapping[str, int]]],
    new: Sequence[Mapping[str, Any]],
    now: datetime.datetime,
) -> int:
    """Write usages of the period that begins at `start_period`.

    The table has no unique key, so two writers could make a row each of one interface. Therefore
    its instance is locked before a row is made. Both could also add the same traffic; therefore a
    row is written only while its last_ctr_in and last_ctr_out are as they were read.

    :param known: rows as they were read, each with its new values by column
    :param new: uuid, mac and values of rows that are not there yet
    :return: how many of all these another writer has written meanwhile; those are left alone
    """
    raced = len(known) + len(new)
    raced -= _insert(connection, start_period, new, now)
    raced -= update_rows(
        connection,
        _usage,
        {row.id: values for row, values in known},
        {"updated_at": now, "last_refreshed": now},
        {
            row.id: {"last_ctr_in": row.last_ctr_in, "last_ctr_out": row.last_ctr_out}
            for row, _ in known
        },
    )
    return raced


def _insert(
    connection: sa.Connection,
    start_period: datetime.datetime,
    new: Sequence[Mapping[str, Any]],
    now: datetime.datetime,
) -> int:
    """Insert the rows that nobody has inserted; return how many they are."""
    uuids = sorted({row["uuid"] for row in new})
    # Lock all before the first read: from then on InnoDB shows the rows as they were at that read.
    instances.lock(connection, uuids)
    there: set[tuple[str, str]] = set()
    for batch in batches(uuids):
        query = sa.select(_usage.c.uuid, _usage.c.mac).where(
            _usage.c.uuid.in_(batch), _usage.c.start_period == start_period
        )
        there |= {(row.uuid, (row.mac or "").lower()) for row in connection.execute(query)}
    missing = [row for row in new if (row["uuid"], row["mac"]) not in there]
    common = {
        "created_at": now,
        "deleted": 0,
        "start_period": start_period,
        "last_refreshed": now,
    }
    insert_rows(connection, _usage, [{**common, **row} for row in missing])
    return len(missing)
