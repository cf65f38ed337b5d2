# SPDX-License-Identifier: Apache-2.0
"""Offload instances that have been shelved for long enough.

Reads instances and their system metadata. Removes domains and files; writes instances as an offload
does.
Source: Nova's _poll_shelved_instances.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, vm_states
from cepheid_plugins.compute.ages import explain_young
from cepheid_plugins.compute.kinds import OFFLOAD
from cepheid_plugins.compute.shelf import shelved_at
from cepheid_plugins.compute.shelving import SHELVED_AT, ShelvingOperations
from cepheid_plugins.compute.sightings import is_in_doubt
from cepheid_plugins.compute.turns import Turns

if TYPE_CHECKING:
    from cepheid.agent import Agent


class PollShelvedInstances(cepheid.Task):
    """Offload instances that have been shelved for long enough."""

    options = [opts.SHELVED_OFFLOAD_TIME]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    nova_spacing = "shelved_poll_interval"
    max_changes = 20
    time_limit = 1800
    explains = {"instance": "instances of this host that are shelved, and not offloaded"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.operations = ShelvingOperations(agent)
        self._turns = Turns.of(self)

    @periodic_task(spacing=3600)
    def poll_shelved_instances(self, context: RunContext) -> None:
        age_seconds = self.conf.shelved_offload_time
        if age_seconds <= 0:
            context.explain(None, "none is offloaded by age", rule="shelved_offload_time")
            return
        shelved = self.database.instances_in_vm_state(self.agent.host, vm_states.SHELVED)
        context.count("instances", len(shelved))
        free = {row.uuid: row for row in self.operations.free_for(OFFLOAD, shelved)}
        context.count("busy", len(shelved) - len(free))
        self.operations.explain_busy(context, shelved, free.values())
        if not free:
            return
        self.database.check_clock()
        now = self.agent.clock.utcnow()
        texts = self.database.system_metadata_on_host(self.agent.host, SHELVED_AT)
        since = {}
        for uuid in free:
            try:
                since[uuid] = shelved_at(texts.get(uuid))
            except ValueError as err:
                context.skip(uuid, str(err))
        limit = datetime.timedelta(seconds=age_seconds)
        due = [uuid for uuid, then in since.items() if now - then > limit]
        for uuid in context.asked(since.keys() - due, key=str):
            explain_young(context, uuid, "shelved", since[uuid], now, limit, "shelved_offload_time")
        if due:
            # Where the hypervisor does not answer, the pass ends before anything is claimed.
            self.hypervisor.domains()
            if is_in_doubt(context, self.agent):
                return
        context.change_many(
            "offload",
            [
                Change(
                    uuid,
                    vm_states.SHELVED,
                    vm_states.SHELVED_OFFLOADED,
                    f"{free[uuid].display_name}: shelved at {since[uuid]:%Y-%m-%d %H:%M:%S}, more "
                    f"than {age_seconds} s ago",
                )
                for uuid in self._turns.in_order(due)
            ],
            lambda changes: self.operations.offload(
                [free[change.target] for change in changes], context.request_id
            ),
        )
        self._turns.enter(due, context.failed())
