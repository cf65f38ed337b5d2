# SPDX-License-Identifier: Apache-2.0
"""Queries on instances. Those on their system metadata are in :mod:`.system_metadata`."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.bulk import R, batches, records
from cepheid_plugins.database.records import (
    ANY,
    UUID_BEGINNING,
    DeletedInstance,
    Fates,
    Instance,
    InstanceFacts,
    InstanceUpdate,
    NewInstance,
    Volume,
)

#: The most uuids that one query names: more than a host has domains, so one query is enough.
READ_BATCH = 10_000

_instances = models.instances
_COLUMNS = [_instances.c[name] for name in Instance._fields]


#: Live instances of the host that is bound as ``on_host``.
IS_ON_HOST = sa.and_(_instances.c.host == sa.bindparam("on_host"), _instances.c.deleted == 0)
_ON_HOST = sa.select(*_COLUMNS).where(IS_ON_HOST)
_UUIDS_ON_HOST = sa.select(_instances.c.uuid).where(IS_ON_HOST)
_DELETED_AT_ON_HOST = sa.select(_instances.c.uuid, _instances.c.deleted_at).where(IS_ON_HOST)
#: Hidden instances live on in another cell; here they are left out.
IS_VISIBLE = sa.or_(_instances.c.hidden.is_(None), _instances.c.hidden.is_(sa.false()))
#: The visible ones, newest first.
_VISIBLE = _ON_HOST.where(IS_VISIBLE).order_by(
    _instances.c.created_at.desc(), _instances.c.id.desc()
)
_IN_VM_STATE = _VISIBLE.where(_instances.c.vm_state == sa.bindparam("state"))
_IN_TASK_STATES = _VISIBLE.where(
    _instances.c.task_state.in_(sa.bindparam("states", expanding=True))
)
_BY_UUIDS = sa.select(*_COLUMNS).where(_instances.c.uuid.in_(sa.bindparam("uuids", expanding=True)))
_DELETED = _BY_UUIDS.where(_instances.c.deleted == _instances.c.id, IS_VISIBLE)
# Few columns: a server's rows are read by Python code, value by value.
_GONE = _DELETED.with_only_columns(*(_instances.c[name] for name in DeletedInstance._fields))
_KNOWN = _BY_UUIDS.with_only_columns(_instances.c.uuid)
_ALIVE = _KNOWN.where(_instances.c.deleted == 0)


def on_host(connection: sa.Connection, host: str) -> list[Instance]:
    """Return the live instances of a host, hidden and soft-deleted ones included."""
    return records(connection, _ON_HOST, Instance, on_host=host)


def uuids_on_host(connection: sa.Connection, host: str) -> list[str]:
    """Return the uuids of :func:`on_host`."""
    return [row[0] for row in connection.execute(_UUIDS_ON_HOST, {"on_host": host}).all()]


def deleted_at_on_host(connection: sa.Connection, host: str) -> dict[str, datetime.datetime | None]:
    """Return when those of :func:`on_host` were soft-deleted, by uuid; None: they are not."""
    return dict(connection.execute(_DELETED_AT_ON_HOST, {"on_host": host}).all())


def in_vm_state(connection: sa.Connection, host: str, vm_state: str) -> list[Instance]:
    """Return the live instances of a host in a vm_state, newest first; no hidden ones."""
    return records(connection, _IN_VM_STATE, Instance, on_host=host, state=vm_state)


def in_task_states(
    connection: sa.Connection, host: str, task_states: Sequence[str]
) -> list[Instance]:
    """Return the live instances of a host in these task_states, newest first; no hidden ones."""
    return records(connection, _IN_TASK_STATES, Instance, on_host=host, states=task_states)


def by_uuids(connection: sa.Connection, uuids: Iterable[str]) -> list[Instance]:
    """Return the instances with these uuids, on any host, deleted ones too."""
    return _of(connection, _BY_UUIDS, Instance, uuids)


def known(connection: sa.Connection, uuids: Iterable[str]) -> set[str]:
    """Return those of these uuids that an instance has, deleted or not, on any host."""
    return _uuids(connection, _KNOWN, uuids)


def fates(connection: sa.Connection, host: str, uuids: Iterable[str]) -> Fates:
    """Return who is alive on a host, and what became of those of `uuids` who are not."""
    live = deleted_at_on_host(connection, host)
    others = [uuid for uuid in uuids if uuid not in live]
    deleted = _of(connection, _GONE, DeletedInstance, others)
    gone = {row.uuid for row in deleted}
    return Fates(
        live, deleted, _uuids(connection, _ALIVE, [uuid for uuid in others if uuid not in gone])
    )


def deleted(connection: sa.Connection, uuids: Iterable[str]) -> list[Instance]:
    """Return the instances with these uuids that are deleted for good, whatever their host; no
    hidden ones."""
    return _of(connection, _DELETED, Instance, uuids)


def _of(
    connection: sa.Connection, query: sa.Select[Any], record: type[R], uuids: Iterable[str]
) -> list[R]:
    """Return what a query finds of uuids, however many they are."""
    found: list[R] = []
    for batch in batches(list(uuids), READ_BATCH):
        found += records(connection, query, record, uuids=batch)
    return found


def _uuids(connection: sa.Connection, query: sa.Select[Any], uuids: Iterable[str]) -> set[str]:
    """Return which of these uuids a query finds, however many they are."""
    found: set[str] = set()
    for batch in batches(list(uuids), READ_BATCH):
        found.update(connection.execute(query, {"uuids": batch}).scalars())
    return found


def by_name(connection: sa.Connection, name: str, deleted: bool) -> list[Instance]:
    """Return the instances of this display name, or whose uuid begins so: the live ones, or those
    that are deleted. Less than :data:`UUID_BEGINNING` is no beginning of a uuid."""
    is_meant = _instances.c.display_name == name
    if len(name) >= UUID_BEGINNING:
        begins_so = _instances.c.uuid.startswith(name, autoescape=True)
        is_meant = sa.or_(is_meant, begins_so)
    is_wanted = _instances.c.deleted != 0 if deleted else _instances.c.deleted == 0
    return records(connection, sa.select(*_COLUMNS).where(is_wanted, is_meant), Instance)


def facts(connection: sa.Connection, uuids: Sequence[str]) -> dict[str, InstanceFacts]:
    """Return all that is on record of instances, on any host, deleted ones too."""
    found: dict[str, InstanceFacts] = {}
    for batch in batches(uuids):
        rows = connection.execute(sa.select(_instances).where(_instances.c.uuid.in_(batch)))
        found |= facts_of(connection, {row["uuid"]: row for row in rows.mappings()})
    return found


def facts_of(connection: sa.Connection, columns: Mapping[str, Any]) -> dict[str, InstanceFacts]:
    """Return all that is on record of instances whose rows have been read.

    :param columns: by uuid, the columns of each row; not more rows than a statement can name
    """
    extra = models.instance_extra
    query = sa.select(extra.c.instance_uuid, extra.c.flavor).where(
        extra.c.instance_uuid.in_(list(columns))
    )
    texts = {row.instance_uuid: row.flavor for row in connection.execute(query)}
    metadata = _metadata(connection, models.instance_metadata, columns)
    system_metadata = _metadata(connection, models.instance_system_metadata, columns)
    return {
        uuid: InstanceFacts(
            dict(row),
            flavors.present(texts.get(uuid)),
            metadata.get(uuid, {}),
            system_metadata.get(uuid, {}),
        )
        for uuid, row in columns.items()
    }


def _metadata(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Return the metadata that instances have, or had when they were deleted."""
    query = sa.select(
        table.c.instance_uuid, table.c.key, table.c.value, table.c.deleted, table.c.deleted_at
    ).where(table.c.instance_uuid.in_(list(columns)))
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(query):
        if not row.deleted or _went_with(columns[row.instance_uuid], row.deleted_at):
            found.setdefault(row.instance_uuid, {})[row.key] = row.value
    return found


