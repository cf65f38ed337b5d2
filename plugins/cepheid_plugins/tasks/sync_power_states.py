# SPDX-License-Identifier: Apache-2.0
"""Keep what the database says of each guest's power, and what the guest does, in agreement.

Reads instances, and all domains in one call. Writes instances.power_state; stops guests that
should not run (policy enforce) or writes instances.vm_state (policy follow).
Source: Nova's _sync_power_states and _sync_instance_power_state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, power_policy, power_state, vm_states
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.compute.power_policy import (
    Action,
    Fact,
    action_to_enforce,
    vm_state_to_follow,
)
from cepheid_plugins.database.records import Instance, InstanceUpdate
from cepheid_plugins.hypervisor import driver

if TYPE_CHECKING:
    from cepheid.agent import Agent


class SyncPowerStates(cepheid.Task):
    """Save each guest's power state; stop guests that should not run."""

    options = [
        cfg.StrOpt(
            "policy",
            default="enforce",
            choices=[
                ("enforce", "guests are stopped where the database says so, as Nova does"),
                ("follow", "vm_state follows what the guest does; nothing is ever stopped"),
            ],
            help="What to do where an instance's vm_state and its guest disagree.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    nova_spacing = "sync_power_state_interval"
    time_limit = 600
    explains = {"instance": "instances of this host"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.operations = PowerOperations(agent)

    @periodic_task(spacing=600, run_immediately=True)
    def sync_power_states(self, context: RunContext) -> None:
        # The rows before the domains: a row that changes after it was read is then seen by the
        # compare-and-swap of the write, whatever the domains said.
        rows = self.database.instances_on_host(self.agent.host)
        domains = self.hypervisor.domains()
        context.count("instances", len(rows))
        interrupted = self.operations.release_interrupted(context, rows)
        free = [row for row in rows if row.task_state is None or row.uuid in interrupted]
        self.operations.explain_busy(context, rows, free)
        if len(rows) != len(domains):
            context.notice(
                "count",
                f"the inventory has {len(rows)} instances on this host, the hypervisor "
                f"{len(domains)} domains",
            )
        facts = [
            Fact(row, state)
            for row in rows
            if row.task_state is None
            and (state := self._guest_state(context, row, domains)) is not None
        ]
        power_policy.explain(context, facts, self.conf.policy)
        self._save_power_states(context, facts)
        if self.conf.policy == "follow":
            self._follow(context, facts)
        else:
            self._enforce(context, facts)

    def _guest_state(
        self, context: RunContext, row: Instance, domains: Mapping[str, driver.Domain]
    ) -> int | None:
        """Return the guest's power state; None leaves the instance out."""
        if row.uuid in domains:
            state = domains[row.uuid].power_state
        elif row.power_state == power_state.NOSTATE:
            return power_state.NOSTATE
        else:
            # Not in the list is not gone: before that is written, the hypervisor has to say so.
            try:
                state = self.hypervisor.power_state(row.uuid)
            except driver.DomainNotFound:
                return power_state.NOSTATE
            except driver.HypervisorUnavailable:
                raise
            except driver.HypervisorError as err:
                context.skip(row.uuid, str(err))
                return None
        if state is None:
            context.skip(row.uuid, "its domain is in a state that has no power_state")
        return state

    def _save_power_states(self, context: RunContext, facts: Sequence[Fact]) -> None:
        differing = {fact.row.uuid: fact for fact in facts if fact.row.power_state != fact.state}
        context.change_many(
            "power_state",
            [
                Change(
                    uuid,
                    power_state.name(fact.row.power_state),
                    power_state.name(fact.state),
                    power_policy.why(fact),
                )
                for uuid, fact in differing.items()
            ],
            lambda changes: self._update(
                changes, differing, lambda fact: {"power_state": fact.state}
            ),
        )

    def _follow(self, context: RunContext, facts: Sequence[Fact]) -> None:
        moving = {
            fact.row.uuid: fact
            for fact in facts
            if vm_state_to_follow(fact.row.vm_state, fact.state) != fact.row.vm_state
        }
        context.change_many(
            "vm_state",
            [
                Change(
                    uuid,
                    fact.row.vm_state,
                    vm_state_to_follow(fact.row.vm_state, fact.state),
                    power_policy.why(fact),
                )
                for uuid, fact in moving.items()
            ],
            lambda changes: self._update(
                changes,
                moving,
                lambda fact: {"vm_state": vm_state_to_follow(fact.row.vm_state, fact.state)},
            ),
        )

    def _enforce(self, context: RunContext, facts: Sequence[Fact]) -> None:
        chosen: dict[Action, list[Fact]] = {action: [] for action in Action}
        for fact in facts:
            chosen[action_to_enforce(fact.row.vm_state, fact.state)].append(fact)
        for fact in chosen[Action.WARN]:
            context.notice(
                ("state", fact.row.uuid),
                f"{fact.row.uuid} ({fact.row.display_name}) is {fact.row.vm_state}, "
                f"{power_policy.guest_is(fact)}; it is left so",
            )
        still_off = self._still_off(chosen[Action.STOP_IF_STILL_OFF])
        power_policy.explain_back(context, chosen[Action.STOP_IF_STILL_OFF], still_off)
        to_stop = chosen[Action.STOP] + still_off
        to_stop = [fact for fact in to_stop if not self._is_to_be_deleted(context, fact)]
        self._stop(context, to_stop, force=False)
        self._stop(context, chosen[Action.FORCE_STOP], force=True)

    def _still_off(self, facts: Sequence[Fact]) -> list[Fact]:
        domains = self.hypervisor.domains() if facts else {}
        return [
            fact
            for fact in facts
            if fact.row.uuid in domains
            and domains[fact.row.uuid].power_state in (power_state.SHUTDOWN, power_state.CRASHED)
        ]

    def _is_to_be_deleted(self, context: RunContext, fact: Fact) -> bool:
        """Tell whether Nova would delete, rather than stop, this instance; we do neither."""
        if fact.row.shutdown_terminate:
            context.notice(
                ("shutdown_terminate", fact.row.uuid),
                f"{fact.row.uuid} has shutdown_terminate set and {power_policy.guest_is(fact)}; "
                "it is neither deleted nor stopped",
            )
        return bool(fact.row.shutdown_terminate)

    def _stop(self, context: RunContext, facts: Iterable[Fact], force: bool) -> None:
        by_uuid = {fact.row.uuid: fact for fact in facts}
        context.change_many(
            Action.FORCE_STOP.value if force else Action.STOP.value,
            [
                Change(uuid, fact.row.vm_state, vm_states.STOPPED, power_policy.why(fact))
                for uuid, fact in by_uuid.items()
            ],
            lambda changes: self.operations.stop(
                [by_uuid[change.target].row for change in changes], context.request_id, force
            ),
        )

    def _update(
        self,
        changes: Iterable[Change],
        facts: Mapping[str, Fact],
        values: Callable[[Fact], dict[str, Any]],
    ) -> set[str]:
        """Write values to the instances, unless they moved on; return those written."""
        written: set[str] = self.database.update_instances(
            self.agent.host,
            [
                InstanceUpdate(
                    change.target,
                    facts[change.target].row.vm_state,
                    None,
                    values(facts[change.target]),
                )
                for change in changes
            ],
        )
        return written
