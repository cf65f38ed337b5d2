# SPDX-License-Identifier: Apache-2.0
"""Give up on instances that have been building for too long.

Reads instances. Writes instances.vm_state.
Source: Nova's _check_instance_build_time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import vm_states
from cepheid_plugins.compute.ages import older_than
from cepheid_plugins.database.records import InstanceUpdate

if TYPE_CHECKING:
    from cepheid.agent import Agent


class CheckInstanceBuildTime(cepheid.Task):
    """Set instances to error that have been building for too long."""

    options = [
        cfg.IntOpt(
            "instance_build_timeout",
            default=0,
            min=0,
            deprecated_opts=[cfg.DeprecatedOpt("instance_build_timeout", group="DEFAULT")],
            help="Seconds after its creation at which an instance that is still building is set "
            "to error. 0 means never.",
        ),
    ]
    drivers = ("database",)
    time_limit = 300
    explains = {"instance": "instances of this host that are building"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")

    @periodic_task
    def check_instance_build_time(self, context: RunContext) -> None:
        timeout_seconds = self.conf.instance_build_timeout
        if timeout_seconds == 0:
            context.explain(None, "no build is too long", rule="instance_build_timeout")
            return
        building = self.database.instances_in_vm_state(self.agent.host, vm_states.BUILDING)
        context.count("instances", len(building))
        ages = older_than(timeout_seconds, building, "created_at", self.agent.clock.utcnow())
        ages.explain(context, "it was created", "instance_build_timeout")
        for row in ages.unknown:
            context.skip(row.uuid, "its created_at is NULL, so its age is not known")
        stuck = {row.uuid: row for row in ages.old}
        context.change_many(
            "vm_state",
            [
                Change(
                    uuid,
                    row.vm_state,
                    vm_states.ERROR,
                    f"{row.display_name}: building since {row.created_at:%Y-%m-%d %H:%M:%S}, "
                    f"more than {timeout_seconds} s",
                )
                for uuid, row in stuck.items()
            ],
            lambda changes: self.database.update_instances(
                self.agent.host,
                [
                    InstanceUpdate(
                        change.target,
                        vm_states.BUILDING,
                        stuck[change.target].task_state,
                        {"vm_state": vm_states.ERROR},
                    )
                    for change in changes
                ],
            ),
        )
