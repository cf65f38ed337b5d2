# SPDX-License-Identifier: Apache-2.0
"""What is done where an instance's vm_state and its guest disagree.

Source: Nova's _sync_instance_power_state.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.database.records import Instance

if TYPE_CHECKING:
    from cepheid.run import RunContext


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


def action_to_enforce(vm_state: str | None, state: int) -> Action:
    """Return what is done about an idle instance whose guest is in `state`."""
    return ENFORCE.get(vm_state or "", {}).get(state, Action.NOTHING)


def vm_state_to_follow(vm_state: str | None, state: int) -> str | None:
    """Return the vm_state that an idle instance takes on from its guest."""
    return FOLLOW.get(vm_state or "", {}).get(state, vm_state)


def guest_is(fact: Fact) -> str:
    """Say what an instance's guest does."""
    if fact.state == power_state.NOSTATE:
        return "it has no domain"
    return f"its guest is {power_state.name(fact.state)}"


def why(fact: Fact) -> str:
    """Say why an instance is changed."""
    return f"{fact.row.display_name}: {guest_is(fact)}"


def explain(context: RunContext, facts: Iterable[Fact], policy: str) -> None:
    """Say of the instances that agree with their guests why they are left as they are."""
    for fact in context.asked(facts, lambda fact: fact.row.uuid):
        vm_state = fact.row.vm_state
        if policy == "follow":
            agrees = vm_state_to_follow(vm_state, fact.state) == vm_state
        else:
            agrees = action_to_enforce(vm_state, fact.state) is Action.NOTHING
        if agrees:
            context.explain(
                fact.row.uuid,
                f"its vm_state is {vm_state}, and {guest_is(fact)}: neither is changed",
                rule="policy",
                until="one of the two changes",
                evidence={"vm_state": vm_state, "guest": power_state.name(fact.state)},
            )


def explain_back(context: RunContext, off: Iterable[Fact], still_off: Iterable[Fact]) -> None:
    """Say of guests that were off, and are not any more, why they are not stopped."""
    left = {fact.row.uuid for fact in still_off}
    for fact in context.asked(off, lambda fact: fact.row.uuid):
        if fact.row.uuid not in left:
            context.explain(
                fact.row.uuid,
                "its guest was off, and when asked once more was not: it is not stopped",
                rule="the hypervisor must say twice that a guest is off",
            )
