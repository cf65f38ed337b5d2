# SPDX-License-Identifier: Apache-2.0
"""Hosts of real guests whose disks are where Nova has them, and looks at such disks."""

import contextlib
import json
import shutil
import sqlite3
import subprocess

from lxml import etree

from tests.functional.agents import Installation

SETTINGS = """
[hypervisor]
uri = {uri}
[compute]
instances_path = {path}/instances
shelved_path = {path}/shelved
shutdown_timeout = {shutdown_timeout}
"""

#: With it, shelving does not offload at once.
NO_OFFLOAD = "[poll_shelved_instances]\nshelved_offload_time = -1\n"


class DiskHost:
    """A host whose guests' files are where Nova has them.

    :param shutdown_timeout: seconds; the guests have no system, so they never follow
    :param settings: further lines of the configuration
    """

    def __init__(self, libvirtd, path, shutdown_timeout=0, settings=""):
        self.libvirtd = libvirtd
        self.instances = libvirtd.path / "instances"
        self.shelved = libvirtd.path / "shelved"
        for directory in (self.instances, self.shelved):
            directory.mkdir()
            libvirtd.give_away(directory)
        self.image = libvirtd.path / "rescue.img"
        libvirtd.make_disk(self.image)
        common = SETTINGS.format(
            uri=libvirtd.uri, path=libvirtd.path, shutdown_timeout=shutdown_timeout
        )
        self.installation = Installation(path, common + settings)
        self.installation.run("db", "sync")
        self.connection = libvirtd.connect()

    def add(self, name, **options):
        """Start a guest whose disk holds its own name, and adopt it; return its uuid."""
        uuid = self.libvirtd.add_guest(name, start=False, instances_path=self.instances, **options)
        write_pattern(self.disk(uuid), name)
        if not options:
            self.domain(uuid).create()
        self.installation.run("instance", "adopt", f"cepheid-test-{name}")
        return uuid

    def run(self, *words):
        """Run ``cepheid instance`` and see that it succeeds."""
        rows = self.installation.rows("instance", *words)
        assert {row["Result"] for row in rows} == {"done"}

    def domain(self, uuid):
        return self.connection.lookupByUUIDString(uuid)

    def domains(self):
        return {domain.UUIDString() for domain in self.connection.listAllDomains()}

    def disk(self, uuid):
        return self.instances / uuid / "disk"

    def files(self, uuid):
        """Return the names of all that is here of an instance."""
        found = []
        for folder in (self.instances, self.shelved):
            for directory in sorted(folder.glob(f"{uuid}*")):
                found += [
                    f"{folder.name}/{directory.name[36:]}/{p.name}" for p in directory.iterdir()
                ]
        return sorted(found)

    def disks(self, uuid):
        """Return the virtual size of each disk that is here of an instance, the kept ones too."""
        found = {}
        for path in sorted(self.libvirtd.path.glob(f"*/{uuid}*/*")):
            if path.suffix != ".xml":
                found[f"{path.parent.name[36:]}/{path.name}"] = virtual_size(path)
        return found

    def states(self, uuid):
        """Return vm_state, task_state and power state; None once the row is deleted."""
        found = self.execute(
            "SELECT vm_state, task_state, power_state FROM instances"
            " WHERE uuid = ? AND deleted = 0",
            uuid,
        )
        return found[0] if found else None

    def execute(self, statement, *values):
        """Write to the database as somebody else would."""
        path = self.installation.path / "cepheid.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as base, base:
            return base.execute(statement, values).fetchall()

    def close(self):
        self.connection.close()
        self.installation.close()
        self.libvirtd.end_guests()
        for directory in (self.instances, self.shelved):
            shutil.rmtree(directory)


def write_pattern(disk, name):
    """Write something to a disk that no other disk has."""
    qemu_io(disk, f"write -P {sum(name.encode()) % 255 + 1} 0 64k")


def holds_pattern(disk, name):
    return "Pattern verification failed" not in qemu_io(
        disk, f"read -P {sum(name.encode()) % 255 + 1} 0 64k"
    )


def qemu_io(disk, command):
    # The disk of a running guest is locked; it is only looked at.
    words = ["qemu-io", "-f", "qcow2", "-c", command, disk]
    if command.startswith("read"):
        words[1:1] = ["-U", "-r"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert "65536/65536 bytes" in done.stdout, done.stdout + done.stderr
    return done.stdout


def virtual_size(disk):
    words = ["qemu-img", "info", "-U", "--output=json", disk]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)["virtual-size"]


def boot_disk(domain):
    """Return the file that a running guest was booted from."""
    root = etree.fromstring(domain.XMLDesc().encode())
    disks = root.findall("./devices/disk")
    first = min(
        disks, key=lambda d: int(d.find("boot").get("order")) if d.find("boot") is not None else 99
    )
    return first.find("source").get("file")