def _went_with(instance: Mapping[str, Any], deleted_at: datetime.datetime | None) -> bool:
    """Tell whether a row that was deleted at `deleted_at` was deleted together with its instance.

    Then its time is that of the instance or later: Nova takes the time anew for each table, and
    deletes the instance first.
    """
    if not instance["deleted"] or not instance["deleted_at"]:
        return False
    return deleted_at is not None and deleted_at >= instance["deleted_at"]


def update(
    connection: sa.Connection,
    host: str | None,
    updates: Sequence[InstanceUpdate],
    now: datetime.datetime,
) -> set[str]:
    """Write each update whose instance still is on `host`, live, and in the expected states.

    A host of None means those that are on none. Equal updates of many instances share their
    statements.

    :return: the uuids that were written; the others had moved on
    """
    groups: dict[Any, dict[str, InstanceUpdate]] = {}
    for wanted in updates:
        key = (
            wanted.expected_vm_state,
            wanted.expected_task_state,
            tuple(sorted(wanted.values.items())),
        )
        groups.setdefault(key, {})[wanted.uuid] = wanted
    written: set[str] = set()
    for alike in groups.values():
        for batch in batches(list(alike.values())):
            written |= _update_alike(connection, host, batch, now)
    return written


def create(connection: sa.Connection, rows: Sequence[NewInstance], now: datetime.datetime) -> None:
    """Insert instances with the rows that hang on each."""
    if not rows:
        return
    common = {"created_at": now, "deleted": 0}
    connection.execute(
        sa.insert(_instances),
        [
            {
                **common,
                **dataclasses.asdict(row),
                "hostname": row.display_name[:255],
                "display_description": row.display_name,
                "ephemeral_gb": 0,
                "launched_at": now,
                "launched_on": row.host,
                "image_ref": "",
                "kernel_id": "",
                "ramdisk_id": "",
                "locked": False,
                "hidden": False,
                "cleaned": 0,
                "progress": 0,
                "shutdown_terminate": False,
                "disable_terminate": False,
            }
            for row in rows
        ],
    )
    connection.execute(
        sa.insert(models.instance_info_caches),
        [{**common, "instance_uuid": row.uuid, "network_info": "[]"} for row in rows],
    )
    connection.execute(
        sa.insert(models.instance_extra),
        [
            {
                **common,
                "instance_uuid": row.uuid,
                "flavor": flavors.of_new(row),
                "pci_requests": "[]",
            }
            for row in rows
        ],
    )


