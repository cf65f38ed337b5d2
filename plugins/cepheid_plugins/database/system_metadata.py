# SPDX-License-Identifier: Apache-2.0
"""Queries on instances' system metadata: texts by key, in ``instance_system_metadata``."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from cepheid_plugins.database import instances, models
from cepheid_plugins.database.bulk import batches, update_each

_table = models.instance_system_metadata

_ON_HOST = (
    sa.select(_table.c.instance_uuid, _table.c.value)
    .join(models.instances, models.instances.c.uuid == _table.c.instance_uuid)
    .where(
        instances.IS_ON_HOST,
        _table.c.key == sa.bindparam("of_key"),
        _table.c.deleted == 0,
    )
)


def of_instances(connection: sa.Connection, uuids: Sequence[str], key: str) -> dict[str, str]:
    """Return, by uuid, the value of a key; instances that do not have it are left out."""
    found: dict[str, str] = {}
    for batch in batches(uuids):
        query = sa.select(_table.c.instance_uuid, _table.c.value).where(
            _table.c.instance_uuid.in_(batch), _table.c.key == key, _table.c.deleted == 0
        )
        found.update({row.instance_uuid: row.value or "" for row in connection.execute(query)})
    return found


def on_host(connection: sa.Connection, host: str, key: str) -> dict[str, str]:
    """Return the same as :func:`of_instances`, for the live instances of a host."""
    found = connection.execute(_ON_HOST, {"on_host": host, "of_key": key}).all()
    return {uuid: value or "" for uuid, value in found}


def save(
    connection: sa.Connection, values: Mapping[str, Mapping[str, str]], now: datetime.datetime
) -> None:
    """Write values over those that are there, and add the others.

    :param values: by uuid, the values by key
    """
    wanted = {(uuid, key): text for uuid, of_one in values.items() for key, text in of_one.items()}
    if not wanted:
        return
    query = sa.select(_table.c.id, _table.c.instance_uuid, _table.c.key).where(
        _table.c.instance_uuid.in_(list(values)),
        _table.c.key.in_({key for _, key in wanted}),
        _table.c.deleted == 0,
    )
    ids = {(row.instance_uuid, row.key): row.id for row in connection.execute(query)}
    known = {ids[key]: text for key, text in wanted.items() if key in ids}
    update_each(connection, _table.c.value, known, {"updated_at": now})
    missing = [(key, text) for key, text in wanted.items() if key not in ids]
    if missing:
        connection.execute(
            sa.insert(_table),
            [
                {"instance_uuid": uuid, "key": key, "value": text, "created_at": now, "deleted": 0}
                for (uuid, key), text in missing
            ],
        )


def delete(connection: sa.Connection, uuids: Sequence[str], keys: Sequence[str]) -> None:
    """Remove keys and their values, for real: Nova would read a soft-deleted row."""
    connection.execute(
        sa.delete(_table).where(_table.c.instance_uuid.in_(uuids), _table.c.key.in_(keys))
    )
