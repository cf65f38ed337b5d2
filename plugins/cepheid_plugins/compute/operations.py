# SPDX-License-Identifier: Apache-2.0
"""What is done to instances: stop, start, hard reboot, with the states and records of Nova's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cepheid import errors
from cepheid.run import RunContext
from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.claims import (
    REBOOT,
    START,
    STOP,
    Claims,
    Operation,
    Outcome,
    Results,
)
from cepheid_plugins.database.records import Instance
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

#: The vm_states in which each may be asked for. Source: Nova's API.
STOPPABLE = (vm_states.ACTIVE, vm_states.ERROR)
STARTABLE = (vm_states.STOPPED,)
REBOOTABLE = (
    vm_states.ACTIVE,
    vm_states.STOPPED,
    vm_states.PAUSED,
    vm_states.SUSPENDED,
    vm_states.ERROR,
)

#: Where an image's own time-out is kept.
SHUTDOWN_TIMEOUT_KEY = "image_os_shutdown_timeout"


class NotPossible(errors.CepheidError):
    """The instance is in no state for the operation."""


class InstanceOperations:
    """Operations on batches of instances of this host.

    Each answers with a mapping from the instance's uuid to None (done), ``"raced"`` (the row had
    moved on, nothing was done) or the exception it failed with, as the door for changes takes it;
    :class:`~cepheid.run.Raced` is that of a row which moved on after its guest was acted on.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._clock = agent.clock
        self._claims = Claims(agent)
        self._database = agent.driver("database")
        self._hypervisor = agent.driver("hypervisor")

    def stop(self, instances: Sequence[Instance], request_id: str, force: bool = False) -> Results:
        """Shut guests down, power off those that do not follow, and record them as stopped.

        The guests of the batch are asked together and waited for together.

        :param force: without the checks that Nova's API makes
        """
        allowed = None if force else STOPPABLE
        timeouts: dict[str, int] = {}

        def prepare(rows: Sequence[Instance]) -> None:
            timeouts.update(self._shutdown_timeouts([row.uuid for row in rows]))

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._shut_down({row.uuid: timeouts[row.uuid] for row in claimed}, outcome)

        return self._operate(STOP, instances, request_id, allowed, act, prepare)

    def start(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Start guests that are off, and record them as active."""
        return self._operate(START, instances, request_id, STARTABLE, self._start)

    def hard_reboot(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Power guests off at once and start them again.

        One that does not come back is set to error.
        """
        return self._operate(REBOOT, instances, request_id, REBOOTABLE, self._reboot)

    def release_interrupted(self, context: RunContext, instances: Iterable[Instance]) -> None:
        """Make instances idle whose operation ended half-way, see :class:`Claims`."""
        self._claims.release_interrupted(context, instances)

    def _operate(
        self,
        operation: Operation,
        instances: Sequence[Instance],
        request_id: str,
        allowed: Sequence[str] | None,
        act: Callable[[Sequence[Instance], Outcome], None],
        prepare: Callable[[Sequence[Instance]], None] = lambda rows: None,
    ) -> Results:
        """Claim the instances, act on them together, record what became of each."""
        results: Results = {}
        possible = []
        for row in instances:
            if allowed is None or (row.vm_state in allowed and row.launched_at is not None):
                possible.append(row)
            else:
                results[row.uuid] = NotPossible(
                    f"it cannot be asked to {operation.action}: vm_state {row.vm_state}, "
                    f"launched_at {row.launched_at}"
                )
        prepare(possible)
        claimed = self._claims.claim(operation, possible, request_id)
        won = {row.uuid for row in claimed}
        results.update({row.uuid: "raced" for row in possible if row.uuid not in won})
        if not claimed:
            return results
        outcome = Outcome()
        try:
            act(claimed, outcome)
        finally:
            # Whatever happened: a task_state left behind would keep everybody off for good.
            self._claims.record(operation, claimed, outcome)
        self._claims.end(operation, claimed, request_id, outcome.failures)
        results.update({uuid: outcome.failures.get(uuid) for uuid in won})
        return results

    def _start(self, claimed: Sequence[Instance], outcome: Outcome) -> None:
        self._each(claimed, outcome, self._start_one)
        self._look_whether_running(claimed, outcome)

    def _reboot(self, claimed: Sequence[Instance], outcome: Outcome) -> None:
        self._each(claimed, outcome, self._reboot_one)
        self._look_whether_running(claimed, outcome)
        for row in claimed:
            if row.uuid in outcome.failures:
                outcome.values[row.uuid] = {"vm_state": vm_states.ERROR}

    def _each(
        self, claimed: Sequence[Instance], outcome: Outcome, act: Callable[[str], None]
    ) -> None:
        """Act on one guest after another; an error of one does not keep the others waiting."""
        for row in claimed:
            try:
                act(row.uuid)
            except HypervisorError as err:
                outcome.failures[row.uuid] = err

    def _start_one(self, uuid: str) -> None:
        if self._hypervisor.power_state(uuid) != power_state.RUNNING:
            self._hypervisor.start(uuid)

    def _reboot_one(self, uuid: str) -> None:
        self._hypervisor.power_off(uuid)
        self._hypervisor.start(uuid)

    def _look_whether_running(self, claimed: Sequence[Instance], outcome: Outcome) -> None:
        """Enter as active whose guest runs, even where starting it said otherwise."""
        try:
            domains = self._hypervisor.domains()
        except HypervisorError as err:
            for row in claimed:
                outcome.failures.setdefault(row.uuid, err)
            return
        for row in claimed:
            state = domains[row.uuid].power_state if row.uuid in domains else None
            if state == power_state.RUNNING:
                outcome.failures.pop(row.uuid, None)
                outcome.values[row.uuid] = {"vm_state": vm_states.ACTIVE, "power_state": state}
            elif row.uuid not in outcome.failures:
                outcome.failures[row.uuid] = HypervisorError(
                    f"{row.uuid} did not start: it is {power_state.name(state)}"
                )

    def _shut_down(
        self,
        timeouts: Mapping[str, int],
        outcome: Outcome,
    ) -> None:
        """Bring guests down; enter what they are then, or what they failed with."""
        failures = outcome.failures
        try:
            self._wait_for_shutdown(timeouts, failures)
            domains = self._hypervisor.domains()
            for uuid in timeouts.keys() - failures.keys():
                state = self._state(uuid, domains)
                if state is not None and state in power_state.OFF:
                    outcome.values[uuid] = {"vm_state": vm_states.STOPPED, "power_state": state}
                else:
                    failures[uuid] = HypervisorError(
                        f"{uuid} did not stop: it is {power_state.name(state)}"
                    )
        except HypervisorError as err:
            left = timeouts.keys() - outcome.values.keys() - failures.keys()
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
