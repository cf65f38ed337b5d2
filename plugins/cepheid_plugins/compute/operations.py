# SPDX-License-Identifier: Apache-2.0
"""What tasks do to instances: state changes, actions, events and faults as Nova records them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.run import Change, Raced, RunContext, describe
from cepheid_plugins.compute import power_state, task_states, vm_states
from cepheid_plugins.database.records import (
    ANY,
    ActionEnd,
    ActionStart,
    Fault,
    Instance,
    InstanceUpdate,
)
from cepheid_plugins.hypervisor.driver import (
    Domain,
    DomainNotFound,
    HypervisorError,
    HypervisorUnavailable,
)

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: Seconds between two looks at guests that are shutting down.
POLL_SECONDS = 1

#: The vm_states that a stop which is not forced may find. Source: Nova's API.
STOPPABLE = (vm_states.ACTIVE, vm_states.ERROR)

#: The event of the action ``stop``.
STOP_EVENT = "compute_stop_instance"

#: Where an image's own time-out is kept.
SHUTDOWN_TIMEOUT_KEY = "image_os_shutdown_timeout"

Results = dict[str, Any]


class NotPossible(errors.CepheidError):
    """The instance is in no state for the operation."""


class InstanceOperations:
    """Operations on batches of instances of this host.

    Each answers with a mapping from the instance's uuid to None (done), ``"raced"`` (the row had
    moved on, nothing was done) or the exception it failed with, as the door for changes takes it;
    :class:`~cepheid.run.Raced` is that of a row which moved on after its guest was brought down.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._clock = agent.clock
        self._database = agent.driver("database")
        self._hypervisor = agent.driver("hypervisor")

    def stop(self, instances: Sequence[Instance], request_id: str, force: bool = False) -> Results:
        """Shut guests down, power off those that do not follow, and record them as stopped.

        The guests of the batch are asked together and waited for together.

        :param force: without the checks that Nova's API makes
        """
        results: Results = {}
        possible = []
        for instance in instances:
            if force or (instance.vm_state in STOPPABLE and instance.launched_at is not None):
                possible.append(instance)
            else:
                results[instance.uuid] = NotPossible(
                    f"it cannot be stopped: vm_state {instance.vm_state}, "
                    f"launched_at {instance.launched_at}"
                )
        timeouts = self._shutdown_timeouts([row.uuid for row in possible])
        claimed = self._claim(possible, request_id, results)
        if not claimed:
            return results
        states: dict[str, int] = {}
        failures: dict[str, Exception] = {}
        try:
            self._shut_down({row.uuid: timeouts[row.uuid] for row in claimed}, states, failures)
        finally:
            # Whatever happened: a task_state left behind would keep everybody off for good.
            self._record_stopped(claimed, states, failures)
        self._database.end_actions(
            [
                _action_end(row.uuid, STOP_EVENT, request_id, failures.get(row.uuid))
                for row in claimed
            ]
        )
        results.update({row.uuid: failures.get(row.uuid) for row in claimed})
        return results

    def release_interrupted(self, context: RunContext, instances: Iterable[Instance]) -> None:
        """Make instances idle whose stop was this agent's and ended with it, or half-way.

        Whose a claim is, is on record twice: the action with its request in the database, the
        run of that request in the journal. What anybody else works on is left alone.
        """
        claimed = {row.uuid: row for row in instances if row.task_state == task_states.POWERING_OFF}
        if not claimed:
            return
        requests = self._database.unfinished_actions(list(claimed), STOP_EVENT, self._agent.host)
        going_on = {run.request_id for run in self._agent.runner.active}
        ours = self._agent.journal.known_requests(requests.values()) - going_on
        context.change_many(
            "task_state",
            [
                Change(
                    uuid,
                    task_states.POWERING_OFF,
                    None,
                    f"{claimed[uuid].display_name}: its stop ({request}) was interrupted",
                )
                for uuid, request in requests.items()
                if request in ours
            ],
            lambda changes: self._release([(c.target, requests[c.target]) for c in changes]),
        )

    def _release(self, claims: Sequence[tuple[str, str]]) -> set[str]:
        idle = {"task_state": None}
        released: set[str] = self._database.update_instances(
            self._agent.host,
            [InstanceUpdate(uuid, ANY, task_states.POWERING_OFF, idle) for uuid, _ in claims],
        )
        for request in {request for _, request in claims}:
            self._database.end_actions(
                [
                    ActionEnd(uuid, STOP_EVENT, request, "The stop was interrupted.")
                    for uuid, of_request in claims
                    if of_request == request and uuid in released
                ]
            )
        return released

    def _claim(
        self, instances: Sequence[Instance], request_id: str, results: Results
    ) -> list[Instance]:
        """Set the task_state of those that nobody else works on; the others have raced."""
        if not instances:
            return []
        host = self._agent.host
        values = {"task_state": task_states.POWERING_OFF, "progress": 0}
        won = self._database.begin(
            [InstanceUpdate(row.uuid, row.vm_state, None, values) for row in instances],
            [ActionStart(row.uuid, "stop", STOP_EVENT, request_id, host) for row in instances],
            host,
        )
        results.update({row.uuid: "raced" for row in instances if row.uuid not in won})
        return [row for row in instances if row.uuid in won]

    def _shut_down(
        self,
        timeouts: Mapping[str, int],
        states: dict[str, int],
        failures: dict[str, Exception],
    ) -> None:
        """Bring guests down; enter their power states then, or what they failed with."""
        try:
            self._wait_for_shutdown(timeouts, failures)
            domains = self._hypervisor.domains()
            for uuid in timeouts.keys() - failures.keys():
                state = self._state(uuid, domains)
                if state is not None and state in power_state.OFF:
                    states[uuid] = state
                else:
                    failures[uuid] = HypervisorError(
                        f"{uuid} did not stop: it is {power_state.name(state)}"
                    )
        except HypervisorError as err:
            left = timeouts.keys() - states.keys() - failures.keys()
            failures.update(dict.fromkeys(left, err))

    def _wait_for_shutdown(
        self, timeouts: Mapping[str, int], failures: dict[str, Exception]
    ) -> None:
        started = next_signal = self._clock.monotonic()
        waiting = set(timeouts)
        while True:
            domains = self._hypervisor.domains()
            waiting = {u for u in waiting if self._state(u, domains) not in power_state.OFF}
            now = self._clock.monotonic()
            for uuid in sorted(u for u in waiting if now >= started + timeouts[u]):
                waiting.remove(uuid)
                self._power_off(uuid, failures)
            if not waiting:
                return
            if now >= next_signal:
                self._signal(waiting)
                next_signal = now + self._agent.conf.compute.shutdown_retry_interval
            self._clock.sleep(POLL_SECONDS)

    def _signal(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            try:
                self._hypervisor.shutdown(uuid)
            except HypervisorError as err:
                # It may have gone down meanwhile, and is powered off in the end anyway.
                LOG.debug("%s was not asked to shut down: %s", uuid, err)

    def _power_off(self, uuid: str, failures: dict[str, Exception]) -> None:
        LOG.info("%s did not shut down in time and is powered off", uuid)
        try:
            self._hypervisor.power_off(uuid)
        except HypervisorUnavailable:
            raise
        except HypervisorError as err:
            failures[uuid] = err

    def _state(self, uuid: str, domains: Mapping[str, Domain]) -> int | None:
        """Return a guest's power state; only the hypervisor's word makes a domain gone."""
        if uuid in domains:
            return domains[uuid].power_state
        try:
            return self._hypervisor.power_state(uuid)  # type: ignore[no-any-return]
        except DomainNotFound:
            return power_state.NOSTATE

    def _shutdown_timeouts(self, uuids: Sequence[str]) -> dict[str, int]:
        default = self._agent.conf.compute.shutdown_timeout
        timeouts = dict.fromkeys(uuids, default)
        own = self._database.system_metadata(uuids, SHUTDOWN_TIMEOUT_KEY)
        timeouts.update({uuid: int(text) for uuid, text in own.items() if text.isdecimal()})
        return timeouts

    def _record_stopped(
        self,
        instances: Sequence[Instance],
        states: dict[str, int],
        failures: dict[str, Exception],
    ) -> None:
        """Write what became of the guests; with it the instances are idle again.

        One whose row somebody took meanwhile is entered among the failures, as raced.
        """
        host = self._agent.host
        updates = []
        for row in instances:
            values: dict[str, Any] = {"task_state": None}
            if row.uuid in states:
                values |= {"vm_state": vm_states.STOPPED, "power_state": states[row.uuid]}
            updates.append(InstanceUpdate(row.uuid, row.vm_state, task_states.POWERING_OFF, values))
        written = self._database.update_instances(host, updates)
        for uuid in states.keys() - written:
            failures[uuid] = Raced(f"{uuid} is off, but its row changed while it was stopped")
        if failures:
            self._database.add_faults(
                [
                    Fault(uuid, host, _fault_message(err), "".join(traceback.format_exception(err)))
                    for uuid, err in failures.items()
                ]
            )


def _action_end(uuid: str, event: str, request_id: str, err: Exception | None) -> ActionEnd:
    if err is None:
        return ActionEnd(uuid, event, request_id)
    return ActionEnd(
        uuid, event, request_id, describe(err), "".join(traceback.format_exception(err))
    )


def _fault_message(err: Exception) -> str:
    """Return an exception's text where it is ours, else its class, as Nova's faults have it."""
    return str(err) if isinstance(err, errors.CepheidError) else type(err).__name__
