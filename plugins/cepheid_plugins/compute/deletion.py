# SPDX-License-Identifier: Apache-2.0
"""Soft-deleting, restoring and deleting instances."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cepheid import errors
from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.claims import Outcome, Results
from cepheid_plugins.compute.kinds import DELETE, RESTORE, SOFT_DELETE
from cepheid_plugins.compute.operations import Operations
from cepheid_plugins.database.records import CLEAN_ATTEMPTS, Instance
from cepheid_plugins.hypervisor.driver import HypervisorUnavailable

LOG = logging.getLogger(__name__)


class DeletionOperations(Operations):
    """Soft delete, restore, delete."""

    def soft_delete(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Shut guests down and mark their instances, which can be restored for a time."""
        timeouts: dict[str, int] = {}

        def prepare(rows: Sequence[Instance]) -> None:
            timeouts.update(self._shutdown.timeouts([row.uuid for row in rows]))

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            states, failures = self._shutdown.shut_down(
                {row.uuid: timeouts[row.uuid] for row in claimed}
            )
            outcome.failures.update(failures)
            outcome.values.update({uuid: {"deleted_at": None} for uuid in failures})
            for uuid, state in states.items():
                outcome.values[uuid] = {"vm_state": vm_states.SOFT_DELETED, "power_state": state}

        values = {"deleted_at": self._clock.utcnow()}
        return self._operate(
            SOFT_DELETE, instances, request_id, act, prepare=prepare, values=values
        )

    def restore(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Take soft-deleted instances back, and start their guests."""

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(claimed, outcome, self._restore_one)

        return self._operate(RESTORE, instances, request_id, act)

    def delete(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Delete instances for good: domain, files, and the row with all that hangs on it.

        Once it has begun, an instance is claimed until it is gone: an interrupted deletion is
        carried on with and never given back. Files that somebody else uses are kept, and the
        instance is deleted all the same, as in Nova when files cannot be removed. Volumes stay
        with the service they came from; their records are deleted with the instance.
        """

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._notifications.tell("shutdown.start", claimed, request_id)
            kept = self._files_to_keep(claimed, outcome)
            self._each(claimed, outcome, self._delete_one)
            gone = [row for row in claimed if row.uuid in outcome.values]
            for uuid in self._clean([row.uuid for row in gone], kept):
                outcome.values[uuid]["cleaned"] = 1
            self._count_attempts([row.uuid for row in gone])
            self._notifications.tell("shutdown.end", gone, request_id)

        return self._operate(DELETE, instances, request_id, act)

    def files_to_keep(self, uuids: Sequence[str]) -> dict[str, str]:
        """Return why files of instances are not to be removed, of those where it is so.

        Nothing is changed.

        :raises CepheidError: the hypervisor does not answer, or the storage hangs
        """
        try:
            return self._leftovers.obstacles_beside_domains(uuids)
        except (HypervisorUnavailable, errors.CallTimeout):
            raise
        except errors.CepheidError as err:
            # Their guests go all the same, as in Nova.
            return dict.fromkeys(uuids, str(err))

    def _restore_one(self, row: Instance) -> Mapping[str, Any]:
        if self._hypervisor.power_state(row.uuid) != power_state.RUNNING:
            self._hypervisor.start(row.uuid)
        return {
            "vm_state": vm_states.ACTIVE,
            "power_state": self._hypervisor.power_state(row.uuid),
            "deleted_at": None,
        }

    def _delete_one(self, row: Instance) -> Mapping[str, Any]:
        elsewhere = self._disks_elsewhere(row.uuid)
        self._destroy_domain(row.uuid)
        self._name_what_stays(row.uuid, elsewhere)
        return {
            "vm_state": vm_states.DELETED,
            "power_state": power_state.NOSTATE,
            "terminated_at": self._clock.utcnow(),
            # Until its files are gone; who finds it so tries to remove them.
            "cleaned": 0,
        }

    def _count_attempts(self, uuids: Sequence[str]) -> None:
        """Count the attempt to remove files, as Nova does, for whoever has to try again."""
        counts = self._database.system_metadata(uuids, CLEAN_ATTEMPTS)
        self._database.set_system_metadata(
            {uuid: {CLEAN_ATTEMPTS: str(_number(counts.get(uuid, "")) + 1)} for uuid in uuids}
        )

    def _files_to_keep(self, claimed: Sequence[Instance], outcome: Outcome) -> dict[str, str]:
        """Return :meth:`files_to_keep`; where nobody answers, they have failed."""
        uuids = [row.uuid for row in claimed]
        try:
            return self.files_to_keep(uuids)
        except (HypervisorUnavailable, errors.CallTimeout) as err:
            # Whoever does not answer would be waited for with each of them.
            outcome.failures.update(dict.fromkeys(uuids, err))
            return {}

    def _clean(self, uuids: Sequence[str], kept: Mapping[str, str]) -> list[str]:
        """Remove files of instances; return those of which none is left."""
        results: Results = {uuid: kept[uuid] for uuid in uuids if uuid in kept}
        results.update(self._remove_files([uuid for uuid in uuids if uuid not in kept]))
        for uuid, reason in results.items():
            if reason is not None:
                LOG.warning("%s is deleted, but files of it are left: %s", uuid, reason)
        return [uuid for uuid, reason in results.items() if reason is None]


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
