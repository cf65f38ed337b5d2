# SPDX-License-Identifier: Apache-2.0
"""Queries on which audit periods have been audited, and on the instances that existed in one."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import instances, models
from cepheid_plugins.database.bulk import records
from cepheid_plugins.database.records import (
    AuditedInstance,
    AuditedTraffic,
    AuditLog,
    BlockDevice,
)

#: When a period begins and ends.
Period = tuple[datetime.datetime, datetime.datetime]

#: Where an instance stands in the order of a page: its project and its uuid.
Place = tuple[str, str]

#: What Nova calls the task and its states in ``task_log``.
TASK_NAME = "instance_usage_audit"
RUNNING = "RUNNING"
DONE = "DONE"

_logs = models.task_log
_instances = models.instances
_caches = models.instance_info_caches
_usage = models.bw_usage_cache
_mappings = models.block_device_mapping
_AUDITS = (
    sa.select(*(_logs.c[name] for name in AuditLog._fields))
    .where(_logs.c.task_name == TASK_NAME, _logs.c.host == sa.bindparam("on_host"))
    .order_by(_logs.c.period_ending)
)
_LOGS = _AUDITS.where(_logs.c.period_beginning >= sa.bindparam("since"))
_UNFINISHED = _AUDITS.where(_logs.c.state == RUNNING)
#: All columns but two that can be long and that no notification tells.
_COLUMNS = [column for column in _instances.c if column.name not in ("user_data", "key_data")]
#: NULL becomes empty: databases differ in where they sort NULL.
_project = sa.func.coalesce(_instances.c.project_id, "")


def logs(connection: sa.Connection, host: str, since: datetime.datetime) -> list[AuditLog]:
    """Return the audits of a host whose periods began at `since` or later, oldest first."""
    return records(connection, _LOGS, AuditLog, on_host=host, since=since)


def history(
    connection: sa.Connection, host: str, until: datetime.datetime
) -> tuple[list[AuditLog], datetime.datetime | None]:
    """Return the audits of a host that have not ended, and how far its audits have come.

    :return: the audits, oldest first; and the end of the newest period on record that ends at
        `until` or before, None where there is none
    """
    newest = sa.select(sa.func.max(_logs.c.period_ending)).where(
        *_of_host(host), _logs.c.period_ending <= until
    )
    unfinished = records(connection, _UNFINISHED, AuditLog, on_host=host)
    return unfinished, connection.scalar(newest)


def begin(
    connection: sa.Connection, host: str, period: Period, message: str, items: int, now: Any
) -> None:
    """Record that an audit has begun.

    :raises oslo_db.exception.DBDuplicateEntry: it had been begun before
    """
    begin, end = period
    connection.execute(
        sa.insert(_logs).values(
            task_name=TASK_NAME,
            host=host,
            period_beginning=begin,
            period_ending=end,
            state=RUNNING,
            message=message,
            task_items=items,
            errors=0,
            created_at=now,
            deleted=0,
        )
    )


def update(
    connection: sa.Connection, host: str, period: Period, before: str, values: Any, now: Any
) -> bool:
    """Write `values` to an audit that goes on, if its message still is `before`; tell whether.

    :param values: by column
    """
    begin, end = period
    written = connection.execute(
        sa.update(_logs)
        .where(
            *_of_host(host),
            _logs.c.period_beginning == begin,
            _logs.c.period_ending == end,
            _logs.c.state == RUNNING,
            _logs.c.message == before,
        )
        .values({**values, "updated_at": now})
    )
    return bool(written.rowcount)


def count(connection: sa.Connection, host: str, period: Period) -> int:
    """Return how many instances of a host existed within a period."""
    query = sa.select(sa.func.count()).where(*_existed(host, period))
    return int(connection.scalar(query) or 0)


def place(connection: sa.Connection, uuid: str) -> Place | None:
    """Return where an instance stands in the order of :func:`page`; None where it is gone."""
    query = sa.select(_project, _instances.c.uuid).where(_instances.c.uuid == uuid)
    row = connection.execute(query).first()
    return None if row is None else (row[0], row[1])


def page(
    connection: sa.Connection,
    host: str,
    period: Period,
    after: Place | None,
    limit: int,
    with_devices: bool,
) -> list[AuditedInstance]:
    """Return instances of a host that existed within a period, by project and uuid as in Nova.

    :param after: the place of the last one of the page before
    :param limit: how many at most
    """
    conditions = _existed(host, period)
    if after is not None:
        project, uuid = after
        conditions.append(
            sa.or_(_project > project, sa.and_(_project == project, _instances.c.uuid > uuid))
        )
    query = sa.select(*_COLUMNS).where(*conditions).order_by(_project, _instances.c.uuid)
    rows = {row["uuid"]: row for row in connection.execute(query.limit(limit)).mappings()}
    if not rows:
        return []
    uuids = list(rows)
    facts = instances.facts_of(connection, rows)
    networks = _networks(connection, uuids)
    bandwidth = _bandwidth(connection, uuids, period[0])
    devices = _devices(connection, uuids) if with_devices else {}
    return [
        AuditedInstance(
            facts[uuid], networks.get(uuid), bandwidth.get(uuid, ()), devices.get(uuid, ())
        )
        for uuid in uuids
    ]


def _of_host(host: str) -> list[Any]:
    return [_logs.c.task_name == TASK_NAME, _logs.c.host == host]


def _existed(host: str, period: Period) -> list[Any]:
    """Return the conditions for an instance's having existed on a host within a period.

    It ended at terminated_at; where that is NULL and the instance is deleted, at deleted_at. Hidden
    rows are left out: of an instance that moves between cells there are two, one of them hidden.
    """
    begin, end = period
    terminated_at, deleted_at = _instances.c.terminated_at, _instances.c.deleted_at
    ended = sa.case(
        (_instances.c.deleted != 0, sa.func.coalesce(terminated_at, deleted_at)),
        else_=terminated_at,
    )
    return [
        _instances.c.host == host,
        _instances.c.launched_at < end,
        sa.or_(ended.is_(None), ended > begin),
        sa.or_(_instances.c.hidden.is_(None), _instances.c.hidden.is_(sa.false())),
    ]


def _networks(connection: sa.Connection, uuids: Collection[str]) -> dict[str, str | None]:
    """Return what is cached of networks, of deleted instances too."""
    query = sa.select(_caches.c.instance_uuid, _caches.c.network_info).where(
        _caches.c.instance_uuid.in_(uuids)
    )
    return {row.instance_uuid: row.network_info for row in connection.execute(query)}


def _bandwidth(
    connection: sa.Connection, uuids: Collection[str], begin: datetime.datetime
) -> dict[str, Sequence[AuditedTraffic]]:
    query = (
        sa.select(
            _usage.c.uuid,
            _usage.c.mac,
            sa.func.coalesce(_usage.c.bw_in, 0),
            sa.func.coalesce(_usage.c.bw_out, 0),
        )
        .where(_usage.c.uuid.in_(uuids), _usage.c.start_period == begin)
        .order_by(_usage.c.id)
    )
    found: dict[str, dict[str, AuditedTraffic]] = {}
    for uuid, mac, bw_in, bw_out in connection.execute(query):
        # If two writers have made a row each, only the first one is written to later.
        found.setdefault(uuid, {}).setdefault(mac or "", AuditedTraffic(mac or "", bw_in, bw_out))
    return {uuid: tuple(of_one.values()) for uuid, of_one in found.items()}


def _devices(connection: sa.Connection, uuids: Collection[str]) -> dict[str, Sequence[BlockDevice]]:
    query = (
        sa.select(
            _mappings.c.instance_uuid,
            *(_mappings.c[name] for name in BlockDevice._fields),
        )
        .where(
            _mappings.c.instance_uuid.in_(uuids),
            _mappings.c.deleted == 0,
            _mappings.c.volume_id.is_not(None),
        )
        .order_by(_mappings.c.id)
    )
    found: dict[str, list[BlockDevice]] = {}
    for uuid, *values in connection.execute(query):
        found.setdefault(uuid, []).append(BlockDevice(*values))
    return {uuid: tuple(of_one) for uuid, of_one in found.items()}
