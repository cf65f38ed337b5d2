# SPDX-License-Identifier: Apache-2.0
"""Hard-reboot instances whose guests do not come back from their reboot.

Reads instances, and all domains in one call. Powers guests off and starts them; writes instances as
a hard reboot does.
Source: Nova's _poll_rebooting_instances, which does nothing on libvirt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, power_state, task_states, vm_states
from cepheid_plugins.compute.ages import older_than
from cepheid_plugins.compute.kinds import REBOOT
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.database.records import Instance, InstanceUpdate
from cepheid_plugins.hypervisor.driver import DomainNotFound

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: A soft reboot, from its request to the guest's return.
SOFT_REBOOT = (task_states.REBOOTING, task_states.REBOOT_PENDING, task_states.REBOOT_STARTED)

#: The failure of this number sets the instance to error.
LAST_ATTEMPT = 3


class PollRebootingInstances(cepheid.Task):
    """Hard-reboot instances whose guests do not come back from their reboot."""

    options = [
        cfg.IntOpt(
            "reboot_timeout",
            default=0,
            min=0,
            deprecated_opts=[cfg.DeprecatedOpt("reboot_timeout", group="DEFAULT")],
            help="Seconds after which an instance that is still rebooting, and whose guest does "
            "not run, is rebooted hard. 0 means never.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    time_limit = 600
    explains = {"instance": "instances of this host that are rebooting"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.operations = PowerOperations(agent)

    @periodic_task
    def poll_rebooting_instances(self, context: RunContext) -> None:
        timeout_seconds = self.conf.reboot_timeout
        if timeout_seconds == 0:
            context.explain(None, "no reboot takes too long", rule="reboot_timeout")
            return
        rebooting = self.database.instances_in_task_states(
            self.agent.host, (*SOFT_REBOOT, task_states.REBOOTING_HARD)
        )
        late = self._late(context, rebooting, timeout_seconds)
        if not late:
            return
        running, away = self._split(late)
        self._release(context, running)
        self._reboot(context, away)

    def _late(
        self, context: RunContext, rebooting: Sequence[Instance], timeout_seconds: int
    ) -> list[Instance]:
        """Return the instances that have been rebooting for too long, and can be rebooted."""
        # A hard reboot is somebody's who sees to it; ours that was cut short is nobody's.
        interrupted = self.operations.interrupted(REBOOT, rebooting)
        soft = [row for row in rebooting if row.task_state in SOFT_REBOOT]
        context.count("instances", len(soft) + len(interrupted))
        ages = older_than(timeout_seconds, soft, "updated_at", self.agent.clock.utcnow())
        ages.explain(context, "its reboot began", "reboot_timeout")
        hard = [row for row in rebooting if row.task_state == task_states.REBOOTING_HARD]
        hard = [row for row in hard if row.uuid not in interrupted]
        self.operations.explain_busy(context, hard, ())
        for row in ages.unknown:
            context.skip(row.uuid, "its updated_at is NULL, so the reboot's age is not known")
        late = []
        for row in [*ages.old, *(row for row in rebooting if row.uuid in interrupted)]:
            if row.vm_state in (REBOOT.vm_states or ()):
                late.append(row)
            else:
                context.skip(row.uuid, f"it cannot be rebooted: its vm_state is {row.vm_state}")
        return late

    def _split(self, late: Iterable[Instance]) -> tuple[list[Instance], list[Instance]]:
        """Return the instances whose guests run, and the others."""
        domains = self.hypervisor.domains()
        running: list[Instance] = []
        away: list[Instance] = []
        for row in late:
            if row.uuid in domains:
                state = domains[row.uuid].power_state
            else:
                state = self._power_state(row.uuid)
            (running if state == power_state.RUNNING else away).append(row)
        return running, away

    def _power_state(self, uuid: str) -> int | None:
        try:
            state: int | None = self.hypervisor.power_state(uuid)
        except DomainNotFound:
            return power_state.NOSTATE
        return state

    def _release(self, context: RunContext, running: Sequence[Instance]) -> None:
        """Make instances idle whose guests are there again."""
        by_uuid = {row.uuid: row for row in running}
        back = {
            "vm_state": vm_states.ACTIVE,
            "task_state": None,
            "power_state": power_state.RUNNING,
        }
        context.change_many(
            "task_state",
            [
                Change(row.uuid, row.task_state, None, f"{row.display_name}: its guest runs")
                for row in running
            ],
            lambda changes: self.database.update_instances(
                self.agent.host,
                [
                    InstanceUpdate(
                        change.target,
                        by_uuid[change.target].vm_state,
                        by_uuid[change.target].task_state,
                        back,
                    )
                    for change in changes
                ],
            ),
        )

    def _reboot(self, context: RunContext, away: Sequence[Instance]) -> None:
        for row in away:
            if row.launched_at is None:
                context.skip(row.uuid, "it cannot be rebooted: its launched_at is NULL")
        by_uuid = {row.uuid: row for row in away if row.launched_at is not None}
        if not by_uuid:
            return
        failures = self.database.failures_in_a_row(list(by_uuid), REBOOT.event)
        context.change_many(
            "hard_reboot",
            [
                Change(row.uuid, row.task_state, vm_states.ACTIVE, _reason(row, failures))
                for row in by_uuid.values()
            ],
            lambda changes: self.operations.hard_reboot(
                [by_uuid[change.target] for change in changes],
                context.request_id,
                over=SOFT_REBOOT,
                to_be_tried_again=to_be_tried_again(by_uuid, failures),
            ),
        )


def to_be_tried_again(uuids: Iterable[str], failures: Mapping[str, int]) -> set[str]:
    """Return those that are tried again should they fail now.

    :param failures: how often each has failed already
    """
    return {uuid for uuid in uuids if failures.get(uuid, 0) + 1 < LAST_ATTEMPT}


def _reason(row: Instance, failures: Mapping[str, int]) -> str:
    attempt = failures.get(row.uuid, 0) + 1
    since = f"{row.updated_at:%Y-%m-%d %H:%M:%S}" if row.updated_at else "unknown"
    return f"{row.display_name}: {row.task_state} since {since}, attempt {attempt}"
