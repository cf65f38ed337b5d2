# SPDX-License-Identifier: Apache-2.0
"""Resizing instances on their host, and confirming resizes and cold migrations of any kind.

The files as they were before a resize are in ``<uuid>_resize``, on the source host, until the
resize is confirmed. A confirmation is handed from the destination's agent to the source's by the
migration's row: whoever is down finds it there when it is back.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid.run import Raced
from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.claims import Outcome, Results
from cepheid_plugins.compute.kinds import CONFIRM, RESIZE
from cepheid_plugins.compute.operations import NO_ANSWER, NotPossible, Operations
from cepheid_plugins.database.records import (
    ActionStart,
    Confirmed,
    Instance,
    InstanceUpdate,
    Migration,
    Resized,
)
from cepheid_plugins.hypervisor.driver import DomainNotFound, HypervisorError
from cepheid_plugins.storage import qemu_img
from cepheid_plugins.storage.errors import StorageUnavailable


@dataclass(frozen=True, slots=True)
class Size:
    """What an instance is to have."""

    vcpus: int
    memory_mib: int
    #: Of its first disk; None leaves it as it is.
    root_gib: int | None = None


class ResizeOperations(Operations):
    """Resize on the same host; confirm."""

    def resize(self, instances: Sequence[Instance], request_id: str, size: Size) -> Results:
        """Shut guests down, keep a copy of their files, give them their new size.

        They wait for their confirmation then, which removes the copy. A guest that ran is started.
        """
        timeouts: dict[str, int] = {}
        # Their rows are written with their migrations, without which nobody could confirm them.
        resized: dict[str, Mapping[str, Any]] = {}

        def prepare(rows: Sequence[Instance]) -> None:
            timeouts.update(self._shutdown.timeouts([row.uuid for row in rows]))

        def resize_one(row: Instance) -> Mapping[str, Any]:
            resized[row.uuid] = self._resize_one(row, size)
            return {}

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(claimed, outcome, self._make_ready)
            ready = [row.uuid for row in claimed if row.uuid not in outcome.failures]
            _, failures = self._shutdown.shut_down({uuid: timeouts[uuid] for uuid in ready})
            outcome.failures.update(failures)
            self._each(claimed, outcome, resize_one)
            self._finish(claimed, resized, outcome)

        return self._operate(RESIZE, instances, request_id, act, prepare=prepare)

    def confirm(
        self, migrations: Sequence[Migration], instances: Mapping[str, Instance], request_id: str
    ) -> dict[str, Any]:
        """Confirm finished resizes to this host.

        Where the source is this host too, that is all of it; elsewhere the agent of the source
        carries on, see :meth:`carry_on_confirming`.

        :param instances: those of the migrations, by uuid
        :return: as the other operations, by the instance's uuid
        """
        if not migrations:
            return {}
        won = self._database.start_confirming(
            migrations,
            [
                ActionStart(
                    row.instance_uuid or "",
                    CONFIRM.action,
                    CONFIRM.event,
                    request_id,
                    row.source_compute or "",
                )
                for row in migrations
            ],
        )
        results: dict[str, Any] = {
            row.instance_uuid or "": None if row.id in won else "raced" for row in migrations
        }
        here = [
            row for row in migrations if row.id in won and row.source_compute == self._agent.host
        ]
        results.update(self.carry_on_confirming(here, instances))
        return results

    def confirm_instances(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Confirm the finished resizes of instances, and carry on what was interrupted here.

        :return: as the other operations; instances of which no resize waits are not in it
        """
        by_uuid = {row.uuid: row for row in instances if row.vm_state == vm_states.RESIZED}
        interrupted = [
            row
            for row in self._newest_of(by_uuid, "confirming")
            if row.source_compute == self._agent.host
        ]
        results = self.carry_on_confirming(interrupted, by_uuid)
        results.update(self.confirm(self._newest_of(by_uuid, "finished"), by_uuid, request_id))
        return results

    def _newest_of(self, uuids: Iterable[str], status: str) -> list[Migration]:
        """Return the migrations that have a status, and that are the newest of their instances."""
        found = self._database.migrations_of(list(uuids), status)
        older = self._database.newer_migrations(found)
        return [row for row in found if row.id not in older]

    def handed_over(
        self, migrations: Sequence[Migration], stale_before: datetime.datetime
    ) -> list[Migration]:
        """Return those of the migrations being confirmed with which this host has to carry on.

        They are another agent's or an interrupted run's of this one. What Nova's API has asked its
        own service for is among them when it has not been done before `stale_before`.

        :param migrations: being confirmed, with this host as their source
        """
        uuids = [row.instance_uuid or "" for row in migrations]
        requests = self._database.unfinished_actions(uuids, CONFIRM.event, self._agent.host)
        going_on = self._claims.going_on(requests.values())
        return [
            row
            for row in migrations
            if (
                requests[row.instance_uuid] not in going_on
                if row.instance_uuid in requests
                else row.updated_at is not None and row.updated_at <= stale_before
            )
        ]

    def require_files_of(self, uuids: Iterable[str]) -> None:
        """See that storage in which no file of a resize is found is not just not mounted.

        A mount point without its storage is a directory in which there is nothing of any instance.
        There may be nothing indeed, where disks are kept elsewhere, or where a confirmation was
        killed when it had removed the last; so it is asked what the instances' domains have.

        :param uuids: those whose resizes are to be confirmed
        :raises StorageError: it is not mounted, or hangs
        """
        files = self._files
        if files.names():
            return
        for uuid in uuids:
            try:
                disks = self._hypervisor.disk_files(uuid)
            except DomainNotFound:
                continue
            for disk in disks:
                if files.holds(uuid, disk.path):
                    raise StorageUnavailable(
                        f"{files.path} has no file of any instance, and the domain of {uuid} has "
                        f"the disk {disk.path}. Is its storage mounted? If it is, and the disk is "
                        "gone for good, undefine the domain."
                    )

    def give_up(self, migrations: Sequence[Migration]) -> set[int]:
        """Set migrations to error whose resize cannot be confirmed any more.

        :return: the ids of those that had not moved on
        """
        written: set[int] = set()
        for status in sorted({row.status or "" for row in migrations}):
            ids = [row.id for row in migrations if row.status == status]
            written |= self._database.set_migration_status(ids, status, "error")
        return written

    def carry_on_confirming(
        self, migrations: Sequence[Migration], instances: Mapping[str, Instance]
    ) -> dict[str, Any]:
        """Do what a confirmation has to do on this host, the source; then record it.

        What an instance does not wait with is left alone: its files from before may be all that
        there is of it by now, or what a later resize is reverted with.

        :param migrations: being confirmed, with this host as their source
        :param instances: those of the migrations, by uuid, on whatever host
        """
        if not migrations:
            return {}
        results: dict[str, Any] = {row.instance_uuid or "": "raced" for row in migrations}
        waiting = self._database.still_confirming(migrations)
        migrations = [
            row
            for row in migrations
            if row.id in waiting and instances[row.instance_uuid or ""].host == row.dest_compute
        ]
        if not migrations:
            return results
        outcome = Outcome()
        rows = [instances[row.instance_uuid or ""] for row in migrations]
        uuids = [row.uuid for row in rows]
        requests = self._database.unfinished_actions(uuids, CONFIRM.event, self._agent.host)
        request_id = next(iter(requests.values()), "")
        self._notifications.started(CONFIRM, rows, request_id)
        self._each(rows, outcome, self._clean_source)
        written = self._database.complete_confirmations(
            [
                Confirmed(
                    row.id,
                    row.instance_uuid or "",
                    row.dest_compute or "",
                    str(outcome.values[row.instance_uuid or ""]["vm_state"]),
                )
                for row in migrations
                if row.instance_uuid in outcome.values
            ]
        )
        for uuid in outcome.values.keys() - written:
            outcome.failures[uuid] = Raced(
                f"{uuid}: the resize's files are removed, but its row had changed meanwhile and is "
                "left as it is"
            )
        # A hypervisor or storage that does not answer is asked again in a later pass.
        self._fail(
            {u: e for u, e in outcome.failures.items() if _is_final(e)}, migrations, instances
        )
        ended = {u: r for u, r in requests.items() if _is_final(outcome.failures.get(u))}
        self._claims.end_requests(CONFIRM, ended, outcome.failures)
        self._notifications.ended(
            CONFIRM, [row for row in rows if row.uuid not in outcome.failures], request_id
        )
        results.update({uuid: outcome.failures.get(uuid) for uuid in uuids})
        return results

    def _make_ready(self, row: Instance) -> Mapping[str, Any]:
        """Remove the copy that a resize has left which was given up.

        That of an interrupted one which is carried on with is kept: it is from before the
        resize, and the instance's own files may be of the new size already.
        """
        self._hypervisor.require_no_saved_memory(row.uuid)
        if row.task_state != RESIZE.task_state:
            self._files.remove(f"{row.uuid}_resize")
        return {}

    def _resize_one(self, row: Instance, size: Size) -> Mapping[str, Any]:
        files = self._files
        before = f"{row.uuid}_resize"
        # The instance's own directory stays the live one throughout.
        if files.exists(row.uuid) and not files.exists(before):
            files.copy(row.uuid, before)
        self._hypervisor.define_resized(row.uuid, size.vcpus, size.memory_mib)
        values = {"memory_mb": size.memory_mib, "vcpus": size.vcpus, "root_gb": row.root_gb or 0}
        if size.root_gib is not None:
            disks = self._hypervisor.disk_files(row.uuid)
            if not disks:
                raise NotPossible("it has no disk that is a file")
            qemu_img.resize(disks[0].path, disks[0].format, size.root_gib * 2**30)
            values["root_gb"] = size.root_gib
        state = power_state.SHUTDOWN
        if row.vm_state == vm_states.ACTIVE:
            if self._hypervisor.power_state(row.uuid) != power_state.RUNNING:
                self._hypervisor.start(row.uuid)
            state = self._hypervisor.power_state(row.uuid)
        return {"vm_state": vm_states.RESIZED, "power_state": state, **values}

    def _finish(
        self,
        claimed: Sequence[Instance],
        resized: Mapping[str, Mapping[str, Any]],
        outcome: Outcome,
    ) -> None:
        """Write what was resized: instance, flavors and migration in one transaction."""
        node = self._hypervisor.name if resized else ""
        rows = [
            Resized(
                InstanceUpdate(
                    row.uuid,
                    row.vm_state,
                    RESIZE.task_state,
                    {"task_state": None, **resized[row.uuid]},
                ),
                node,
                row.vm_state or "",
            )
            for row in claimed
            if row.uuid in resized
        ]
        written = self._database.finish_resizes(self._agent.host, rows)
        for row in rows:
            uuid = row.update.uuid
            if uuid in written:
                outcome.recorded.add(uuid)
            else:
                outcome.failures[uuid] = Raced(
                    f"{uuid}: the resize was carried out, but its row had changed meanwhile and "
                    "is left as it is"
                )
        outcome.values.clear()

    def _clean_source(self, row: Instance) -> Mapping[str, Any]:
        """Remove what is left of an instance on the source of its resize."""
        if not self._files.exists(f"{row.uuid}_resize"):
            self.require_files_of([row.uuid])
        if row.host != self._agent.host:
            self._forget_moved_domain(row)
        self._files.remove(f"{row.uuid}_resize")
        is_off = row.power_state == power_state.SHUTDOWN
        return {"vm_state": vm_states.STOPPED if is_off else vm_states.ACTIVE}

    def _forget_moved_domain(self, row: Instance) -> None:
        """Forget the domain that stayed here when its instance moved; a running one is not it."""
        domains = self._hypervisor.domains()
        if row.uuid in domains and domains[row.uuid].power_state not in power_state.OFF:
            raise HypervisorError(
                f"{row.uuid} is on {row.host} by its row, and its domain runs here: nothing of it "
                "is removed. Find out where the guest belongs."
            )
        if row.uuid in domains:
            self._hypervisor.undefine(row.uuid)

    def _fail(
        self,
        failures: Mapping[str, Exception],
        migrations: Sequence[Migration],
        instances: Mapping[str, Instance],
    ) -> None:
        """Set migrations and their instances to error, as Nova does."""
        failed = {uuid: err for uuid, err in failures.items() if not isinstance(err, Raced)}
        if not failed:
            return
        ids = [row.id for row in migrations if row.instance_uuid in failed]
        self._database.set_migration_status(ids, "confirming", "error")
        for host in sorted({instances[uuid].host or "" for uuid in failed}):
            self._database.update_instances(
                host,
                [
                    InstanceUpdate(uuid, vm_states.RESIZED, None, {"vm_state": vm_states.ERROR})
                    for uuid in failed
                    if instances[uuid].host == host
                ],
            )
        self._claims.add_faults(failed)


def _is_final(err: Exception | None) -> bool:
    return not isinstance(err, NO_ANSWER)
