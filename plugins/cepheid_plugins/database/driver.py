# SPDX-License-Identifier: Apache-2.0
"""The database driver: what tasks ask of the inventory."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cepheid_plugins.database import (
    actions,
    bandwidth,
    compute_nodes,
    errors,
    image_users,
    info_caches,
    instances,
    leftovers,
    migrate,
    models,
    opts,
    resizes,
    server_clock,
    system_metadata,
    usage_audit,
    volume_usage,
)
from cepheid_plugins.database.records import (
    ActionEnd,
    ActionStart,
    Attachment,
    AuditedInstance,
    AuditLog,
    BandwidthUsage,
    BrokenMigration,
    ComputeNode,
    Confirmed,
    DeadInstance,
    Fates,
    Fault,
    ImageUser,
    InfoCache,
    Instance,
    InstanceFacts,
    InstanceUpdate,
    Migration,
    Move,
    Networked,
    NewInstance,
    Occupant,
    Resized,
    Volume,
    VolumeUsage,
)
from cepheid_plugins.database.transactions import Transactions

if TYPE_CHECKING:
    from cepheid.agent import Agent


class Database(Transactions):
    """The inventory behind ``[database] connection``; connects when it is first asked.

    Every method may raise :class:`~cepheid_plugins.database.errors.DatabaseUnavailable` and
    :class:`~cepheid_plugins.database.errors.DatabaseNotMigrated`. Usable by several threads.
    """

    options = opts.options()

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        #: Whose the tables are, once it was asked.
        self._owner: str | None = None

    # Instances.

    def instances_on_host(self, host: str) -> list[Instance]:
        """Return the live instances of a host, hidden and soft-deleted ones included."""
        return self._read(instances.on_host, host)

    def instance_uuids_on_host(self, host: str) -> list[str]:
        """Return the uuids of :meth:`instances_on_host`."""
        return self._read(instances.uuids_on_host, host)

    def deleted_at_on_host(self, host: str) -> dict[str, datetime.datetime | None]:
        """Return when those of :meth:`instances_on_host` were soft-deleted, by uuid.

        None: they are not. It is written when that is asked for, before the guest is shut down.
        """
        return self._read(instances.deleted_at_on_host, host)

    def instances_in_vm_state(self, host: str, vm_state: str) -> list[Instance]:
        """Return the live instances of a host in a vm_state, newest first; no hidden ones."""
        return self._read(instances.in_vm_state, host, vm_state)

    def instances_in_task_states(self, host: str, task_states: Sequence[str]) -> list[Instance]:
        """Return the live instances of a host in these task_states, likewise."""
        return self._read(instances.in_task_states, host, task_states)

    def instances_by_uuid(self, uuids: Iterable[str]) -> list[Instance]:
        """Return the instances with these uuids, on any host, deleted ones too."""
        return self._read(instances.by_uuids, list(uuids))

    def known_uuids(self, uuids: Collection[str]) -> set[str]:
        """Return those of these uuids that an instance has, deleted or not, on any host."""
        return self._read(instances.known, uuids)

    def fates(self, host: str, uuids: Collection[str]) -> Fates:
        """Return who is alive on a host, and what became of those of `uuids` who are not, read in
        one transaction."""
        return self._read(instances.fates, host, uuids)

    def deleted_instances(self, uuids: Iterable[str]) -> list[Instance]:
        """Return the instances with these uuids that are deleted for good, whatever their host;
        no hidden ones."""
        return self._read(instances.deleted, uuids)

    def set_cleaned(self, uuids: Sequence[str]) -> set[str]:
        """Record of deleted instances that nothing is left of them; return their uuids."""
        return self._write(instances.set_cleaned, uuids)

    # What is left of deleted instances.

    def dead_instances(
        self, host: str, uuids: Collection[str], since: datetime.datetime | None = None
    ) -> list[DeadInstance]:
        """Return a host's deleted instances that are not clean, are among `uuids`, or were
        deleted at `since` or later."""
        return self._read(leftovers.dead_instances, host, uuids, since)

    def has_broken_migrations(self, host: str) -> bool:
        """Tell whether there is a migration in error or a failed one from or to a host."""
        return self._read(leftovers.has_broken_migrations, host)

    def broken_migrations(self, host: str, uuids: Collection[str]) -> list[BrokenMigration]:
        """Return the migrations in error from and to a host, and the failed ones of `uuids`."""
        return self._read(leftovers.broken_migrations, host, uuids)

    def record_cleaning(self, attempts: Mapping[str, int], cleaned: Collection[str]) -> set[str]:
        """Record how often files were to be removed, then of which instances none are left."""
        return self._write(leftovers.record_cleaning, attempts, cleaned, self._now())

    # Instances by name, and what hangs on them.

    def find_instances(self, name: str, deleted: bool = False) -> list[Instance]:
        """Return the instances of this name, or whose uuid begins so: the live ones, or those
        that are deleted for good.

        As :func:`~cepheid_plugins.database.instances.by_name` says.
        """
        return self._read(instances.by_name, name, deleted)

    def system_metadata(self, uuids: Sequence[str], key: str) -> dict[str, str]:
        """Return one key's system metadata, by uuid, of the instances that have it."""
        return self._read(system_metadata.of_instances, uuids, key)

    def system_metadata_on_host(self, host: str, key: str) -> dict[str, str]:
        """Return the same, for the live instances of a host."""
        return self._read(system_metadata.on_host, host, key)

    def update_instances(self, host: str, updates: Sequence[InstanceUpdate]) -> set[str]:
        """Write the updates whose instances are still as expected; return their uuids."""
        return self._write(instances.update, host, updates, self._now())

    def create_instances(self, rows: Sequence[NewInstance]) -> dict[str, Exception]:
        """Take instances into the inventory: together, or each by itself where that is refused.

        The tables may not hold every character that a name has.

        :return: by uuid, why one was not taken
        """
        try:
            self._write(instances.create, rows, self._now())
        except (errors.DatabaseUnavailable, errors.DatabaseNotMigrated):
            raise
        except errors.DatabaseError as err:
            if len(rows) > 1:
                return self._create_one_by_one(rows)
            # What was written is there, though its answer may have been lost.
            is_there = isinstance(err, errors.DuplicateRow) and any(
                row.host == rows[0].host and not row.deleted
                for row in self.instances_by_uuid([rows[0].uuid])
            )
            return {} if is_there else {rows[0].uuid: err}
        return {}

    def _create_one_by_one(self, rows: Sequence[NewInstance]) -> dict[str, Exception]:
        refused: dict[str, Exception] = {}
        for number, row in enumerate(rows):
            try:
                refused.update(self.create_instances([row]))
            except errors.DatabaseUnavailable as err:
                # Those before it are there.
                return {**refused, **{left.uuid: err for left in rows[number:]}}
        return refused

    def set_system_metadata(self, values: Mapping[str, Mapping[str, str]]) -> None:
        """Write system metadata: by uuid, the values by key."""
        self._write(system_metadata.save, values, self._now())

    def instance_facts(self, uuids: Sequence[str]) -> dict[str, InstanceFacts]:
        """Return all that is on record of instances, on any host, deleted ones too."""
        return self._read(instances.facts, uuids)

    def image_users(self, hosts: Sequence[str]) -> list[ImageUser]:
        """Return what the live instances of hosts, and those on their way, need of images."""
        return self._read(image_users.of_hosts, hosts)

    def volumes(self, uuids: Sequence[str]) -> list[Volume]:
        """Return the attached volumes of instances."""
        return self._read(instances.volumes, uuids)

    def destroy_instances(self, host: str, updates: Sequence[InstanceUpdate]) -> set[str]:
        """Soft-delete instances that are still as expected, with all that hangs on them.

        :return: the uuids that were deleted
        """
        dependants, removed = self._hanging_on_instances()
        return self._write(instances.destroy, host, updates, dependants, removed, self._now())

    # Networks.

    def info_caches(self, uuids: Sequence[str]) -> list[InfoCache]:
        """Return what is cached of instances' networks, on any host, of deleted ones too."""
        return self._read(info_caches.of_instances, uuids, self.is_novas())

    def update_info_cache(self, host: str, before: InfoCache, vifs: Sequence[Any]) -> bool:
        """Write what is cached of an instance's network, if it is as it was; tell whether."""
        return self._write(info_caches.update, host, before, vifs, self._now())

    # Bandwidth.

    def bandwidth_on_host(
        self, host: str, periods: Sequence[datetime.datetime], with_interfaces: bool = True
    ) -> tuple[list[Networked], list[BandwidthUsage]]:
        """Return a host's live instances, and what is on record of them for these periods.

        :param periods: when each begins
        :param with_interfaces: whether what is cached of the instances' networks is wanted
        """
        return self._read(_bandwidth_on_host, host, periods, with_interfaces)

    def save_bandwidth_usage(
        self,
        start_period: datetime.datetime,
        known: Sequence[tuple[BandwidthUsage, Mapping[str, int]]],
        new: Sequence[Mapping[str, Any]],
    ) -> int:
        """Write usages, as :func:`~cepheid_plugins.database.bandwidth.save` says."""
        return self._write(bandwidth.save, start_period, known, new, self._now())

    # Volumes.

    def attached_volumes(
        self, host: str
    ) -> tuple[list[Attachment], Counter[str], list[VolumeUsage]]:
        """Return a host's attached volumes, how often each is attached, and what is on record."""
        return self._read(_volumes_of_host, host)

    def save_volume_usage(
        self,
        known: Mapping[int, Mapping[str, Any]],
        new: Sequence[Mapping[str, Any]],
        carried: Collection[int],
    ) -> None:
        """Write usages, as :func:`~cepheid_plugins.database.volume_usage.save` says."""
        self._write(volume_usage.save, known, new, carried, self._now())

    # Usage audits.

    def audit_logs(self, host: str, since: datetime.datetime) -> list[AuditLog]:
        """Return the audits of a host whose periods began at `since` or later, oldest first."""
        return self._read(usage_audit.logs, host, since)

    def audit_history(
        self, host: str, until: datetime.datetime
    ) -> tuple[list[AuditLog], datetime.datetime | None]:
        """Return the audits of a host that have not ended, and how far there are any.

        As :func:`~cepheid_plugins.database.usage_audit.history` says.
        """
        return self._read(usage_audit.history, host, until)

    def begin_audit(self, host: str, period: usage_audit.Period, message: str, items: int) -> bool:
        """Record that an audit has begun; tell whether nobody had begun it before."""
        try:
            self._write(usage_audit.begin, host, period, message, items, self._now())
        except errors.DuplicateRow:
            return False
        return True

    def update_audit(
        self, host: str, period: usage_audit.Period, before: str, message: str, errors: int
    ) -> bool:
        """Give an audit that goes on another message, if it has that of before; tell whether."""
        values = {"message": message, "errors": errors}
        return self._write(usage_audit.update, host, period, before, values, self._now())

    def end_audit(
        self, host: str, period: usage_audit.Period, before: str, message: str, items: int,
        errors: int,
    ) -> bool:  # fmt: skip
        """Record that an audit has ended, if it has that message; tell whether."""
        values = {"state": usage_audit.DONE, "message": message, "task_items": items,
                  "errors": errors}  # fmt: skip
        return self._write(usage_audit.update, host, period, before, values, self._now())

    def count_audited(self, host: str, period: usage_audit.Period) -> int:
        """Return how many instances of a host existed within a period."""
        return self._read(usage_audit.count, host, period)

    def place_of_audited(self, uuid: str) -> usage_audit.Place | None:
        """Return where an instance stands among those of an audit; None where it is gone."""
        return self._read(usage_audit.place, uuid)

    def audited_instances(
        self,
        host: str,
        period: usage_audit.Period,
        after: usage_audit.Place | None,
        limit: int,
        with_devices: bool,
    ) -> list[AuditedInstance]:
        """Return a page of the instances of a host that existed within a period.

        As :func:`~cepheid_plugins.database.usage_audit.page` says.
        """
        return self._read(usage_audit.page, host, period, after, limit, with_devices)

    # Resizes.

    def waiting_migrations(
        self, host: str, before: datetime.datetime
    ) -> tuple[list[Migration], list[Migration]]:
        """Return the migrations whose confirmation waits for a host's part.

        :return: the confirming ones from it, and the finished ones to it that are unchanged since
            `before`
        """
        return self._read(resizes.waiting, host, before)

    def migrations_of(self, uuids: Sequence[str], status: str) -> list[Migration]:
        """Return the live migrations of instances that have a status."""
        return self._read(resizes.of_instances, uuids, status)

    def newer_migrations(self, rows: Iterable[Migration]) -> dict[int, int]:
        """Return the newest live migration of an instance for each older one among the rows.

        :return: their ids, by the older one's
        """
        return self._read(resizes.newer, list(rows))

    def start_confirming(
        self, rows: Sequence[Migration], starts: Sequence[ActionStart]
    ) -> set[int]:
        """Set migrations to confirming whose instances wait for it, with their actions.

        :return: the ids of the migrations; the others had moved on
        """
        return self._write(_start_confirming, rows, starts, self._now())

    def still_confirming(self, rows: Iterable[Migration]) -> set[int]:
        """Return those migrations that are being confirmed and that their instances wait with.

        :return: their ids, found out with the instances locked
        """
        return self._write(resizes.still_confirming, list(rows))

    def set_migration_status(self, ids: Iterable[int], expected: str, status: str) -> set[int]:
        """Give migrations another status, if they have the expected one; return their ids."""
        return self._write(resizes.set_status, list(ids), expected, status, self._now())

    def finish_resizes(self, host: str, rows: Sequence[Resized]) -> set[str]:
        """Record same-host resizes as done but for their confirmation; return their uuids."""
        return self._write(resizes.finish, host, rows, self._now())

    def complete_confirmations(self, rows: Sequence[Confirmed]) -> set[str]:
        """Record resizes as confirmed; return the uuids of the instances that were written."""
        return self._write(resizes.complete, rows, self._now())

    # What a host has, and what takes room on it.

    def compute_nodes(self, host: str) -> list[ComputeNode]:
        """Return the live records of a host: one, but for what is left of another name."""
        return self._read(compute_nodes.on_host, host)

    def use_of_host(self, host: str) -> tuple[list[ComputeNode], list[Occupant], list[Move]]:
        """Return the records of a host, its live instances, and its migrations under way."""
        return self._read(compute_nodes.use_of_host, host)

    def is_novas(self) -> bool:
        """Tell whether the tables are Nova's; they stay what they were when it was first asked."""
        if self._owner is None:
            self._owner = self.version().owner
        return self._owner == "nova"

    def create_compute_node(self, host: str, values: Mapping[str, Any]) -> None:
        """Make the record of a host."""
        self._write(compute_nodes.create, host, values, self._now())

    def update_compute_node(self, before: ComputeNode, values: Mapping[str, Any]) -> bool:
        """Write to a record that still is as it was read; tell whether it was."""
        return self._write(compute_nodes.update, before, values, self._now())

    # Actions and faults.

    def begin(
        self, updates: Sequence[InstanceUpdate], starts: Sequence[ActionStart], host: str | None
    ) -> set[str]:
        """Write updates as :meth:`update_instances` does, and with each the start of its action.

        Both or neither: who finds the instance claimed finds the action that claimed it.

        :return: the uuids that were written
        """
        return self._write(_begin, updates, starts, host, self._now())

    def unfinished_actions(self, uuids: Sequence[str], event: str, host: str) -> dict[str, str]:
        """Return the request of each instance whose newest such event has not ended."""
        return self._read(actions.unfinished, uuids, event, host)

    def failures_in_a_row(self, uuids: Sequence[str], event: str) -> Counter[str]:
        """Return how often such an event has failed, since one succeeded or a user asked."""
        return self._read(actions.failures_in_a_row, uuids, event)

    def end_actions(self, ends: Sequence[ActionEnd]) -> None:
        """Record how actions ended."""
        self._write(actions.end, ends, self._now())

    def add_faults(self, faults: Sequence[Fault]) -> None:
        """Record instance faults."""
        self._write(actions.add_faults, faults, self._now())

    def actions_of(self, uuid: str) -> list[dict[str, Any]]:
        """Return the actions of an instance, newest first."""
        return self._read(actions.of_instance, uuid)

    # The schema.

    def check(self) -> None:
        """Look whether the database answers and has our tables."""
        if not self._retried(lambda: migrate.is_current(self._connected())):
            raise errors.not_migrated(self.url)

    def probe(self) -> None:
        """Make a transaction that costs the database nothing, to see that it answers."""
        self._read(_ask_nothing)

    def check_clock(self) -> None:
        """See that times in the database can be compared with this host's clock.

        A server is asked only where nothing is known of its clock, or the two seem to differ.
        SQLite has no clock of its own.

        :raises ClockDiffers: by more than five minutes
        """
        if self._is_sqlite or self._server_clock.agrees:
            return
        self._server_clock.set(self._read(server_clock.ask))
        if not self._server_clock.agrees:
            raise errors.clock_differs(self.url, self._server_clock.seconds_ahead())

    def missing(self) -> list[str]:
        """Return the tables and columns that are needed and not there."""
        return self._retried(lambda: migrate.missing(self._connected()))

    def sync(self) -> list[str]:
        """Make or migrate the tables; return what was done, a line each."""
        with self._asking():
            return migrate.sync(self._connected())

    def version(self) -> migrate.Version:
        """Return which revision the database has and which this version needs."""
        if self._is_missing_file():
            return migrate.Version("", "", migrate.HEAD)
        return self._retried(lambda: migrate.version(self._connected()))

    def _hanging_on_instances(self) -> tuple[list[sa.TableClause], list[sa.TableClause]]:
        """Return what is soft-deleted, and what is removed, with an instance."""
        dependants: list[sa.TableClause] = list(models.DEPENDANTS)
        if not self.is_novas():
            return dependants, []
        return [*dependants, *models.NOVA_DEPENDANTS], list(models.NOVA_REMOVED)


