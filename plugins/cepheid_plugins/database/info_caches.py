# SPDX-License-Identifier: Apache-2.0
"""Queries on what is cached of instances' networks."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.bulk import batches
from cepheid_plugins.database.instances import READ_BATCH
from cepheid_plugins.database.records import InfoCache

_caches = models.instance_info_caches
_instances = models.instances
_interfaces = models.virtual_interfaces

_OF_INSTANCES = (
    sa.select(
        _instances.c.uuid,
        _instances.c.host,
        _instances.c.display_name,
        _instances.c.task_state,
        _instances.c.deleted,
        _caches.c.id,
        _caches.c.network_info,
    )
    .outerjoin(
        _caches, sa.and_(_caches.c.instance_uuid == _instances.c.uuid, _caches.c.deleted == 0)
    )
    .where(_instances.c.uuid.in_(sa.bindparam("uuids", expanding=True)))
)
_ORDERS = (
    sa.select(_interfaces.c.instance_uuid, _interfaces.c.uuid)
    .where(
        _interfaces.c.instance_uuid.in_(sa.bindparam("uuids", expanding=True)),
        _interfaces.c.deleted == 0,
    )
    .order_by(_interfaces.c.id)
)


def of_instances(
    connection: sa.Connection, uuids: Sequence[str], is_novas: bool
) -> list[InfoCache]:
    """Return what is cached of instances' networks, on any host, of deleted ones too.

    :param is_novas: whether the order of interfaces is on record
    """
    found: list[InfoCache] = []
    for batch in batches(uuids, READ_BATCH):
        orders = _orders(connection, batch) if is_novas else {}
        for row in connection.execute(_OF_INSTANCES, {"uuids": batch}):
            found.append(InfoCache(*row, tuple(orders.get(row.uuid, ()))))
    return found


def update(
    connection: sa.Connection,
    host: str,
    before: InfoCache,
    vifs: Sequence[Any],
    now: datetime.datetime,
) -> bool:
    """Write a cache that is still as it was read, of a live instance of `host`; tell whether."""
    query = (
        sa.select(_caches.c.network_info)
        .join(_instances, _instances.c.uuid == _caches.c.instance_uuid)
        .where(
            _caches.c.id == before.cache_id,
            _caches.c.deleted == 0,
            _instances.c.host == host,
            _instances.c.deleted == 0,
        )
        .with_for_update(of=_caches)
    )
    row = connection.execute(query).first()
    if row is None or row.network_info != before.network_info:
        return False
    connection.execute(
        sa.update(_caches)
        .where(_caches.c.id == before.cache_id)
        .values(network_info=json.dumps(vifs), updated_at=now)
    )
    return True


def _orders(connection: sa.Connection, uuids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of instances' interfaces in the guests' order, as Nova has them."""
    found: dict[str, list[str]] = {}
    for uuid, interface in connection.execute(_ORDERS, {"uuids": uuids}):
        found.setdefault(uuid, []).append(interface)
    return found
