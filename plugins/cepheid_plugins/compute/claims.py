# SPDX-License-Identifier: Apache-2.0
"""Claiming instances for an operation, and recording what became of it, as Nova does.

A claim is a task_state that was written by compare-and-swap, in one transaction with the action
that names who claimed. Whoever is slower leaves the instance alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.run import Change, Raced, RunContext, describe
from cepheid_plugins.compute import task_states
from cepheid_plugins.database.records import (
    ANY,
    ActionEnd,
    ActionStart,
    Fault,
    Instance,
    InstanceUpdate,
)

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: By uuid: None (done), ``"raced"``, or the exception it failed with.
Results = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """What Nova calls an operation in its records."""

    #: instance_actions.action
    action: str
    #: instance_actions_events.event
    event: str
    #: instances.task_state while it goes on.
    task_state: str


STOP = Operation("stop", "compute_stop_instance", task_states.POWERING_OFF)
START = Operation("start", "compute_start_instance", task_states.POWERING_ON)
REBOOT = Operation("reboot", "compute_reboot_instance", task_states.REBOOTING_HARD)
OPERATIONS = (STOP, START, REBOOT)


@dataclass
class Outcome:
    """What became of the claimed instances, by uuid; of one in neither, it is not known."""

    #: What is to be written; the instance becomes idle with it.
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: What it failed with. The instance becomes idle, and keeps its vm_state unless
    #: :attr:`values` says otherwise.
    failures: dict[str, Exception] = field(default_factory=dict)


class Claims:
    """Claims instances of this host and gives them back."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._database = agent.driver("database")

    def claim(
        self, operation: Operation, instances: Sequence[Instance], request_id: str
    ) -> list[Instance]:
        """Claim the instances that nobody else works on; return those."""
        if not instances:
            return []
        host = self._agent.host
        values = {"task_state": operation.task_state, "progress": 0}
        won = self._database.begin(
            [InstanceUpdate(row.uuid, row.vm_state, None, values) for row in instances],
            [
                ActionStart(row.uuid, operation.action, operation.event, request_id, host)
                for row in instances
            ],
            host,
        )
        return [row for row in instances if row.uuid in won]

    def record(self, operation: Operation, claimed: Sequence[Instance], outcome: Outcome) -> None:
        """Write what became of the instances; with it they are idle again.

        One whose row somebody took meanwhile is entered among the failures, as raced.
        """
        host = self._agent.host
        written = self._database.update_instances(
            host,
            [
                InstanceUpdate(
                    row.uuid,
                    row.vm_state,
                    operation.task_state,
                    {"task_state": None, **outcome.values.get(row.uuid, {})},
                )
                for row in claimed
            ],
        )
        for uuid in outcome.values.keys() - written:
            outcome.failures[uuid] = Raced(f"{uuid}: its row changed during the {operation.action}")
        if outcome.failures:
            self._database.add_faults(
                [
                    Fault(uuid, host, _fault_message(err), "".join(traceback.format_exception(err)))
                    for uuid, err in outcome.failures.items()
                ]
            )

    def end(
        self,
        operation: Operation,
        claimed: Sequence[Instance],
        request_id: str,
        failures: Mapping[str, Exception],
    ) -> None:
        """Record how the actions ended."""
        self._database.end_actions(
            [
                _action_end(row.uuid, operation.event, request_id, failures.get(row.uuid))
                for row in claimed
            ]
        )

    def release_interrupted(self, context: RunContext, instances: Iterable[Instance]) -> None:
        """Make instances idle whose operation was this host's agent's and ended half-way.

        Whose a claim is, is on record twice: the action with its request in the database, the
        run of that request in the journal. What anybody else works on is left alone, and so is
        what goes on still, in this process or in another.
        """
        claimed = [row for row in instances if row.task_state is not None]
        for operation in OPERATIONS:
            rows = {row.uuid: row for row in claimed if row.task_state == operation.task_state}
            if rows:
                self._release_interrupted(context, operation, rows)

    def _release_interrupted(
        self, context: RunContext, operation: Operation, rows: Mapping[str, Instance]
    ) -> None:
        requests: dict[str, str] = self._database.unfinished_actions(
            list(rows), operation.event, self._agent.host
        )
        ended = self._agent.runner.ended_requests(requests.values())
        context.change_many(
            "task_state",
            [
                Change(
                    uuid,
                    operation.task_state,
                    None,
                    f"{rows[uuid].display_name}: its {operation.action} ({request}) was "
                    "interrupted",
                )
                for uuid, request in requests.items()
                if request in ended
            ],
            lambda changes: self._release(
                operation, {change.target: requests[change.target] for change in changes}
            ),
        )

    def _release(self, operation: Operation, requests: Mapping[str, str]) -> set[str]:
        idle = {"task_state": None}
        released: set[str] = self._database.update_instances(
            self._agent.host,
            [InstanceUpdate(uuid, ANY, operation.task_state, idle) for uuid in requests],
        )
        for request in set(requests.values()):
            self._database.end_actions(
                [
                    ActionEnd(
                        uuid, operation.event, request, f"The {operation.action} was interrupted."
                    )
                    for uuid, of_request in requests.items()
                    if of_request == request and uuid in released
                ]
            )
        return released


def _action_end(uuid: str, event: str, request_id: str, err: Exception | None) -> ActionEnd:
    if err is None:
        return ActionEnd(uuid, event, request_id)
    return ActionEnd(
        uuid, event, request_id, describe(err), "".join(traceback.format_exception(err))
    )


def _fault_message(err: Exception) -> str:
    """Return an exception's text where it is ours, else its class, as Nova's faults have it."""
    return str(err) if isinstance(err, errors.CepheidError) else type(err).__name__
