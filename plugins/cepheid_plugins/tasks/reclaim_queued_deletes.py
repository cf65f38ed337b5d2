# SPDX-License-Identifier: Apache-2.0
"""Delete instances for good that were soft-deleted long enough ago.

Reads instances, and all domains in one call. Removes domains and files; marks rows deleted.
Source: Nova's _reclaim_queued_deletes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, power_state, vm_states
from cepheid_plugins.compute.ages import older_than
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.kinds import DELETE
from cepheid_plugins.compute.sightings import Sightings, SightingsFile, is_in_doubt
from cepheid_plugins.compute.turns import Turns
from cepheid_plugins.database.records import Instance

if TYPE_CHECKING:
    from cepheid.agent import Agent


class ReclaimQueuedDeletes(cepheid.Task):
    """Delete instances for good that were soft-deleted long enough ago."""

    options = [
        cfg.IntOpt(
            "reclaim_instance_interval",
            default=0,
            deprecated_opts=[cfg.DeprecatedOpt("reclaim_instance_interval", group="DEFAULT")],
            help="Seconds after its soft deletion at which an instance is deleted for good. 0 or "
            "less means never. It is an age, not the task's spacing.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    max_changes = 20
    time_limit = 600
    explains = {"instance": "instances of this host that are soft-deleted"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.operations = DeletionOperations(agent)
        self._turns = Turns.of(self)

    @periodic_task
    def reclaim_queued_deletes(self, context: RunContext) -> None:
        age_seconds = self.conf.reclaim_instance_interval
        if age_seconds <= 0:
            context.explain(None, "nothing is reclaimed", rule="reclaim_instance_interval")
            return
        self.database.check_clock()
        queued = self.database.instances_in_vm_state(self.agent.host, vm_states.SOFT_DELETED)
        context.count("instances", len(queued))
        ages = older_than(age_seconds, queued, "deleted_at", self.agent.clock.utcnow())
        # Whoever is being restored has none.
        for row in (row for row in ages.unknown if row.task_state is None):
            context.skip(row.uuid, "its deleted_at is NULL, so its age is not known")
        due = self.operations.free_for(DELETE, ages.old)
        context.count("busy", len(ages.old) - len(due))
        ages.explain(context, "soft-deleted", "reclaim_instance_interval")
        restoring = [row for row in ages.unknown if row.task_state is not None]
        self.operations.explain_busy(context, [*ages.old, *restoring], due)
        if not due:
            return
        sightings = SightingsFile(self.agent.conf.state_path).read()
        if not is_in_doubt(context, self.agent, sightings):
            unused = self._unused(context, due, sightings)
            self._delete(context, self._off(context, unused), age_seconds)

    def _unused(
        self, context: RunContext, due: Sequence[Instance], sightings: Sightings
    ) -> list[Instance]:
        """Leave out who was seen in use long after the soft deletion that its row tells of."""
        unused = []
        for row in due:
            assert row.deleted_at is not None
            seen = sightings.was_used_after(row.uuid, row.deleted_at)
            if not seen or row.task_state is not None:
                unused.append(row)
            else:
                context.skip(
                    row.uuid,
                    f"the inventory says that it was soft-deleted at {row.deleted_at}, and it was "
                    f"in use at {seen}. Was the database restored from an old copy?",
                )
        return unused

    def _off(self, context: RunContext, due: Sequence[Instance]) -> list[Instance]:
        """Leave out whose guests run: somebody uses what the row calls deleted."""
        domains = self.hypervisor.domains()
        off = []
        for row in due:
            state = domains[row.uuid].power_state if row.uuid in domains else power_state.NOSTATE
            if state in power_state.OFF or row.task_state is not None:
                off.append(row)
            else:
                context.skip(
                    row.uuid,
                    f"it is soft-deleted and its domain is {power_state.name(state)}; power the "
                    "domain off if it is to go, or restore the instance",
                )
        return off

    def _delete(self, context: RunContext, due: Sequence[Instance], age_seconds: int) -> None:
        by_uuid = {row.uuid: row for row in due}
        in_order = [by_uuid[uuid] for uuid in self._turns.in_order(by_uuid)]
        foreseen = self.operations.foreseen(context, in_order, self.conf.max_changes)
        kept = self.operations.files_to_keep(foreseen) if foreseen else {}
        context.change_many(
            "delete",
            [
                Change(
                    row.uuid,
                    vm_states.SOFT_DELETED,
                    vm_states.DELETED,
                    f"{row.display_name}: soft-deleted at {row.deleted_at:%Y-%m-%d %H:%M:%S}, "
                    f"more than {age_seconds} s ago"
                    + (f"; its files would be kept: {kept[row.uuid]}" if row.uuid in kept else ""),
                )
                for row in in_order
            ],
            lambda changes: self.operations.delete(
                [by_uuid[change.target] for change in changes], context.request_id
            ),
        )
        self._turns.enter(by_uuid, context.failed())
