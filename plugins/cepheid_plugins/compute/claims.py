# SPDX-License-Identifier: Apache-2.0
"""Claiming instances for an operation, and recording what became of it, as Nova does.

A claim is a task_state that was written by compare-and-swap, in one transaction with the action
that names who claimed. Whoever is slower leaves the instance alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.run import Change, Raced, RunContext, describe
from cepheid.texts import encodable
from cepheid_plugins.compute.kinds import OPERATIONS, Operation
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


@dataclass
class Outcome:
    """What became of the claimed instances, by uuid; of one in neither, it is not known."""

    #: What is to be written; the instance becomes idle with it.
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: What it failed with. The instance becomes idle, and keeps its vm_state unless
    #: :attr:`values` says otherwise.
    failures: dict[str, Exception] = field(default_factory=dict)
    #: Those of which all has been written already.
    recorded: set[str] = field(default_factory=set)
    #: Those that were acted on, be it in part.
    begun: set[str] = field(default_factory=set)
    #: Whether all was gone through that was to be done.
    is_complete: bool = False

    @property
    def done(self) -> set[str]:
        """Those with which all went well; what has nothing to be written yet is not among them."""
        written = {uuid for uuid, values in self.values.items() if values}
        return (written | self.recorded) - self.failures.keys()

    def kept(self, operation: Operation) -> set[str]:
        """Return those that stay claimed: they have begun to go, and how far is not known."""
        if operation.released:
            return set()
        return self.begun - self.values.keys() - self.failures.keys()


class Claims:
    """Claims instances of this host and gives them back."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._database = agent.driver("database")

    def claim(
        self,
        operation: Operation,
        instances: Sequence[Instance],
        request_id: str,
        values: Mapping[str, Any],
        over: Collection[str],
        host: str | None,
    ) -> list[Instance]:
        """Claim the instances that nobody else works on; return those.

        One whose claim for the same operation outlived its run is taken over.

        :param values: what is written with the claim
        :param over: task_states that are no obstacle; the row must still have the one it was
            read with
        :param host: what the rows must name as theirs
        """
        if not instances:
            return []
        interrupted = self.interrupted(operation, instances)
        claim = {"task_state": operation.task_state, "progress": 0, **values}
        won = self._database.begin(
            [
                InstanceUpdate(
                    row.uuid,
                    row.vm_state,
                    row.task_state if row.uuid in interrupted or row.task_state in over else None,
                    claim,
                )
                for row in instances
            ],
            [
                ActionStart(
                    row.uuid, operation.action, operation.event, request_id, self._agent.host
                )
                for row in instances
            ],
            host,
        )
        self._end_interrupted(operation, interrupted, won)
        return [row for row in instances if row.uuid in won]

    def interrupted(self, operation: Operation, instances: Iterable[Instance]) -> dict[str, str]:
        """Return the request of each instance whose claim for `operation` outlived its run.

        Whose a claim is, is on record twice: the action with its request in the database, the
        run of that request in the journal. What anybody else works on is not among them, nor what
        goes on still, in this process or in another.
        """
        uuids = [row.uuid for row in instances if row.task_state == operation.task_state]
        if not uuids:
            return {}
        requests: dict[str, str] = self._database.unfinished_actions(
            uuids, operation.event, self._agent.host
        )
        ended = self._agent.runner.ended_requests(requests.values())
        return {uuid: request for uuid, request in requests.items() if request in ended}

    def going_on(self, requests: Collection[str]) -> set[str]:
        """Return those requests that runs of this host have made and go on with."""
        return self._agent.runner.known_requests(requests) - self._agent.runner.ended_requests(
            requests
        )

    def record(self, operation: Operation, claimed: Sequence[Instance], outcome: Outcome) -> None:
        """Write what became of the instances; with it they are idle again.

        One whose row somebody took meanwhile is entered among the failures, as raced.
        """
        host = self._agent.host
        kept = outcome.kept(operation)
        updates = {
            row.uuid: InstanceUpdate(
                row.uuid,
                row.vm_state,
                operation.task_state,
                {"task_state": None, **outcome.values.get(row.uuid, {})},
            )
            for row in claimed
            if row.uuid not in outcome.recorded and row.uuid not in kept
        }
        gone = sorted(outcome.values) if operation.destroys else []
        destroyed = [updates.pop(uuid) for uuid in gone]
        try:
            written = self._database.update_instances(host, list(updates.values()))
            if destroyed:
                written |= self._destroy(host, destroyed)
        except errors.CepheidError as err:
            if not outcome.done:
                raise
            raise errors.CepheidError(
                f"The {operation.action} was carried out, but that could not be recorded: {err}"
            ) from err
        for uuid in outcome.values.keys() - written - outcome.failures.keys():
            outcome.failures[uuid] = Raced(
                f"{uuid}: the {operation.action} was carried out, but its row had changed "
                "meanwhile and is left as it is"
            )
        self.add_faults(outcome.failures)

    def _destroy(self, host: str, updates: Sequence[InstanceUpdate]) -> set[str]:
        """Delete the rows of instances that are gone; return their uuids."""
        written: set[str] = self._database.destroy_instances(host, updates)
        others = {update.uuid for update in updates} - written
        if others:
            # A COMMIT whose answer was lost has been tried again and has found the row deleted.
            written |= {row.uuid for row in self._database.deleted_instances(sorted(others))}
        return written

    def add_faults(self, failures: Mapping[str, Exception]) -> None:
        """Record what instances failed with."""
        if failures:
            self._database.add_faults(
                [
                    Fault(
                        uuid,
                        self._agent.host,
                        encodable(_fault_message(err)),
                        encodable("".join(traceback.format_exception(err))),
                    )
                    for uuid, err in failures.items()
                ]
            )

    def end(
        self,
        operation: Operation,
        claimed: Sequence[Instance],
        request_id: str,
        failures: Mapping[str, Exception],
    ) -> None:
        """Record how the actions of one request ended."""
        self.end_requests(operation, {row.uuid: request_id for row in claimed}, failures)

    def end_interrupted(
        self,
        operation: Operation,
        claimed: Sequence[Instance],
        request_id: str,
        outcome: Outcome,
    ) -> Results:
        """Record how the actions of a request ended that was cut short.

        That of an instance that stays claimed has not ended.

        :return: what became of the other instances
        """
        kept = outcome.kept(operation)
        results: Results = {}
        for row in claimed:
            if row.uuid in outcome.failures:
                results[row.uuid] = outcome.failures[row.uuid]
            elif row.uuid in outcome.done:
                results[row.uuid] = None
            elif row.uuid not in kept:
                how = "interrupted" if row.uuid in outcome.begun else "interrupted before it began"
                results[row.uuid] = errors.CepheidError(f"The {operation.action} was {how}.")
        failures = {uuid: err for uuid, err in results.items() if err is not None}
        self.end_requests(operation, dict.fromkeys(results, request_id), failures)
        return results

    def end_requests(
        self,
        operation: Operation,
        requests: Mapping[str, str],
        failures: Mapping[str, Exception],
    ) -> None:
        """Record how actions ended.

        :param requests: the request of each instance's action
        """
        if requests:
            self._database.end_actions(
                [
                    _action_end(uuid, operation.event, request, failures.get(uuid))
                    for uuid, request in requests.items()
                ]
            )

    def release_interrupted(self, context: RunContext, instances: Iterable[Instance]) -> set[str]:
        """Make instances idle whose operation was this host's agent's and ended half-way.

        Return their uuids, those included of which that was refused or raced.
        """
        claimed = {row.uuid: row for row in instances if row.task_state is not None}
        found: set[str] = set()
        for operation in OPERATIONS if claimed else ():
            if operation.released:
                found |= self._release_interrupted(context, operation, claimed)
        return found

    def _release_interrupted(
        self, context: RunContext, operation: Operation, rows: Mapping[str, Instance]
    ) -> set[str]:
        requests = self.interrupted(operation, rows.values())
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
            ],
            lambda changes: self._release(
                operation, {change.target: requests[change.target] for change in changes}
            ),
        )
        return set(requests)

    def _release(self, operation: Operation, requests: Mapping[str, str]) -> set[str]:
        idle = {"task_state": None}
        released: set[str] = self._database.update_instances(
            self._agent.host,
            [InstanceUpdate(uuid, ANY, operation.task_state, idle) for uuid in requests],
        )
        self._end_interrupted(operation, requests, released)
        return released

    def _end_interrupted(
        self, operation: Operation, requests: Mapping[str, str], uuids: Collection[str]
    ) -> None:
        interrupted = errors.CepheidError(f"The {operation.action} was interrupted.")
        mine = {uuid: request for uuid, request in requests.items() if uuid in uuids}
        self.end_requests(operation, mine, dict.fromkeys(mine, interrupted))


def _action_end(uuid: str, event: str, request_id: str, err: Exception | None) -> ActionEnd:
    if err is None:
        return ActionEnd(uuid, event, request_id)
    return ActionEnd(
        uuid, event, request_id, describe(err), encodable("".join(traceback.format_exception(err)))
    )


def _fault_message(err: Exception) -> str:
    """Return an exception's text where it is ours, else its class, as Nova's faults have it."""
    return str(err) if isinstance(err, errors.CepheidError) else type(err).__name__
