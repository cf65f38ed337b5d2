# SPDX-License-Identifier: Apache-2.0
"""What is done to instances: stop, start, hard reboot, with the states and records of Nova's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.claims import Outcome, Results
from cepheid_plugins.compute.kinds import FORCE_STOP, REBOOT, START, STOP
from cepheid_plugins.compute.operations import Operations
from cepheid_plugins.database.records import Instance
from cepheid_plugins.hypervisor.driver import HypervisorError, HypervisorUnavailable


class PowerOperations(Operations):
    """Stop, start, hard reboot."""

    def stop(self, instances: Sequence[Instance], request_id: str, force: bool = False) -> Results:
        """Shut guests down, power off those that do not follow, and record them as stopped.

        The guests of the batch are asked together and waited for together.

        :param force: without the checks that Nova's API makes
        """
        timeouts: dict[str, int] = {}

        def prepare(rows: Sequence[Instance]) -> None:
            timeouts.update(self._shutdown.timeouts([row.uuid for row in rows]))

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._shut_down({row.uuid: timeouts[row.uuid] for row in claimed}, outcome)

        operation = FORCE_STOP if force else STOP
        return self._operate(operation, instances, request_id, act, prepare=prepare)

    def start(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Start guests that are off, and record them as active."""
        return self._operate(START, instances, request_id, self._start)

    def hard_reboot(
        self,
        instances: Sequence[Instance],
        request_id: str,
        over: Collection[str] = (),
        to_be_tried_again: Collection[str] = (),
    ) -> Results:
        """Power guests off at once and start them again.

        One that does not come back is set to error. Where the hypervisor does not answer, all
        keep their states.

        :param over: task_states of an earlier reboot that are no obstacle
        :param to_be_tried_again: uuids of those that keep their states instead
        """

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(claimed, outcome, self._reboot_one)
            self._look_whether_running(claimed, outcome)
            for row in claimed:
                if row.uuid not in outcome.failures:
                    continue
                is_answer = not isinstance(outcome.failures[row.uuid], HypervisorUnavailable)
                if row.uuid in to_be_tried_again or not is_answer:
                    outcome.values[row.uuid] = {"task_state": row.task_state}
                else:
                    outcome.values[row.uuid] = {"vm_state": vm_states.ERROR}

        return self._operate(REBOOT, instances, request_id, act, over=over)

    def _start(self, claimed: Sequence[Instance], outcome: Outcome) -> None:
        self._each(claimed, outcome, self._start_one)
        self._look_whether_running(claimed, outcome)

    def _start_one(self, row: Instance) -> Mapping[str, Any]:
        if self._hypervisor.power_state(row.uuid) != power_state.RUNNING:
            self._hypervisor.start(row.uuid)
        return {}

    def _reboot_one(self, row: Instance) -> Mapping[str, Any]:
        self._hypervisor.power_off(row.uuid)
        self._hypervisor.start(row.uuid)
        return {}

    def _look_whether_running(self, claimed: Sequence[Instance], outcome: Outcome) -> None:
        """Enter as active whose guest runs, even where starting it said otherwise."""
        try:
            domains = self._hypervisor.domains()
        except HypervisorError as err:
            for row in claimed:
                outcome.failures.setdefault(row.uuid, err)
                outcome.values.pop(row.uuid, None)
            return
        for row in claimed:
            state = domains[row.uuid].power_state if row.uuid in domains else None
            if state == power_state.RUNNING:
                outcome.failures.pop(row.uuid, None)
                outcome.values[row.uuid] = {"vm_state": vm_states.ACTIVE, "power_state": state}
                continue
            outcome.values.pop(row.uuid, None)
            if row.uuid not in outcome.failures:
                outcome.failures[row.uuid] = HypervisorError(
                    f"{row.uuid} did not start: it is {power_state.name(state)}"
                )

    def _shut_down(self, timeouts: Mapping[str, int], outcome: Outcome) -> None:
        """Bring guests down; enter what they are then, or what they failed with."""
        states, failures = self._shutdown.shut_down(timeouts)
        outcome.failures.update(failures)
        for uuid, state in states.items():
            outcome.values[uuid] = {"vm_state": vm_states.STOPPED, "power_state": state}
