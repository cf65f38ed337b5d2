# SPDX-License-Identifier: Apache-2.0
"""Remove what failed migrations have left here of instances that are deleted.

Reads the directories of instances, migrations with their instances, all domains and their disks,
and who has which files open. Removes files; writes migrations.status.
Source: Nova's _cleanup_incomplete_migrations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts
from cepheid_plugins.compute.leftovers import Leftovers, directories
from cepheid_plugins.compute.sightings import Sightings, say_doubts, why_doubtful
from cepheid_plugins.compute.turns import Turns
from cepheid_plugins.database.records import BrokenMigration
from cepheid_plugins.storage.errors import StorageError

if TYPE_CHECKING:
    from cepheid.agent import Agent


class CleanupIncompleteMigrations(cepheid.Task):
    """Remove what failed migrations have left here of instances that are deleted."""

    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    nova_spacing = "instance_delete_interval"
    max_changes = 20
    time_limit = 900
    explains = {
        "instance": "instances of which a failed migration from or to this host is on record",
        "file": "directories of instances in instances_path and shelved_path",
    }

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.leftovers = Leftovers(agent)
        self._turns = Turns.of(self)

    @periodic_task(spacing=300)
    def cleanup_incomplete_migrations(self, context: RunContext) -> None:
        if not self.database.has_broken_migrations(self.agent.host) and not context.targets:
            self.leftovers.check()  # storage that is away is a failure in every pass
            return
        # The files before the rows: whose files came of a migration that goes on is seen to move.
        entries = self.leftovers.entries()
        broken = self.database.broken_migrations(self.agent.host, entries)
        context.count("migrations", len(broken))
        moved = {one.uuid for one in broken}
        for uuid in context.asked((uuid for uuid in entries if uuid not in moved), key=str):
            context.explain(
                uuid,
                f"it has {directories(entries[uuid])} here, which no failed migration that is on "
                "record has left",
                rule="only what a failed migration has left, of an instance that is elsewhere",
                evidence={"directories": entries[uuid]},
            )
        if not broken:
            return
        live = self.database.instance_uuids_on_host(self.agent.host)
        doubts, seen = self.leftovers.doubts(live, write=not context.dry_run)
        if doubts:
            say_doubts(context, doubts)
            return
        plan = decide(broken, entries, seen)
        for uuid, reason in plan.skipped.items():
            context.skip(uuid, reason)
        for uuid in context.asked(plan.elsewhere, key=str):
            context.explain(
                uuid, plan.elsewhere[uuid], rule="nothing of a live instance is removed"
            )
        self._report(context, plan.live, entries)
        for due, clean in in_turn(plan, self._turns):
            gone = self._remove(context, due, entries)
            self._mark(context, {**clean, **gone})
        self._turns.enter(plan.due, context.failed())

    def _report(
        self,
        context: RunContext,
        live: Mapping[str, Sequence[BrokenMigration]],
        entries: Mapping[str, Sequence[str]],
    ) -> None:
        """Name what is left here of instances that live on elsewhere."""
        if not live:
            return
        try:
            sharing = self.leftovers.hosts()
        except StorageError as err:
            context.skip("compute_nodes", str(err))
            return
        for uuid, migrations in live.items():
            last = migrations[-1]
            # Where the storage is shared, the directory is that of the instance itself.
            if last.host in sharing and last.host != self.agent.host:
                context.explain(
                    uuid,
                    f"it lives on {last.host}, which shares this storage: what is here is its own",
                    rule="nothing of a live instance is removed",
                )
                continue
            context.count("left_of_live")
            context.notice(
                uuid,
                f"{last.display_name} ({uuid}) lives on {last.host or 'no host'}, and its "
                f"migration {last.id} from {last.source_compute} to {last.dest_compute}, which "
                f"failed, has left {', '.join(entries[uuid])} here. Nothing of it is removed "
                "while the instance lives. See that instances_path is another storage there, or "
                "these are its own disks; and that its disks there are complete; then remove it "
                "yourself",
            )

    def _remove(
        self,
        context: RunContext,
        due: Mapping[str, Sequence[BrokenMigration]],
        entries: Mapping[str, Sequence[str]],
    ) -> dict[str, Sequence[BrokenMigration]]:
        """Remove what is left; return the instances of which nothing is left any more."""
        if not due:
            return {}
        obstacles = self.leftovers.obstacles(due)
        for uuid, reason in obstacles.items():
            context.skip(uuid, f"it is deleted, and its files are kept: {reason}")
        done = context.change_many(
            "delete_files",
            [
                Change(uuid, directories(entries[uuid]), None, _reason(of_one))
                for uuid, of_one in due.items()
                if uuid not in obstacles
            ],
            lambda changes: self._remove_now([change.target for change in changes]),
        )
        return {change.target: due[change.target] for change in done}

    def _remove_now(self, uuids: Sequence[str]) -> Mapping[str, Any]:
        dead = {
            row.uuid
            for row in self.database.deleted_instances(uuids)
            if row.host != self.agent.host
        }
        return self.leftovers.remove(uuids, dead.__contains__)

    def _mark(self, context: RunContext, clean: Mapping[str, Sequence[BrokenMigration]]) -> None:
        """Record that migrations have failed of which nothing is left here."""
        ids = {
            uuid: [one.id for one in of_one if one.status == "error"]
            for uuid, of_one in clean.items()
        }

        def fail(changes: Sequence[Change]) -> set[str]:
            targets = {change.target for change in changes}
            wanted = [one for uuid in targets for one in ids[uuid]]
            written = self.database.set_migration_status(wanted, "error", "failed")
            return {uuid for uuid in targets if written & set(ids[uuid])}

        context.change_many(
            "migration_status",
            [
                Change(uuid, "error", "failed", _reason(clean[uuid]))
                for uuid, of_one in ids.items()
                if of_one
            ],
            fail,
        )


@dataclass
class Plan:
    """What is to become of instances' failed migrations, by uuid."""

    #: Deleted ones of which something is here, and those of which nothing is.
    due: dict[str, list[BrokenMigration]] = field(default_factory=dict)
    clean: dict[str, list[BrokenMigration]] = field(default_factory=dict)
    #: Those that live on elsewhere, and of which something is here.
    live: dict[str, list[BrokenMigration]] = field(default_factory=dict)
    #: Those that are left alone, and why.
    skipped: dict[str, str] = field(default_factory=dict)
    #: Those that live on elsewhere, and of which there is nothing to say.
    elsewhere: dict[str, str] = field(default_factory=dict)


