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
    """What became of the claimed instances, by uuid.

    Of one that is in none of :attr:`values`, :attr:`failures` and :attr:`recorded` it is not known:
    the operation was cut short.
    """

    #: The columns to be written to each row. The write makes the instance idle.
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: What each failed with. Such an instance becomes idle, and keeps its vm_state unless
    #: :attr:`values` says otherwise.
    failures: dict[str, Exception] = field(default_factory=dict)
    #: Those whose rows have been written already.
    recorded: set[str] = field(default_factory=set)
    #: Those that were acted on, at least in part.
    begun: set[str] = field(default_factory=set)
    #: Whether the operation came to its end.
    is_complete: bool = False

    @property
    def done(self) -> set[str]:
        """Those that did not fail and have something written, or to be written, to their rows."""
        written = {uuid for uuid, values in self.values.items() if values}
        return (written | self.recorded) - self.failures.keys()

    def kept(self, operation: Operation) -> set[str]:
        """Return those that stay claimed: their destruction has begun, and how far is not known."""
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

        One that was restored and soft-deleted anew since it was read is not what was decided on,
        and is left alone. One whose claim for the same operation outlived its run is taken over.

        :param values: columns that are written together with the claim
        :param over: task_states that are no obstacle; the row must still have the one it was
            read with
        :param host: the host that the rows must name; None for instances that are on none
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
                    row.deleted_at,
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

        Two records tell whose claim it is: the database has the action with its request, and the
        journal of this host has the run of that request. An instance on which Nova or another host
        works is not among them, nor one whose run goes on, in this process or another.
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
        """Return those requests whose runs were begun on this host and have not ended."""
        return self._agent.runner.known_requests(requests) - self._agent.runner.ended_requests(
            requests
        )

    def record(self, operation: Operation, claimed: Sequence[Instance], outcome: Outcome) -> None:
        """Write what became of the instances, which makes them idle again.

        An instance whose row has been changed meanwhile is left alone and entered among the
        failures, as raced.

        :raises CepheidError: it cannot be written
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
            # If the answer to a COMMIT was lost, the second try has found the row deleted.
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
        """Record the end of the actions of a request whose operation was cut short.

        An instance that stays claimed is left out, as its action has not ended.

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
        """Record how actions ended: failed with what is in `failures`, else successfully.

        :param requests: by the instance's uuid, the request of its action
        :param failures: by the instance's uuid
        """
        if requests:
            self._database.end_actions(
                [
                    _action_end(uuid, operation.event, request, failures.get(uuid))
                    for uuid, request in requests.items()
                ]
            )

    def release_interrupted(self, context: RunContext, instances: Iterable[Instance]) -> set[str]:
        """Make those instances idle on which this host's agent was at work when it was interrupted.

        :return: the uuids of all that were found so, also of those that stay claimed since
            max_changes refused the change or the row had moved on
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
