# SPDX-License-Identifier: Apache-2.0
"""Queries on attached volumes and what was read from and written to them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import instances, models
from cepheid_plugins.database.bulk import batches, records, update_rows
from cepheid_plugins.database.records import Attachment, VolumeUsage

COUNTERS = ("reads", "read_bytes", "writes", "write_bytes")

_usage = models.volume_usage_cache
_mappings = models.block_device_mapping
_instances = models.instances
_COUNTERS = [f"{what}_{name}" for what in ("tot", "curr") for name in COUNTERS]
_COLUMNS = [
    # NULL where the counters of one kind were never written.
    sa.func.coalesce(_usage.c[name], 0).label(name) if name in _COUNTERS else _usage.c[name]
    for name in VolumeUsage._fields
]


_IS_VOLUME = sa.and_(_mappings.c.deleted == 0, _mappings.c.destination_type == "volume")
_ATTACHED = (
    sa.select(
        _mappings.c.volume_id,
        _mappings.c.device_name,
        _instances.c.uuid,
        _instances.c.project_id,
        _instances.c.user_id,
        _instances.c.availability_zone,
        _mappings.c.created_at,
    )
    .join(_instances, _instances.c.uuid == _mappings.c.instance_uuid)
    .where(instances.IS_ON_HOST, _IS_VOLUME)
    .order_by(_mappings.c.id)
)
_VOLUMES: Any = sa.bindparam("volumes", expanding=True)
_COUNTS = (
    sa.select(_mappings.c.volume_id, sa.func.count(sa.distinct(_mappings.c.instance_uuid)))
    .where(_mappings.c.volume_id.in_(_VOLUMES), _IS_VOLUME)
    .group_by(_mappings.c.volume_id)
)
_OF_VOLUMES = sa.select(*_COLUMNS).where(_usage.c.volume_id.in_(_VOLUMES)).order_by(_usage.c.id)


def attached(connection: sa.Connection, host: str) -> list[Attachment]:
    """Return the volumes that are attached to the live instances of a host."""
    return records(connection, _ATTACHED, Attachment, on_host=host)


def attachment_counts(connection: sa.Connection, volumes: Collection[str]) -> Counter[str]:
    """Return how many live instances each volume is attached to, on whatever host."""
    return Counter(dict(map(tuple, connection.execute(_COUNTS, {"volumes": volumes}).all())))


def of_volumes(connection: sa.Connection, volumes: Collection[str]) -> list[VolumeUsage]:
    """Return what is on record of volumes, the oldest rows first; deleted ones too, as in Nova."""
    return records(connection, _OF_VOLUMES, VolumeUsage, volumes=volumes)


def save(
    connection: sa.Connection,
    known: Mapping[int, Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    carried: Collection[int],
    now: datetime.datetime,
) -> None:
    """Write usages.

    :param known: the new values of rows by their id; ``curr_*`` among them
    :param new: the values of rows that are not there yet
    :param carried: the ids of those whose present counters go to the totals first
    """
    for batch in batches(list(carried)):
        # In SQL, so that what another writer adds is not lost.
        connection.execute(
            sa.update(_usage)
            .where(_usage.c.id.in_(batch))
            .values(
                {
                    f"tot_{name}": sa.func.coalesce(_usage.c[f"tot_{name}"], 0)
                    + sa.func.coalesce(_usage.c[f"curr_{name}"], 0)
                    for name in COUNTERS
                }
            )
        )
    update_rows(connection, _usage, known, {"updated_at": now, "curr_last_refreshed": now})
    if new:
        totals = {f"tot_{name}": 0 for name in COUNTERS}
        connection.execute(
            sa.insert(_usage),
            [
                {"created_at": now, "deleted": 0, "curr_last_refreshed": now, **totals, **values}
                for values in new
            ],
        )
