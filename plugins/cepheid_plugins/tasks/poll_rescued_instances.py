# SPDX-License-Identifier: Apache-2.0
"""Unrescue instances that have been rescued for too long.

Reads instances. Boots guests as they were before their rescue; writes instances as an unrescue
does.
Source: Nova's _poll_rescued_instances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, vm_states
from cepheid_plugins.compute.ages import older_than
from cepheid_plugins.compute.kinds import UNRESCUE
from cepheid_plugins.compute.rescue import RescueOperations

if TYPE_CHECKING:
    from cepheid.agent import Agent


class PollRescuedInstances(cepheid.Task):
    """Unrescue instances that have been rescued for too long."""

    options = [
        cfg.IntOpt(
            "rescue_timeout",
            default=0,
            min=0,
            deprecated_opts=[cfg.DeprecatedOpt("rescue_timeout", group="DEFAULT")],
            help="Seconds after the beginning of its rescue at which an instance is unrescued. 0 "
            "means never.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    time_limit = 600
    explains = {"instance": "instances of this host that are rescued"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.operations = RescueOperations(agent)

    @periodic_task
    def poll_rescued_instances(self, context: RunContext) -> None:
        timeout_seconds = self.conf.rescue_timeout
        if timeout_seconds == 0:
            context.explain(None, "no rescue takes too long", rule="rescue_timeout")
            return
        rescued = self.database.instances_in_vm_state(self.agent.host, vm_states.RESCUED)
        context.count("instances", len(rescued))
        # Rescuing sets launched_at.
        now = self.agent.clock.utcnow()
        ages = older_than(timeout_seconds, rescued, "launched_at", now)
        ages.explain(context, "its rescue began", "rescue_timeout")
        for row in ages.unknown:
            context.skip(row.uuid, "its launched_at is NULL, so the rescue's age is not known")
        due = {row.uuid: row for row in self.operations.free_for(UNRESCUE, ages.old)}
        context.count("busy", len(ages.old) - len(due))
        self.operations.explain_busy(context, ages.old, due.values())
        if due:
            # Where hypervisor or storage do not answer, the pass ends before anything is claimed.
            self.hypervisor.domains()
            self.operations.require_storage()
        context.change_many(
            "unrescue",
            [
                Change(
                    uuid,
                    vm_states.RESCUED,
                    vm_states.ACTIVE,
                    f"{row.display_name}: rescued since {row.launched_at:%Y-%m-%d %H:%M:%S}, "
                    f"more than {timeout_seconds} s",
                )
                for uuid, row in due.items()
            ],
            lambda changes: self.operations.unrescue(
                [due[change.target] for change in changes], context.request_id
            ),
        )
