# SPDX-License-Identifier: Apache-2.0
"""Keep what the database says of each guest's power, and what the guest does, in agreement.

Reads instances, and all domains in one call. Writes instances.power_state; stops guests that
should not run (policy enforce) or writes instances.vm_state (policy follow).
Source: Nova's _sync_power_states and _sync_instance_power_state.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, power_state, vm_states
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.database.records import Instance, InstanceUpdate
from cepheid_plugins.hypervisor import driver

if TYPE_CHECKING:
    from cepheid.agent import Agent


class Action(enum.Enum):
    """What is done about an instance, besides saving its power state."""

    NOTHING = "nothing"
    WARN = "warn"
    #: Stop it, with the checks of a user's stop.
    STOP = "stop"
    #: The same, after the hypervisor has said once more that the guest is off.
    STOP_IF_STILL_OFF = "stop if still off"
    FORCE_STOP = "force_stop"


_NOSTATE, _RUNNING, _PAUSED = power_state.NOSTATE, power_state.RUNNING, power_state.PAUSED
_SHUTDOWN, _CRASHED = power_state.SHUTDOWN, power_state.CRASHED
_SUSPENDED = power_state.SUSPENDED

_OF_DELETED = {
    _RUNNING: Action.WARN,
    _PAUSED: Action.WARN,
    _CRASHED: Action.WARN,
    _SUSPENDED: Action.WARN,
}

#: Policy enforce: by vm_state and the guest's power state; what is not here is nothing.
ENFORCE: dict[str, dict[int, Action]] = {
    vm_states.ACTIVE: {
        _NOSTATE: Action.WARN,
        _PAUSED: Action.WARN,
        _SHUTDOWN: Action.STOP_IF_STILL_OFF,
        _CRASHED: Action.STOP_IF_STILL_OFF,
        _SUSPENDED: Action.STOP,
    },
    vm_states.STOPPED: {
        _RUNNING: Action.FORCE_STOP,
        _PAUSED: Action.FORCE_STOP,
        _SUSPENDED: Action.FORCE_STOP,
    },
    vm_states.PAUSED: {
        _SHUTDOWN: Action.FORCE_STOP,
        _CRASHED: Action.FORCE_STOP,
    },
    vm_states.SOFT_DELETED: _OF_DELETED,
    vm_states.DELETED: _OF_DELETED,
}

_FOLLOWING = {
    _RUNNING: vm_states.ACTIVE,
    _PAUSED: vm_states.PAUSED,
    _SHUTDOWN: vm_states.STOPPED,
    _CRASHED: vm_states.STOPPED,
}

#: Policy follow: the vm_state that each of these takes on; what is not here stays. A suspended
#: guest is saved to disk, so for it SHUTDOWN is as it should be.
FOLLOW: dict[str, dict[int, str]] = {
    vm_states.ACTIVE: _FOLLOWING,
    vm_states.STOPPED: _FOLLOWING,
    vm_states.PAUSED: _FOLLOWING,
    vm_states.SUSPENDED: {_RUNNING: vm_states.ACTIVE, _PAUSED: vm_states.PAUSED},
}


class Fact(NamedTuple):
    """An idle instance and the power state of its guest."""

    row: Instance
    state: int


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
        self.operations.release_interrupted(context, rows)
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
                    _why(fact),
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
                    _why(fact),
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
                f"{_guest_is(fact)}; it is left so",
            )
        to_stop = chosen[Action.STOP] + self._still_off(chosen[Action.STOP_IF_STILL_OFF])
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
                f"{fact.row.uuid} has shutdown_terminate set and {_guest_is(fact)}; "
                "it is neither deleted nor stopped",
            )
        return bool(fact.row.shutdown_terminate)

    def _stop(self, context: RunContext, facts: Iterable[Fact], force: bool) -> None:
        by_uuid = {fact.row.uuid: fact for fact in facts}
        context.change_many(
            Action.FORCE_STOP.value if force else Action.STOP.value,
            [
                Change(uuid, fact.row.vm_state, vm_states.STOPPED, _why(fact))
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


def action_to_enforce(vm_state: str | None, state: int) -> Action:
    """Return what is done about an idle instance whose guest is in `state`."""
    return ENFORCE.get(vm_state or "", {}).get(state, Action.NOTHING)


def vm_state_to_follow(vm_state: str | None, state: int) -> str | None:
    """Return the vm_state that an idle instance takes on from its guest."""
    return FOLLOW.get(vm_state or "", {}).get(state, vm_state)


def _guest_is(fact: Fact) -> str:
    if fact.state == power_state.NOSTATE:
        return "it has no domain"
    return f"its guest is {power_state.name(fact.state)}"


def _why(fact: Fact) -> str:
    return f"{fact.row.display_name}: {_guest_is(fact)}"