def lock(connection: sa.Connection, uuids: Sequence[str]) -> None:
    """Lock instances until the transaction ends.

    Who writes to an instance and to what hangs on it locks the instance first.
    """
    for batch in batches(uuids):
        query = sa.select(_instances.c.id).where(_instances.c.uuid.in_(batch))
        connection.execute(query.with_for_update()).all()


def _update_alike(
    connection: sa.Connection,
    host: str | None,
    updates: Sequence[InstanceUpdate],
    now: datetime.datetime,
) -> set[str]:
    """Write updates that differ in nothing but the instance and its expected deleted_at."""
    example = updates[0]
    conditions = [
        _instances.c.uuid.in_([wanted.uuid for wanted in updates]),
        _instances.c.host == host,
        _instances.c.deleted == 0,
    ]
    if example.expected_vm_state is not ANY:
        conditions.append(_instances.c.vm_state == example.expected_vm_state)
    if example.expected_task_state is not ANY:
        conditions.append(_instances.c.task_state == example.expected_task_state)
    # The rows are locked as they are read, so what is read is what is written.
    columns = (_instances.c.uuid, _instances.c.deleted_at)
    found = connection.execute(sa.select(*columns).where(*conditions).with_for_update())
    deleted_at = {row.uuid: row.deleted_at for row in found}
    # Compared here: SQLite has a time as text, and who wrote it need not have written it alike.
    as_expected = {
        wanted.uuid
        for wanted in updates
        if wanted.uuid in deleted_at
        and wanted.expected_deleted_at in (ANY, deleted_at[wanted.uuid])
    }
    if as_expected:
        # Those that were not as expected are not locked, and may be so by now.
        mine = _instances.c.uuid.in_(sorted(as_expected))
        connection.execute(
            sa.update(_instances)
            .where(mine, *conditions[1:])
            .values({**example.values, "updated_at": now})
        )
    return as_expected


def set_cleaned(connection: sa.Connection, uuids: Sequence[str]) -> set[str]:
    """Record of deleted instances that nothing is left of them; return their uuids."""
    conditions = [_instances.c.uuid.in_(uuids), _instances.c.deleted == _instances.c.id]
    found = set(connection.scalars(sa.select(_instances.c.uuid).where(*conditions)))
    if found:
        connection.execute(sa.update(_instances).where(*conditions).values(cleaned=1))
    return found


def destroy(
    connection: sa.Connection,
    host: str,
    updates: Sequence[InstanceUpdate],
    dependants: Sequence[sa.TableClause],
    removed: Sequence[sa.TableClause],
    now: datetime.datetime,
) -> set[str]:
    """Soft-delete instances, and with them what hangs on each, at once.

    :param updates: as :func:`update` takes them; their values are written as well
    :param dependants: tables whose rows are soft-deleted with their instance
    :param removed: tables whose rows are deleted for real
    :return: the uuids that were deleted; the others had moved on
    """
    gone = {"deleted": _instances.c.id, "deleted_at": now}
    marked = [dataclasses.replace(one, values={**one.values, **gone}) for one in updates]
    won = update(connection, host, marked, now)
    for batch in batches(sorted(won)):
        for table in dependants:
            connection.execute(
                sa.update(table)
                .where(table.c[owner_column(table)].in_(batch), table.c.deleted == 0)
                .values(deleted=table.c.id, deleted_at=now)
            )
        for table in removed:
            connection.execute(sa.delete(table).where(table.c[owner_column(table)].in_(batch)))
    return won


def owner_column(table: sa.TableClause) -> str:
    """Return the column that names the instance: Nova has three names for it."""
    names = ("instance_uuid", "uuid", "resource_id")
    return next(name for name in names if name in table.c)


def volumes(connection: sa.Connection, uuids: Sequence[str]) -> list[Volume]:
    """Return the attached volumes of instances."""
    table = models.block_device_mapping
    columns = [table.c[name] for name in Volume._fields]
    found: list[Volume] = []
    for batch in batches(uuids):
        query = sa.select(*columns).where(
            table.c.instance_uuid.in_(batch),
            table.c.destination_type == "volume",
            table.c.deleted == 0,
        )
        found += records(connection, query, Volume)
    return found
