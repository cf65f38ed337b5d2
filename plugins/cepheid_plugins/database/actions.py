# SPDX-License-Identifier: Apache-2.0
"""Queries on instance actions, their events, and instance faults."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.bulk import batches
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
    """Record actions and their events as begun."""
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
    ids = _ids(connection, starts)
    connection.execute(
        sa.insert(_events),
        [
            {
                **common,
                "action_id": ids[start.request_id, start.instance_uuid],
                "event": start.event,
                "host": start.host,
            }
            for start in starts
        ],
    )


def unfinished(
    connection: sa.Connection, uuids: Sequence[str], event: str, host: str
) -> dict[str, str]:
    """Return, by uuid, the request of each instance whose newest event of a kind has not ended.

    Actions that a user asked Nova's API for are left out: they are nova-compute's to end.

    :param event: as instance_actions_events.event names it
    :param host: the host whose events are meant
    """
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
        .where(_events.c.finish_time.is_(None), _actions.c.user_id.is_(None))
    )
    return {row.instance_uuid: row.request_id for row in connection.execute(query)}


def end(connection: sa.Connection, ends: Sequence[ActionEnd], now: datetime.datetime) -> None:
    """Record how events, and with them their actions, ended; one without an action is left out."""
    if not ends:
        return
    ids = _ids(connection, ends)
    alike: dict[tuple[str, str, str], list[int]] = {}
    for one in ends:
        if (one.request_id, one.instance_uuid) in ids:
            action_id = ids[one.request_id, one.instance_uuid]
            alike.setdefault((one.event, one.error, one.traceback), []).append(action_id)
    for (event, error, traceback), action_ids in alike.items():
        for batch in batches(action_ids):
            _end_alike(connection, batch, event, error, traceback, now)


def _end_alike(
    connection: sa.Connection,
    action_ids: Sequence[int],
    event: str,
    error: str,
    traceback: str,
    now: datetime.datetime,
) -> None:
    connection.execute(
        sa.update(_events)
        .where(
            _events.c.action_id.in_(action_ids),
            _events.c.event == event,
            _events.c.finish_time.is_(None),
        )
        .values(
            finish_time=now,
            updated_at=now,
            result="Error" if error else "Success",
            details=_fit(error, TEXT_BYTES) if error else None,
            traceback=_fit(traceback, TEXT_BYTES) if traceback else None,
        )
    )
    connection.execute(
        sa.update(_actions)
        .where(_actions.c.id.in_(action_ids))
        .values(updated_at=now, message="Error" if error else None)
    )


def failures_in_a_row(connection: sa.Connection, uuids: Sequence[str], event: str) -> Counter[str]:
    """Return how often such an event has failed, since one succeeded or a user asked."""
    query = (
        sa.select(_actions.c.instance_uuid, _actions.c.user_id, _events.c.result)
        .join(_events, _events.c.action_id == _actions.c.id)
        .where(_actions.c.instance_uuid.in_(uuids), _events.c.event == event)
        .order_by(_events.c.id.desc())
    )
    failures: Counter[str] = Counter()
    ended = set()
    for row in connection.execute(query):
        if row.user_id is not None or row.result != "Error":
            ended.add(row.instance_uuid)
        elif row.instance_uuid not in ended:
            failures[row.instance_uuid] += 1
    return failures


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


def _ids(
    connection: sa.Connection, of: Iterable[ActionStart | ActionEnd]
) -> dict[tuple[str, str], int]:
    """Return the newest action of each (request, instance)."""
    wanted = {(one.request_id, one.instance_uuid) for one in of}
    query = (
        sa.select(_actions.c.request_id, _actions.c.instance_uuid, sa.func.max(_actions.c.id))
        .where(
            _actions.c.request_id.in_({request for request, _ in wanted}),
            _actions.c.instance_uuid.in_({uuid for _, uuid in wanted}),
        )
        .group_by(_actions.c.request_id, _actions.c.instance_uuid)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def _fit(text: str, size: int | None = None) -> str:
    """Return a text as every database holds it, of at most `size` bytes.

    What cannot be held is replaced: that a failure gets recorded matters more than its spelling.
    """
    held = _NOT_HELD.sub("\N{REPLACEMENT CHARACTER}", text)
    return held.encode(errors="replace")[:size].decode(errors="ignore")
