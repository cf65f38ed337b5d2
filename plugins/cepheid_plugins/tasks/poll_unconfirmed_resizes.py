# SPDX-License-Identifier: Apache-2.0
"""Confirm resizes that nobody has confirmed or reverted for too long.

Reads migrations and their instances. On the destination: writes migrations.status. On the source:
removes what the resize has left there, and records it as confirmed.
Source: Nova's _poll_unconfirmed_resizes.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid import errors
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts
from cepheid_plugins.compute.ages import explain_young
from cepheid_plugins.compute.resize_verdicts import Decision, Verdict, decide
from cepheid_plugins.compute.resizing import ResizeOperations
from cepheid_plugins.compute.sightings import is_in_doubt
from cepheid_plugins.database.records import Instance, Migration
from cepheid_plugins.storage.errors import StorageError

if TYPE_CHECKING:
    from cepheid.agent import Agent


class PollUnconfirmedResizes(cepheid.Task):
    """Confirm resizes that nobody has confirmed or reverted for too long."""

    options = [
        cfg.IntOpt(
            "resize_confirm_window",
            default=0,
            min=0,
            deprecated_opts=[cfg.DeprecatedOpt("resize_confirm_window", group="DEFAULT")],
            help="Seconds after its end at which a resize is confirmed. 0 means never. Set it on "
            "all hosts alike: the source of a resize does its part in this task as well.",
        ),
        cfg.IntOpt(
            "confirming_timeout",
            default=3600,
            min=60,
            help="Seconds after which a confirmation that Nova's API has asked for, and that the "
            "source's nova-compute has not carried out, is carried out by this task.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    max_changes = 20
    time_limit = 600
    explains = {"instance": "instances that were resized or moved to or from this host"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.operations = ResizeOperations(agent)

    @periodic_task
    def poll_unconfirmed_resizes(self, context: RunContext) -> None:
        if self.conf.resize_confirm_window == 0:
            context.explain(None, "no resize is confirmed by age", rule="resize_confirm_window")
            return
        self.database.check_clock()
        window = datetime.timedelta(seconds=self.conf.resize_confirm_window)
        confirming, finished = self.database.waiting_migrations(
            self.agent.host, self.agent.clock.utcnow() - window
        )
        self._poll_source(context, confirming)
        self._poll_destination(context, finished)

    def _poll_source(self, context: RunContext, confirming: Sequence[Migration]) -> None:
        """Carry on with confirmations whose part on this host, the source, is left to do."""
        context.count("confirming", len(confirming))
        if not confirming:
            return
        stale_before = self.agent.clock.utcnow() - datetime.timedelta(
            seconds=self.conf.confirming_timeout
        )
        mine = self.operations.handed_over(confirming, stale_before)
        for row in context.asked(confirming, key=_instance_of):
            if row not in mine:
                context.explain(
                    row.instance_uuid,
                    "Nova's API has asked for its confirmation, which is nova-compute's",
                    rule="confirming_timeout",
                )
        instances, due = self._decided(context, mine)
        context.change_many(
            "confirm_resize",
            [
                Change(
                    uuid,
                    "confirming",
                    "confirmed",
                    f"{instances[uuid].display_name}: moved to {row.dest_compute}",
                )
                for uuid, row in due.items()
            ],
            lambda changes: self.operations.carry_on_confirming(
                [due[change.target] for change in changes], instances
            ),
        )

    def _poll_destination(self, context: RunContext, waiting: Sequence[Migration]) -> None:
        """Confirm, or give up, the resizes to this host that have waited for too long."""
        window_seconds = self.conf.resize_confirm_window
        if context.targets:
            self._explain_young(context, waiting)
        context.count("migrations", len(waiting))
        if not waiting:
            return
        instances, due = self._decided(context, waiting)
        context.change_many(
            "confirm_resize",
            [
                Change(
                    uuid,
                    "finished",
                    "confirmed" if row.source_compute == self.agent.host else "confirming",
                    f"{instances[uuid].display_name}: resized at "
                    f"{row.updated_at:%Y-%m-%d %H:%M:%S}, {window_seconds} s ago or more",
                )
                for uuid, row in due.items()
            ],
            lambda changes: self.operations.confirm(
                [due[change.target] for change in changes], instances, context.request_id
            ),
        )

    def _decided(
        self, context: RunContext, migrations: Sequence[Migration]
    ) -> tuple[dict[str, Instance], dict[str, Migration]]:
        """Return the instances of migrations by uuid, and those migrations that are to go on."""
        instances = self._instances(migrations)
        due = self._due(context, migrations, instances)
        if due and is_in_doubt(context, self.agent):
            return instances, {}
        return instances, self._with_storage(context, due)

    def _with_storage(self, context: RunContext, due: dict[str, Migration]) -> dict[str, Migration]:
        """Leave out those of which files are to be removed here, where their storage is away."""
        elsewhere = {u: row for u, row in due.items() if row.source_compute != self.agent.host}
        if len(elsewhere) < len(due):
            try:
                self.operations.require_files_of(due.keys() - elsewhere.keys())
            except (StorageError, errors.CallTimeout) as err:
                context.skip("storage", f"no resize from this host is confirmed: {err}")
                return elsewhere
        return due

    def _explain_young(self, context: RunContext, waiting: Sequence[Migration]) -> None:
        """Say of resizes that wait for a short time only when they are confirmed."""
        now = self.agent.clock.utcnow()
        limit = datetime.timedelta(seconds=self.conf.resize_confirm_window)
        old = {row.id for row in waiting}
        _, finished = self.database.waiting_migrations(self.agent.host, now)
        for row in context.asked(finished, key=_instance_of):
            if row.id not in old and row.updated_at is not None and row.instance_uuid:
                explain_young(
                    context, row.instance_uuid, "its resize ended", row.updated_at, now, limit,
                    "resize_confirm_window",
                )  # fmt: skip

    def _instances(self, migrations: Sequence[Migration]) -> dict[str, Instance]:
        """Return the live instances of migrations, by uuid."""
        uuids = sorted({row.instance_uuid for row in migrations if row.instance_uuid})
        return {row.uuid: row for row in self.database.instances_by_uuid(uuids) if not row.deleted}

    def _due(
        self,
        context: RunContext,
        migrations: Sequence[Migration],
        instances: Mapping[str, Instance],
    ) -> dict[str, Migration]:
        """Decide about migrations; give up or explain those that are not to be confirmed.

        :param instances: the live ones of the migrations, by uuid
        :return: the migrations to be confirmed, by their instance's uuid
        """
        newer = self.database.newer_migrations(migrations)
        decisions = {
            row.id: decide(row, instances.get(row.instance_uuid or ""), newer.get(row.id))
            for row in migrations
        }

        def decided(verdict: Verdict) -> list[Migration]:
            return [row for row in migrations if decisions[row.id].verdict is verdict]

        for row in context.asked(decided(Verdict.LEAVE), key=_instance_of):
            context.explain(
                row.instance_uuid,
                f"migration {row.id} waits for its confirmation, and is left so: "
                f"{decisions[row.id].reason}",
                evidence={"migration": row.id, "status": row.status},
            )
        for row in decided(Verdict.SKIP):
            context.skip(f"migration {row.id}", decisions[row.id].reason, about=row.instance_uuid)
        self._give_up(context, decided(Verdict.ERROR), decisions)
        return {row.instance_uuid or "": row for row in decided(Verdict.CONFIRM)}

    def _give_up(
        self,
        context: RunContext,
        migrations: Sequence[Migration],
        decisions: Mapping[int, Decision],
    ) -> None:
        by_target = {f"migration {row.id}": row for row in migrations}
        context.change_many(
            "migration_status",
            [
                Change(
                    target,
                    row.status,
                    "error",
                    f"{row.instance_uuid}: {decisions[row.id].reason}",
                    about=row.instance_uuid,
                )
                for target, row in by_target.items()
            ],
            lambda changes: self._set_to_error([by_target[change.target] for change in changes]),
        )

    def _set_to_error(self, migrations: Sequence[Migration]) -> set[str]:
        return {f"migration {number}" for number in self.operations.give_up(migrations)}


def _instance_of(migration: Migration) -> str | None:
    return migration.instance_uuid
