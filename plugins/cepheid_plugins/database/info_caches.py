# SPDX-License-Identifier: Apache-2.0
"""Queries on what is cached of instances' networks."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.database.records import InfoCache

_caches = models.instance_info_caches
_instances = models.instances
_interfaces = models.virtual_interfaces


def of_instances(connection: sa.Connection, uuids: Sequence[str]) -> dict[str, InfoCache]:
    """Return the live caches of instances, by uuid."""
    query = sa.select(_caches.c.id, _caches.c.instance_uuid, _caches.c.network_info).where(
        _caches.c.instance_uuid.in_(uuids), _caches.c.deleted == 0
    )
    return {row.instance_uuid: InfoCache(*row) for row in connection.execute(query)}


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
            _caches.c.id == before.id,
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
        .where(_caches.c.id == before.id)
        .values(network_info=json.dumps(vifs), updated_at=now)
    )
    return True


def order(connection: sa.Connection, uuid: str) -> list[str]:
    """Return the ids of an instance's interfaces in the guest's order, as Nova has them."""
    query = (
        sa.select(_interfaces.c.uuid)
        .where(_interfaces.c.instance_uuid == uuid, _interfaces.c.deleted == 0)
        .order_by(_interfaces.c.id)
    )
    return list(connection.scalars(query))