def decide(broken: Sequence[BrokenMigration], entries: Collection[str], seen: Sightings) -> Plan:
    """Decide what is to become of failed migrations, all of one instance alike.

    :param entries: the instances of which there are directories here
    :param seen: who was alive on this host, and when
    """
    by_uuid: dict[str, list[BrokenMigration]] = {}
    for one in broken:
        by_uuid.setdefault(one.uuid, []).append(one)
    plan = Plan()
    for uuid, of_one in by_uuid.items():
        last = of_one[-1]
        if not last.is_deleted:
            # Whoever tries again is filling the directory now.
            if uuid in entries and not last.is_moving:
                plan.live[uuid] = of_one
            else:
                why = (
                    "another migration of it goes on" if last.is_moving else "nothing of it is here"
                )
                plan.elsewhere[uuid] = f"it lives on {last.host or 'no host'}, and {why}"
        elif uuid not in entries:
            plan.clean[uuid] = of_one
        elif doubt := why_doubtful(uuid, last.deleted_at, seen, last.is_moving):
            plan.skipped[uuid] = doubt
        else:
            plan.due[uuid] = of_one
    return plan


def in_turn(
    plan: Plan, turns: Turns
) -> list[tuple[dict[str, list[BrokenMigration]], dict[str, list[BrokenMigration]]]]:
    """Return what is due and what is clean, in two portions: the second holds what has failed."""
    again = {uuid: plan.due[uuid] for uuid in turns.failed if uuid in plan.due}
    first = {uuid: of_one for uuid, of_one in plan.due.items() if uuid not in again}
    return [(first, plan.clean), (again, {})]


def _reason(of_one: Sequence[BrokenMigration]) -> str:
    last = of_one[-1]
    numbers = " and ".join(str(one.id) for one in of_one)
    return (
        f"{last.display_name}: deleted; migration {numbers} from {last.source_compute} to "
        f"{last.dest_compute} failed"
    )
