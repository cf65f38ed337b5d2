# SPDX-License-Identifier: Apache-2.0
"""What is put by of shelved instances, and whether that is all that would be lost here.

In ``[compute] shelved_path`` there is a directory for each instance: its domain's definition, and
each disk as qcow2, and so what lies in the instance's directory for its CD-ROM and floppy drives.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence

from cepheid_plugins.compute.operations import NotPossible
from cepheid_plugins.hypervisor.driver import DiskFile, DomainNotFound, Hypervisor
from cepheid_plugins.storage import qemu_img
from cepheid_plugins.storage.instances_path import InstancesPath

DEFINITION = "domain.xml"

#: What the hypervisor makes anew when the guest is started, or nobody needs any more.
MADE_ANEW = re.compile(r"console\.log(\.\d+)?|disk\.info|libvirt\.xml")

#: What Nova makes anew of the image and the flavor when it unshelves; ephemeral disks and swap are
#: empty then. Source: Nova's libvirt driver.
MADE_BY_NOVA = re.compile(r"disk\.(config|swap|local|eph.*)|kernel|ramdisk")
#: What Nova's image is of.
ROOT_DISK = "disk"

#: Seconds by which clocks of storage may differ.
SKEW_SECONDS = 10


class Shelf:
    """The copies of shelved instances, beside the files that they are of."""

    def __init__(self, hypervisor: Hypervisor, files: InstancesPath, copies: InstancesPath) -> None:
        self._hypervisor = hypervisor
        self._files = files
        self.copies = copies

    def require_possible(self, uuid: str) -> None:
        """See that copies hold all that an instance's files do.

        :raises CepheidError: they cannot
        """
        self._hypervisor.require_no_saved_memory(uuid)
        for drive in self.drives(uuid, self._hypervisor.definition(uuid)):
            if not self._files.holds(uuid, drive.path):
                continue  # it stays where it is
            if qemu_img.info(drive.path, drive.format).get("snapshots"):
                raise NotPossible(
                    f"its disk {drive.path} has snapshots inside, which a copy would not have. "
                    "Look at 'qemu-img snapshot -l', and delete them first."
                )

    def put_by(self, uuid: str) -> None:
        """Copy an instance's definition and disks; all or nothing."""
        copies, partial = self.copies, f"{uuid}_part"
        definition = self._hypervisor.definition(uuid)
        copies.remove(partial)
        copies.make(partial)
        copies.write(partial, DEFINITION, definition.encode())
        for drive in self.drives(uuid, definition):
            qemu_img.convert(
                drive.path, drive.format, copies.file_path(partial, copy_of(drive.target))
            )
        # What is there already is of an earlier try; the guest may have gone on since.
        copies.remove(uuid)
        copies.rename(partial, uuid)

    def drives(self, uuid: str, definition: str) -> list[DiskFile]:
        """Return the drives that are put by: what is in other people's CD-ROMs stays theirs."""
        return [
            drive
            for drive in self._hypervisor.drives(definition)
            if not drive.removable or self._files.holds(uuid, drive.path)
        ]

    def require_put_by(self, uuid: str) -> None:
        """See that all files of an instance are put by here, as they are.

        :raises NotPossible: one is not
        """
        kept = self.copies.read(uuid, DEFINITION)
        if kept is None:
            raise self._not_here(uuid)
        drives = self.drives(uuid, kept.decode())
        if not {copy_of(drive.target) for drive in drives}.issubset(self.copies.files(uuid)):
            raise self._not_here(uuid)
        now = self._definition(uuid)
        self._require_no_tpm(now)
        if now is not None and self.drives(uuid, now) != drives:
            raise NotPossible(
                "its domain has other disks than those that are put by; they are kept here"
            )
        names = [
            os.path.basename(drive.path) for drive in drives if self._files.holds(uuid, drive.path)
        ]
        self._require_nothing_else(uuid, names)
        for drive in drives:
            if self._files.holds(uuid, drive.path):
                copied_at = self.copies.modified_at(uuid, copy_of(drive.target))
                self._require_unchanged(uuid, os.path.basename(drive.path), copied_at)

    def require_image(self, uuid: str, shelved_at: datetime.datetime | None) -> None:
        """See that Nova has all files of an instance in its image, or makes them anew.

        :param shelved_at: when its image was complete; None where that is not known
        :raises NotPossible: it would lose one
        """
        self._require_no_tpm(self._definition(uuid))
        names = [name for name in self._files.files(uuid) if MADE_BY_NOVA.fullmatch(name)]
        self._require_nothing_else(uuid, [ROOT_DISK, *names])
        if shelved_at is not None:
            at = shelved_at.replace(tzinfo=datetime.UTC).timestamp()
            self._require_unchanged(uuid, ROOT_DISK, at)

    def require_volume(self, uuid: str) -> None:
        """See that an instance whose root disk is a volume has no disk here.

        :raises NotPossible: it would lose one
        """
        self._require_no_tpm(self._definition(uuid))
        names = [name for name in self._files.files(uuid) if MADE_BY_NOVA.fullmatch(name)]
        self._require_nothing_else(uuid, names)

    def _definition(self, uuid: str) -> str | None:
        try:
            return self._hypervisor.definition(uuid)
        except DomainNotFound:
            # An offload that was interrupted has looked before.
            return None

    def _not_here(self, uuid: str) -> NotPossible:
        return NotPossible(f"its disks are not in {self.copies.path}/{uuid}; they are kept here")

    def _require_nothing_else(self, uuid: str, names: Sequence[str]) -> None:
        allowed = {*names, *(f"{name}.part" for name in names)}
        for name in self._files.files(uuid):
            if name not in allowed and not MADE_ANEW.fullmatch(name):
                raise NotPossible(
                    f"of {self._files.path}/{uuid}/{name} there is no copy; its files are kept "
                    "here. Move it away, if you want to keep it, or remove it."
                )

    def _require_unchanged(self, uuid: str, name: str, copied_at: float | None) -> None:
        written_at = self._files.modified_at(uuid, name)
        if written_at is None or copied_at is None or written_at <= copied_at + SKEW_SECONDS:
            return
        raise NotPossible(
            f"{self._files.path}/{uuid}/{name} was written to after its copy was made; it is kept "
            "here. Unshelve the instance, which goes on with it, and shelve it again."
        )

    def _require_no_tpm(self, definition: str | None) -> None:
        if definition is not None and self._hypervisor.has_tpm_state(definition):
            raise NotPossible("what its TPM holds would be lost with its domain; it is kept here")


def copy_of(target: str) -> str:
    """Return what the copy of a drive is called."""
    return f"{target}.qcow2"


def shelved_at(text: str | None) -> datetime.datetime:
    """Return when an instance was shelved: naive UTC, as the time is written.

    :param text: ISO 8601, with a fraction of a second or, as Python writes none that is 0, without
    :raises ValueError: there is none, or it is no time
    """
    if not text:
        raise ValueError("its system metadata has no shelved_at, so its age is not known")
    try:
        then = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"its shelved_at is no time: {text!r}") from None
    if then.tzinfo is not None:
        then = then.astimezone(datetime.UTC).replace(tzinfo=None)
    return then
