# SPDX-License-Identifier: Apache-2.0
"""Queries on instance actions, their events, and instance faults."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.records import ActionEnd, ActionStart, Fault

#: Bytes that instance_faults.message holds in Nova.
FAULT_MESSAGE_BYTES = 255

#: Bytes that a column of type TEXT holds in MySQL.
TEXT_BYTES = 65_535

#: Nova's tables in MySQL have three bytes for a character, and PostgreSQL takes no NUL.
_NOT_HELD = re.compile("[\0\U00010000-\U0010ffff]")

_actions = models.instance_actions
_events = models.instance_actions_events


def start(connection: sa.Connection, starts: Sequence[ActionStart], now: datetime.datetime) -> None:
    """Record actions and their events as begun; all belong to one request."""
    if not starts:
        return
    common = {"created_at": now, "deleted": 0, "start_time": now}
    connection.execute(
        sa.insert(_actions),
        [
            {
                **common,
                "updated_at": now,
                "action": start.action,
                "instance_uuid": start.instance_uuid,
                "request_id": start.request_id,
            }
            for start in starts
        ],
    )
    ids = _ids(connection, starts[0].request_id, [start.instance_uuid for start in starts])
    connection.execute(
        sa.insert(_events),
        [
            {
                **common,
                "action_id": ids[start.instance_uuid],
                "event": start.event,
                "host": start.host,
            }
            for start in starts
        ],
    )


def unfinished(
    connection: sa.Connection, uuids: Sequence[str], event: str, host: str
) -> dict[str, str]:
    """Return the request of each instance whose newest such event on this host has not ended."""
    newest = (
        sa.select(_actions.c.instance_uuid, sa.func.max(_events.c.id).label("event_id"))
        .join(_events, _events.c.action_id == _actions.c.id)
        .where(
            _actions.c.instance_uuid.in_(uuids), _events.c.event == event, _events.c.host == host
        )
        .group_by(_actions.c.instance_uuid)
        .subquery()
    )
    query = (
        sa.select(newest.c.instance_uuid, _actions.c.request_id)
        .join(_events, _events.c.id == newest.c.event_id)
        .join(_actions, _actions.c.id == _events.c.action_id)
        .where(_events.c.finish_time.is_(None))
    )
    return {row.instance_uuid: row.request_id for row in connection.execute(query)}


def end(connection: sa.Connection, ends: Sequence[ActionEnd], now: datetime.datetime) -> None:
    """Record how events, and with them their actions, ended; all belong to one request."""
    if not ends:
        return
    ids = _ids(connection, ends[0].request_id, [end.instance_uuid for end in ends])
    succeeded = [end for end in ends if not end.error]
    if succeeded:
        action_ids = [ids[end.instance_uuid] for end in succeeded if end.instance_uuid in ids]
        _end_alike(connection, action_ids, succeeded[0].event, now, {"result": "Success"}, {})
    for failed in (end for end in ends if end.error and end.instance_uuid in ids):
        values = {
            "result": "Error",
            "details": _fit(failed.error, TEXT_BYTES),
            "traceback": _fit(failed.traceback, TEXT_BYTES),
        }
        _end_alike(
            connection, [ids[failed.instance_uuid]], failed.event, now, values,
            {"message": "Error"},
        )  # fmt: skip


def add_faults(connection: sa.Connection, faults: Sequence[Fault], now: datetime.datetime) -> None:
    """Record instance faults."""
    if not faults:
        return
    connection.execute(
        sa.insert(models.instance_faults),
        [
            {
                "created_at": now,
                "deleted": 0,
                "instance_uuid": fault.instance_uuid,
                "code": fault.code,
                "message": _fit(fault.message, FAULT_MESSAGE_BYTES),
                "details": _fit(fault.details),
                "host": fault.host,
            }
            for fault in faults
        ],
    )


def of_instance(connection: sa.Connection, uuid: str) -> list[dict[str, object]]:
    """Return the actions of an instance, newest first."""
    query = (
        sa.select(_actions.c.action, _actions.c.start_time, _actions.c.message)
        .where(_actions.c.instance_uuid == uuid)
        .order_by(_actions.c.id.desc())
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _ids(connection: sa.Connection, request_id: str, uuids: Iterable[str]) -> dict[str, int]:
    query = (
        sa.select(_actions.c.instance_uuid, sa.func.max(_actions.c.id))
        .where(_actions.c.request_id == request_id, _actions.c.instance_uuid.in_(list(uuids)))
        .group_by(_actions.c.instance_uuid)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _end_alike(
    connection: sa.Connection,
    action_ids: Sequence[int],
    event: str,
    now: datetime.datetime,
    event_values: dict[str, str],
    action_values: dict[str, str],
) -> None:
    connection.execute(
        sa.update(_events)
        .where(
            _events.c.action_id.in_(action_ids),
            _events.c.event == event,
            _events.c.finish_time.is_(None),
        )
        .values(finish_time=now, updated_at=now, **event_values)
    )
    connection.execute(
        sa.update(_actions)
        .where(_actions.c.id.in_(action_ids))
        .values(updated_at=now, **action_values)
    )


def _fit(text: str, size: int | None = None) -> str:
    """Return a text as every database holds it, of at most `size` bytes.

    What cannot be held is replaced: that a failure gets recorded matters more than its spelling.
    """
    held = _NOT_HELD.sub("\N{REPLACEMENT CHARACTER}", text)
    return held.encode(errors="replace")[:size].decode(errors="ignore")