def _ask_nothing(connection: sa.Connection) -> None:
    connection.execute(sa.select(1))


def _bandwidth_on_host(
    connection: sa.Connection,
    host: str,
    periods: Sequence[datetime.datetime],
    with_interfaces: bool,
) -> tuple[list[Networked], list[BandwidthUsage]]:
    networked = bandwidth.networked(connection, host, with_interfaces)
    return networked, bandwidth.on_host(connection, host, periods) if networked else []


def _volumes_of_host(
    connection: sa.Connection, host: str
) -> tuple[list[Attachment], Counter[str], list[VolumeUsage]]:
    attached = volume_usage.attached(connection, host)
    volumes = sorted({row.volume_id for row in attached if row.volume_id})
    if not volumes:
        return attached, Counter(), []
    counts = volume_usage.attachment_counts(connection, volumes)
    return attached, counts, volume_usage.of_volumes(connection, volumes)


def _start_confirming(
    connection: sa.Connection, rows: Sequence[Migration], starts: Sequence[ActionStart], now: Any
) -> set[int]:
    won = resizes.start_confirming(connection, rows, now)
    uuids = {row.instance_uuid for row in rows if row.id in won}
    actions.start(connection, [start for start in starts if start.instance_uuid in uuids], now)
    return won


def _begin(
    connection: sa.Connection,
    updates: Sequence[InstanceUpdate],
    starts: Sequence[ActionStart],
    host: str | None,
    now: Any,
) -> set[str]:
    won = instances.update(connection, host, updates, now)
    actions.start(connection, [start for start in starts if start.instance_uuid in won], now)
    return won
