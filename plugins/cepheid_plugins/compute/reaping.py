# SPDX-License-Identifier: Apache-2.0
"""Removing what is left here of instances that are deleted for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cepheid import errors, progress
from cepheid.run import Raced
from cepheid_plugins.compute.claims import Results
from cepheid_plugins.compute.operations import NotPossible, Operations


class ReapingOperations(Operations):
    """Power off, reap.

    The instances have no row to claim; each is read once more right before it is acted on. Their
    volumes are left to the service they came from: which of them were theirs when they were
    deleted is not certain.
    """

    def power_off_deleted(self, uuids: Sequence[str]) -> Results:
        """Power the guests of deleted instances off at once."""
        return self._each_deleted(uuids, self._hypervisor.power_off)

    def obstacles(self, uuids: Sequence[str]) -> dict[str, str]:
        """Return why :meth:`reap` would keep instances, of those where it is so.

        :raises CepheidError: the database or the hypervisor does not answer, or the storage hangs
        """
        return self._leftovers.obstacles_beside_domains(uuids)

    def reap(self, uuids: Sequence[str]) -> Results:
        """Remove the domains and files of deleted instances.

        One whose files somebody else uses is not touched at all.
        """
        kept = self.obstacles(uuids)
        free = [uuid for uuid in uuids if uuid not in kept]
        results = self._each_deleted(free, self._reap_domain)
        results.update({uuid: NotPossible(f"it is kept: {kept[uuid]}") for uuid in kept})
        gone = [uuid for uuid, result in results.items() if result is None]
        try:
            dead = {row.uuid for row in self._database.deleted_instances(gone)}
        except errors.CepheidError as err:
            unread = errors.CepheidError(f"its domain is removed, its files are kept: {err}")
            return {**results, **dict.fromkeys(gone, unread)}
        moved_on = Raced("its domain is removed; its row has changed meanwhile, its files are kept")
        for uuid, result in self._remove_files(gone, dead.__contains__).items():
            results[uuid] = moved_on if result == "raced" else result
        removed = [uuid for uuid, result in results.items() if result is None]
        try:
            self._database.set_cleaned(removed)
        except errors.CepheidError as err:
            not_recorded = errors.CepheidError(
                f"its domain and files are removed, but that could not be recorded: {err}"
            )
            results.update(dict.fromkeys(removed, not_recorded))
        return results

    def _reap_domain(self, uuid: str) -> None:
        elsewhere = self._disks_elsewhere(uuid)
        self._destroy_domain(uuid)
        self._name_what_stays(uuid, elsewhere)

    def _each_deleted(self, uuids: Sequence[str], act: Callable[[str], None]) -> Results:
        results: Results = {}
        deleted = {row.uuid for row in self._database.deleted_instances(uuids)}
        for uuid in progress.each(uuids):
            if uuid not in deleted:
                results[uuid] = "raced"
                continue
            try:
                act(uuid)
                results[uuid] = None
            except errors.CepheidError as err:
                results[uuid] = err
        return results
