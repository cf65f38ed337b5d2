# SPDX-License-Identifier: Apache-2.0
"""Shelving instances: their disks are put by, and later removed from the host (offloaded).

Nova keeps a shelved instance's disk as an image of its image service. Without Nova they are kept
in ``[compute] shelved_path``, see :mod:`~cepheid_plugins.compute.shelf`.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cepheid import errors
from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.claims import Outcome, Results
from cepheid_plugins.compute.kinds import OFFLOAD, SHELVE, UNSHELVE
from cepheid_plugins.compute.operations import NotPossible, Operations
from cepheid_plugins.compute.shelf import DEFINITION, Shelf, copy_of, shelved_at
from cepheid_plugins.database.records import Instance
from cepheid_plugins.storage import qemu_img
from cepheid_plugins.storage.instances_path import InstancesPath, StorageError, require_apart

LOG = logging.getLogger(__name__)

#: System metadata of a shelved instance. Source: Nova.
SHELVED_AT = "shelved_at"
SHELVED_IMAGE_ID = "shelved_image_id"
SHELVED_HOST = "shelved_host"


class ShelvingOperations(Operations):
    """Shelve, offload, unshelve."""

    def shelve(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Shut guests down and put copies of their disks by."""
        timeouts: dict[str, int] = {}

        def prepare(rows: Sequence[Instance]) -> None:
            self._native(_make_private, self._copies.path)
            timeouts.update(self._shutdown.timeouts([row.uuid for row in rows]))

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(claimed, outcome, self._require_possible)
            ready = [row.uuid for row in claimed if row.uuid not in outcome.failures]
            states, failures = self._shutdown.shut_down({uuid: timeouts[uuid] for uuid in ready})
            outcome.failures.update(failures)
            self._each(claimed, outcome, self._put_by)
            for uuid in outcome.failures:
                outcome.values.pop(uuid, None)
            self._database.set_system_metadata(
                {
                    uuid: {
                        SHELVED_AT: self._clock.utcnow().isoformat(timespec="microseconds"),
                        SHELVED_IMAGE_ID: uuid,
                        SHELVED_HOST: self._agent.host,
                    }
                    for uuid in outcome.values
                }
            )
            # Last: without the metadata a shelved instance could not be offloaded.
            for uuid in outcome.values:
                outcome.values[uuid] = {
                    "vm_state": vm_states.SHELVED,
                    "power_state": states[uuid],
                }

        return self._operate(SHELVE, instances, request_id, act, prepare=prepare)

    def offload(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Remove shelved instances' domains and files from this host, which has them no longer.

        Once it has begun, an instance is claimed until it is done.
        """
        images: dict[str, str] = {}
        times: dict[str, str] = {}
        on_volumes: set[str] = set()

        def prepare(rows: Sequence[Instance]) -> None:
            uuids = [row.uuid for row in rows]
            images.update(self._database.system_metadata(uuids, SHELVED_IMAGE_ID))
            times.update(self._database.system_metadata(uuids, SHELVED_AT))
            volumes = self._database.volumes(uuids)
            # One that was attached to it is no copy of its own disk.
            on_volumes.update(row.instance_uuid for row in volumes if row.boot_index == 0)

        def forget(row: Instance) -> Mapping[str, Any]:
            image = images.get(row.uuid, "")
            if image == row.uuid:
                self._shelf.require_put_by(row.uuid)
            elif row.uuid in on_volumes:
                self._shelf.require_volume(row.uuid)
            elif image:
                self._shelf.require_image(row.uuid, _time(times.get(row.uuid)))
            else:
                raise NotPossible("no image of its disks is on record; they are kept here")
            self._hypervisor.power_off(row.uuid)
            # The definition that was put by names the file of the firmware's variables.
            self._hypervisor.undefine(row.uuid, keep_nvram=image == row.uuid)
            return {
                "vm_state": vm_states.SHELVED_OFFLOADED,
                "power_state": power_state.SHUTDOWN,
                **dict.fromkeys(("host", "node", "availability_zone", "compute_id", "launched_on")),
            }

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            outcome.failures.update(self._used_by_others([row.uuid for row in claimed]))
            # Until its files are gone, this host has it.
            forgotten = Outcome(failures=outcome.failures, begun=outcome.begun)
            self._each(claimed, forgotten, forget)
            for uuid, left in self._remove_files(list(forgotten.values), copies=False).items():
                if left is None:
                    outcome.values[uuid] = forgotten.values[uuid]
                else:
                    outcome.failures[uuid] = left

        return self._operate(OFFLOAD, instances, request_id, act, prepare=prepare)

    def unshelve(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Bring shelved instances back to this host, which put their disks by, and start them."""

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(claimed, outcome, self._bring_back)
            for uuid in outcome.failures:
                # Whatever is here of it, it is this host's again.
                outcome.values[uuid] = {"vm_state": vm_states.SHELVED}

        results: Results = {}
        for host in (self._agent.host, None):
            results.update(
                self._operate(
                    UNSHELVE,
                    [row for row in instances if row.host == host],
                    request_id,
                    act,
                    prepare=self._require_shelf,
                    values={"host": self._agent.host, "node": self._hypervisor.name},
                    claimed_from=host,
                )
            )
        return results

    @property
    def _copies(self) -> InstancesPath:
        copies = self._directory("shelved_path")
        require_apart(self._files, copies)
        return copies

    @property
    def _shelf(self) -> Shelf:
        return Shelf(self._hypervisor, self._files, self._copies)

    def _require_possible(self, row: Instance) -> Mapping[str, Any]:
        self._shelf.require_possible(row.uuid)
        return {}

    def _put_by(self, row: Instance) -> Mapping[str, Any]:
        self._hypervisor.require_no_saved_memory(row.uuid)
        self._shelf.put_by(row.uuid)
        return {}

    def _used_by_others(self, uuids: Sequence[str]) -> dict[str, Exception]:
        """Return why files of instances are not to be removed, of those where it is so."""
        try:
            kept = self._leftovers.obstacles_beside_domains(uuids, copies=False)
        except errors.CepheidError as err:
            return dict.fromkeys(uuids, err)
        return {uuid: NotPossible(f"its files are kept here: {kept[uuid]}") for uuid in kept}

    def _require_shelf(self, rows: Sequence[Instance]) -> None:
        defined = self._hypervisor.domains()
        for row in rows:
            if row.uuid not in defined and DEFINITION not in self._copies.files(row.uuid):
                raise NotPossible(
                    f"{row.uuid}: its disks are not in {self._copies.path}/{row.uuid} on this host."
                )

    def _bring_back(self, row: Instance) -> Mapping[str, Any]:
        shelf, files, copies = self._shelf, self._files, self._copies
        saved = copies.read(row.uuid, DEFINITION)
        if saved is not None and row.uuid not in self._hypervisor.domains():
            self._hypervisor.define_as(row.uuid, saved.decode())
        for disk in shelf.drives(row.uuid, self._hypervisor.definition(row.uuid)):
            copy = copy_of(disk.target)
            if self._native(os.path.exists, disk.path):
                continue
            if copy not in copies.files(row.uuid):
                raise NotPossible(
                    f"its disk {disk.path} is missing, and so is {copy} of its copies"
                )
            name = os.path.basename(disk.path)
            if not files.holds(row.uuid, disk.path):
                raise NotPossible(f"its disk {disk.path} is missing, and not one of ours to make")
            files.make(row.uuid)
            files.unlink(row.uuid, f"{name}.part")
            qemu_img.convert(
                copies.file_path(row.uuid, copy),
                "qcow2",
                files.file_path(row.uuid, f"{name}.part"),
                disk.format,
            )
            files.complete(row.uuid, f"{name}.part", name)
        # A guest that runs is ahead of its copies; nothing is to be offloaded because of them.
        aside = f"{row.uuid}_del"
        if copies.exists(row.uuid):
            copies.remove(aside)
            copies.rename(row.uuid, aside)
        if self._hypervisor.power_state(row.uuid) != power_state.RUNNING:
            self._hypervisor.start(row.uuid)
        try:
            copies.remove(aside)
        except (StorageError, errors.CallTimeout) as err:
            LOG.warning("%s is back, but its copies are left: %s", row.uuid, err)
        return {"vm_state": vm_states.ACTIVE, "power_state": power_state.RUNNING}


def _make_private(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)


def _time(text: str | None) -> datetime.datetime | None:
    try:
        return shelved_at(text)
    except ValueError:
        return None
