# SPDX-License-Identifier: Apache-2.0
"""Rescue and unrescue: a guest boots from another disk, and back, as in Nova's libvirt driver.

The domain as it was is kept as ``unrescue.xml`` in the instance's directory; what the rescue needs
is in files that end in ``.rescue``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.claims import Outcome, Results
from cepheid_plugins.compute.kinds import RESCUE, UNRESCUE
from cepheid_plugins.compute.operations import NO_ANSWER, Operations
from cepheid_plugins.database.records import Instance
from cepheid_plugins.hypervisor.driver import (
    DomainNotFound,
    HypervisorError,
    HypervisorUnavailable,
)
from cepheid_plugins.storage import qemu_img
from cepheid_plugins.storage.errors import StorageError, StorageUnavailable
from cepheid_plugins.storage.instances_path import InstancesPath

#: The domain as it was before the rescue.
UNRESCUE_XML = "unrescue.xml"
RESCUE_DISK = "disk.rescue"
RESCUE_SUFFIX = ".rescue"


class RescueOperations(Operations):
    """Rescue, unrescue."""

    def rescue(self, instances: Sequence[Instance], request_id: str, image: str) -> Results:
        """Shut guests down and boot them from a copy of an image; their own disks are attached.

        :param image: the path of a disk image that somebody trusted has made
        """
        timeouts: dict[str, int] = {}
        image_format: list[str] = []

        def prepare(rows: Sequence[Instance]) -> None:
            image_format.append(str(qemu_img.info(image)["format"]))
            timeouts.update(self._shutdown.timeouts([row.uuid for row in rows]))

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(
                claimed, outcome, lambda row: self._make_rescue_files(row, image, image_format[0])
            )
            ready = [row.uuid for row in claimed if row.uuid not in outcome.failures]
            _, failures = self._shutdown.shut_down({uuid: timeouts[uuid] for uuid in ready})
            outcome.failures.update(failures)
            self._each(claimed, outcome, self._boot_rescue)
            for uuid in outcome.failures:
                outcome.values.pop(uuid, None)

        return self._operate(RESCUE, instances, request_id, act, prepare=prepare)

    def unrescue(self, instances: Sequence[Instance], request_id: str) -> Results:
        """Power guests off and boot them as they were before their rescue.

        One with which that fails is set to error, as in Nova, unless the hypervisor or the storage
        does not answer: then it stays rescued.
        """

        def act(claimed: Sequence[Instance], outcome: Outcome) -> None:
            self._each(claimed, outcome, self._unrescue_one)
            for uuid, failure in outcome.failures.items():
                if not isinstance(failure, NO_ANSWER):
                    outcome.values[uuid] = {"vm_state": vm_states.ERROR}

        return self._operate(UNRESCUE, instances, request_id, act)

    def _make_rescue_files(self, row: Instance, image: str, image_format: str) -> Mapping[str, Any]:
        self._hypervisor.require_no_saved_memory(row.uuid)
        files = self._files
        files.make(row.uuid)
        # An earlier try may have defined the rescue already; the domain as it was is on file then.
        if not self._hypervisor.is_rescue(row.uuid):
            definition = self._hypervisor.definition(row.uuid)
            files.write(row.uuid, UNRESCUE_XML, definition.encode())
        # A rescue disk that is there is of an earlier try, maybe of another image; a guest that
        # runs from it keeps what it has open.
        partial = f"{RESCUE_DISK}.part"
        files.unlink(row.uuid, partial)
        qemu_img.convert(image, image_format, files.file_path(row.uuid, partial))
        files.complete(row.uuid, partial, RESCUE_DISK)
        return {}

    def _boot_rescue(self, row: Instance) -> Mapping[str, Any]:
        try:
            if not self._hypervisor.is_rescue(row.uuid):
                path = self._files.file_path(row.uuid, RESCUE_DISK)
                self._hypervisor.define_rescue(row.uuid, path)
            self._hypervisor.start(row.uuid)
        except HypervisorUnavailable:
            # It may start yet.
            raise
        except HypervisorError:
            self._give_up(row.uuid)
            raise
        return {
            "vm_state": vm_states.RESCUED,
            "power_state": power_state.RUNNING,
            "launched_at": self._clock.utcnow(),
        }

    def _give_up(self, uuid: str) -> None:
        """Let a guest that did not boot from the rescue disk be as it was, but off."""
        files = self._files
        saved = files.read(uuid, UNRESCUE_XML)
        if saved is not None and self._hypervisor.power_state(uuid) in power_state.OFF:
            self._hypervisor.define_as(uuid, saved.decode())
            _remove_rescue_files(files, uuid)

    def _unrescue_one(self, row: Instance) -> Mapping[str, Any]:
        files = self._files
        saved = files.read(row.uuid, UNRESCUE_XML)
        if self._is_rescue(row.uuid):
            if saved is None and not files.names():
                raise StorageUnavailable(
                    f"{files.path} has nothing of any instance. Is the storage of [compute] "
                    "instances_path mounted?"
                )
            if saved is None:
                raise StorageError(
                    f"{files.file_path(row.uuid, UNRESCUE_XML)} is missing, so how the domain was "
                    "before its rescue is not known. Define it by hand, then reset the instance."
                )
            self._hypervisor.power_off(row.uuid)
            self._hypervisor.define_as(row.uuid, saved.decode())
        if self._hypervisor.power_state(row.uuid) != power_state.RUNNING:
            # What memory is saved of it may be the rescue system's.
            self._hypervisor.start(row.uuid, fresh=True)
        state = self._hypervisor.power_state(row.uuid)
        if state != power_state.RUNNING:
            raise HypervisorError(f"{row.uuid} did not start: it is {power_state.name(state)}")
        _remove_rescue_files(files, row.uuid)
        return {"vm_state": vm_states.ACTIVE, "power_state": state}

    def _is_rescue(self, uuid: str) -> bool:
        try:
            return bool(self._hypervisor.is_rescue(uuid))
        except DomainNotFound:
            # Somebody undefined it; it is defined anew from what was kept.
            return True


def _remove_rescue_files(files: InstancesPath, uuid: str) -> None:
    """Remove what the rescue needed, and last of all what an unrescue needs."""
    for name in files.files(uuid):
        if name.endswith(RESCUE_SUFFIX):
            files.unlink(uuid, name)
    files.unlink(uuid, UNRESCUE_XML)
