# SPDX-License-Identifier: Apache-2.0
"""What all operations on instances have in common: claim, act, record, tell."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cepheid import errors, progress
from cepheid.run import RunContext
from cepheid_plugins.compute import vm_states
from cepheid_plugins.compute.claims import Claims, Outcome, Results
from cepheid_plugins.compute.kinds import Operation
from cepheid_plugins.compute.leftovers import Leftovers
from cepheid_plugins.compute.notifications import Notifications
from cepheid_plugins.compute.shutdown import Shutdown
from cepheid_plugins.database.records import DeletedInstance, Instance, InstanceUpdate
from cepheid_plugins.hypervisor.driver import DomainNotFound, HypervisorUnavailable
from cepheid_plugins.storage.errors import StorageError, StorageUnavailable
from cepheid_plugins.storage.instances_path import InstancesPath
from cepheid_plugins.storage.native_files import LOOK_SECONDS, NativeInstancesPath

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: Whether what was asked for can be done is not known; it is asked for again later.
NO_ANSWER = (HypervisorUnavailable, StorageUnavailable, errors.CallTimeout)

#: What becomes of one instance: what is to be written of it. Raises what it failed with.
Act = Callable[[Instance], Mapping[str, Any]]


class NotPossible(errors.CepheidError):
    """The instance is in no state for the operation."""


class Operations:
    """Operations on batches of instances of this host.

    Each answers with a mapping from the instance's uuid to None (done), ``"raced"`` (the row had
    moved on, nothing was done) or the exception it failed with, as the door for changes takes it;
    :class:`~cepheid.run.Raced` is that of a row which moved on after its guest was acted on.

    Each may be killed at any step and asked for again: it finds its own claim, takes it over, and
    does what is left to do. One that is interrupted (Ctrl-C) records what is done, and gives back
    what it has not begun to destroy.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._clock = agent.clock
        self._claims = Claims(agent)
        self._database = agent.driver("database")
        self._leftovers = Leftovers(agent)
        self._hypervisor = agent.driver("hypervisor")
        self._notifications = Notifications(agent)
        self._shutdown = Shutdown(agent)

    @property
    def _files(self) -> InstancesPath:
        return self._directory("instances_path")

    def _directory(self, option: str) -> InstancesPath:
        """Return the directory that an option of group ``[compute]`` names."""
        return NativeInstancesPath(
            self._agent.run_native, self._clock, self._agent.conf.compute[option], option
        )

    def _native(self, call: Callable[..., T], *arguments: Any) -> T:
        """Make a short call to the file system; storage that hangs holds nobody else up."""
        answer: T = self._agent.run_native(call, *arguments, deadline=LOOK_SECONDS)
        return answer

    def require_storage(self) -> None:
        """See that the storage of instances' files answers, before anything is claimed.

        :raises CepheidError: it is not there, or hangs
        """
        self._files.check()

    def release_interrupted(self, context: RunContext, instances: Iterable[Instance]) -> set[str]:
        """Make instances idle whose operation ended half-way, see :class:`Claims`."""
        return self._claims.release_interrupted(context, instances)

    def interrupted(self, operation: Operation, instances: Iterable[Instance]) -> set[str]:
        """Return the instances whose operation of that kind ended half-way."""
        return set(self._claims.interrupted(operation, instances))

    def free_for(self, operation: Operation, instances: Sequence[Instance]) -> list[Instance]:
        """Return the instances that nobody works on.

        Those among them whose operation of that kind was ours and ended half-way are carried on
        with.
        """
        interrupted = self.interrupted(operation, instances)
        return [row for row in instances if row.task_state is None or row.uuid in interrupted]

    def explain_busy(
        self, context: RunContext, instances: Sequence[Instance], free: Iterable[Instance]
    ) -> None:
        """Say of instances that somebody works on why they are left alone.

        :param free: those that :meth:`free_for` has found among them
        """
        uuids = {row.uuid for row in free} if context.asked(instances) else ()
        for row in context.asked(row for row in instances if row.uuid not in uuids):
            context.explain(
                row.uuid,
                f"somebody works on it: its task_state is {row.task_state}",
                rule="an instance that somebody works on is left alone",
                until="its task_state is NULL again",
                evidence={"task_state": row.task_state},
            )

    @staticmethod
    def foreseen(
        context: RunContext, instances: Sequence[Instance | DeletedInstance], max_changes: int
    ) -> list[str]:
        """Return the instances whose obstacles a dry run has to look for itself, by uuid.

        They are those that a run would begin with; where an explanation asks about none of them,
        nobody. A run that acts looks when it does.

        :param instances: those that are due, in their order
        """
        first = instances[: max_changes or None]
        if not context.dry_run or (context.targets and not context.asked(first)):
            return []
        return [row.uuid for row in first]

    def set_to_error(
        self, instances: Sequence[Instance], reason: str, task_state: str | None = None
    ) -> Results:
        """Set instances to error that somebody has to look at, with a fault that says why.

        :param task_state: what they are to have afterwards
        """
        host = self._agent.host
        values = {"vm_state": vm_states.ERROR, "task_state": task_state}
        written = self._database.update_instances(
            host,
            [InstanceUpdate(row.uuid, row.vm_state, row.task_state, values) for row in instances],
        )
        failure = errors.CepheidError(reason)
        self._claims.add_faults(dict.fromkeys(sorted(written), failure))
        return {row.uuid: None if row.uuid in written else "raced" for row in instances}

    def _operate(
        self,
        operation: Operation,
        instances: Sequence[Instance],
        request_id: str,
        act: Callable[[Sequence[Instance], Outcome], None],
        *,
        prepare: Callable[[Sequence[Instance]], None] = lambda rows: None,
        values: Mapping[str, Any] | None = None,
        over: Collection[str] = (),
        claimed_from: str | None = "",
    ) -> Results:
        """Claim the instances, act on them together, record what became of each.

        :param values: what is written with the claim
        :param over: task_states that are no obstacle
        :param claimed_from: the host that the rows name until they are claimed; this one, unless
            given
        """
        results: Results = {}
        possible = []
        for row in instances:
            why_not = _why_not(operation, row)
            if why_not:
                results[row.uuid] = NotPossible(why_not)
            else:
                possible.append(row)
        prepare(possible)
        host = self._agent.host if claimed_from == "" else claimed_from
        claimed = self._claims.claim(operation, possible, request_id, values or {}, over, host)
        won = {row.uuid for row in claimed}
        results.update({row.uuid: "raced" for row in possible if row.uuid not in won})
        if not claimed:
            return results
        outcome = Outcome()
        self._notifications.started(operation, claimed, request_id)
        try:
            act(claimed, outcome)
            outcome.is_complete = True
        finally:
            # Whatever happened: a task_state left behind would keep everybody off for good.
            self._claims.record(operation, claimed, outcome)
            if not outcome.is_complete:
                self._record_interrupted(operation, claimed, request_id, outcome)
        self._claims.end(operation, claimed, request_id, outcome.failures)
        self._notifications.ended(
            operation,
            [row for row in claimed if row.uuid not in outcome.failures],
            request_id,
        )
        results.update({uuid: outcome.failures.get(uuid) for uuid in won})
        return results

    def _record_interrupted(
        self,
        operation: Operation,
        claimed: Sequence[Instance],
        request_id: str,
        outcome: Outcome,
    ) -> None:
        """Record of what was cut short how far it has come."""
        results = self._claims.end_interrupted(operation, claimed, request_id, outcome)
        progress.settle(results)
        done = [row for row in claimed if row.uuid in results and results[row.uuid] is None]
        self._notifications.ended(operation, done, request_id)

    def _destroy_domain(self, uuid: str) -> None:
        """Power a guest off and forget its domain; one that is gone already is fine."""
        self._hypervisor.power_off(uuid)
        self._hypervisor.undefine(uuid)

    def _disks_elsewhere(self, uuid: str) -> list[str]:
        """Return the disks of a domain that are not among the files which are removed with it."""
        try:
            definition = self._hypervisor.definition(uuid)
        except DomainNotFound:
            return []
        disks = [one.path for one in self._hypervisor.drives(definition) if not one.removable]
        ours = os.path.join(self._files.path, uuid, "")
        paths = self._native(lambda: {path: os.path.realpath(path) for path in disks})
        found = [path for path, real in paths.items() if not real.startswith(ours)]
        return [*found, *self._hypervisor.remote_disks(definition)]

    def _name_what_stays(self, uuid: str, elsewhere: Sequence[str]) -> None:
        """Name the disks that nobody removes, when their domain is gone and with it their names."""
        if elsewhere:
            LOG.warning(
                "%s is deleted; these disks of it are not in %s and stay: %s",
                uuid,
                self._files.path,
                ", ".join(elsewhere),
            )

    def _remove_files(
        self,
        uuids: Sequence[str],
        is_dead: Callable[[str], bool] = lambda uuid: True,
        copies: bool = True,
    ) -> Results:
        """Remove the files of instances whose domains are gone, unless somebody uses them.

        :param is_dead: asked once more for each, right before
        :param copies: whether those in shelved_path are removed as well
        """
        try:
            results: Results = self._leftovers.remove(uuids, is_dead, copies)
        except errors.CepheidError as err:
            return dict.fromkeys(uuids, err)
        in_use = StorageError("somebody has begun to use its files; they are kept")
        return {
            uuid: in_use if result == "raced" and is_dead(uuid) else result
            for uuid, result in results.items()
        }

    def _each(self, claimed: Sequence[Instance], outcome: Outcome, act: Act) -> None:
        """Act on one instance after another; an error of one does not keep the others waiting."""
        for row in progress.each(claimed):
            if row.uuid in outcome.failures:
                continue
            outcome.begun.add(row.uuid)
            try:
                outcome.values[row.uuid] = dict(act(row))
            except errors.CepheidError as err:
                outcome.failures[row.uuid] = err


def _why_not(operation: Operation, row: Instance) -> str:
    """Return why an instance cannot be asked to do that; nothing where it can."""
    if operation.vm_states is not None and row.vm_state not in operation.vm_states:
        allowed = ", ".join(operation.vm_states)
        return (
            f"it cannot be asked to {operation.action}: its vm_state is {row.vm_state}, "
            f"not one of {allowed}"
        )
    if operation.launched and row.launched_at is None:
        return f"it cannot be asked to {operation.action}: its launched_at is NULL"
    return ""
