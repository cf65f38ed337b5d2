# SPDX-License-Identifier: Apache-2.0
"""Hosts with an image cache, for tests: files of given ages, disks that stand on them."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cepheid.task import Task
from cepheid_plugins.compute import opts as compute_opts
from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.records import NewInstance
from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import ASIDE
from cepheid_plugins.tasks.run_image_cache_manager_pass import RunImageCacheManagerPass
from tests.fakes import definition_of
from tests.worlds import World, fake_world, uuid_of

HOUR, DAY = 3600, 86400

#: What the reference calls image 1.
IMAGE = "fd0cb2f1-8375-44c9-b1f4-3e1f4c4a8ef0"
ORIGINAL = "0d5e6b61602d758984b3bf038267614d6016eb2a"
OTHER_IMAGE = "7ab4a1d2-5f0e-4dd4-8ab1-0e5f6a1e8a10"
OTHER = image_names.fingerprint(OTHER_IMAGE)


def qemu_img(*words: Any) -> None:
    """Run qemu-img."""
    subprocess.run(["qemu-img", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)


class ImageHost:
    """A host with fake domains, a real inventory, and real files.

    :param numbers: instances that are active here, with a domain each and without a disk
    """

    def __init__(self, path: Path, numbers: Iterable[int] = (), **options: Any) -> None:
        self.world: World = fake_world(path, dict.fromkeys(numbers, 1), **options)
        self.world.agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
        self.instances = path / "instances"
        self.base = self.instances / "_base"
        if not self.base.exists():
            self.base.mkdir(parents=True, exist_ok=True)
            (self.instances / "locks").mkdir()
        self.proc = path / "proc"
        (self.proc / "1" / "fd").mkdir(parents=True, exist_ok=True)
        (self.proc / "locks").touch()
        self.task = self.make_task()
        for number in numbers:
            self.add(number)

    def make_task(self) -> Task:
        """Make the task as a new process would."""
        task = self.world.agent.build(RunImageCacheManagerPass)
        task.proc = str(self.proc)  # type: ignore[attr-defined]
        return task

    @property
    def now(self) -> float:
        """The host's time in epoch seconds."""
        return self.world.clock.utcnow().replace(tzinfo=datetime.UTC).timestamp()

    def add(self, number: int, flavor: dict[str, int] | None = None, **columns: Any) -> str:
        """Insert an instance with a flavor that has neither swap nor ephemeral disk."""
        uuid = self.world.add(number, **columns)
        new = NewInstance(uuid, f"guest-{number}", "host1", "node1", "active", 1, 1, 128, 0)
        text = json.loads(flavors.of_new(new))
        text["cur"]["nova_object.data"].update(flavor or {})
        with self.world.engine.begin() as connection:
            connection.execute(
                sa.insert(models.instance_extra).values(
                    flavor=json.dumps(text), instance_uuid=uuid, deleted=0
                )
            )
        return uuid

    def add_many(self, numbers: Sequence[int], **columns: Any) -> None:
        """Insert alike instances that have a flavor each."""
        self.world.add_many(numbers, **columns)
        new = NewInstance("", "", "host1", "node1", "active", 1, 1, 128, 0)
        with self.world.engine.begin() as connection:
            connection.execute(
                sa.insert(models.instance_extra),
                [
                    {"instance_uuid": uuid_of(n), "flavor": flavors.of_new(new), "deleted": 0}
                    for n in numbers
                ],
            )

    def add_blank_disk(self, number: int, size: int, guest_format: str | None = None) -> None:
        """Insert a disk that was made empty: swap (MiB) or ephemeral (GiB)."""
        with self.world.engine.begin() as connection:
            connection.execute(
                sa.insert(models.block_device_mapping).values(
                    instance_uuid=uuid_of(number), source_type="blank", destination_type="local",
                    guest_format=guest_format, volume_size=size, deleted=0,
                )
            )  # fmt: skip

    def file(self, name: str, age: float = 2 * DAY, content: str = "image") -> Path:
        """Make a file in the cache that was last used so many seconds ago."""
        path = self.base / name
        path.write_text(content)
        return self.make_old(path, age)

    def make_old(self, path: Path, age: float = 2 * DAY) -> Path:
        """Let a file have been used last so many seconds ago."""
        os.utime(path, (self.now - age, self.now - age))
        return path

    def disk(
        self, directory: str, backing: Path | str, name: str = "disk", backing_format: str = "raw"
    ) -> Path:
        """Make a qcow2 disk that stands on another file, which needs not be there."""
        path = self.instances / directory / name
        path.parent.mkdir(exist_ok=True)
        known = backing_format or "raw"
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", known, path, "1M")
        if not backing_format:
            # As older programs made them: the extension becomes one that nobody knows.
            content = path.read_bytes()
            path.write_bytes(content.replace(b"\xe2\x79\x2a\xca", b"\xe2\x79\x2a\xcb", 1))
        return path

    def define(self, number: int, *disks: str, running: bool = True) -> str:
        """Define a domain whose XML has these disks."""
        uuid = uuid_of(number)
        hypervisor = self.world.hypervisor
        hypervisor.states[uuid] = 1 if running else 4
        hypervisor.names[uuid] = f"guest-{number}"
        hypervisor.definitions[uuid] = with_disks(uuid, f"guest-{number}", *disks)
        return uuid

    def run(self, dry_run: bool | None = None) -> Any:
        """Run the task once."""
        return self.world.agent.run(self.task, dry_run)

    def passes(self, count: int = 3, seconds: float = DAY + HOUR) -> list[Any]:
        """Run the task several times, with the time that is between."""
        runs = []
        for _ in range(count):
            runs.append(self.run())
            self.world.clock.sleep(seconds)
        return runs

    def names(self) -> list[str]:
        """Return what is in its place in the cache."""
        return sorted(path.name for path in self.base.iterdir() if path.name != ASIDE)

    def aside(self) -> list[str]:
        """Return what was set aside."""
        directory = self.base / ASIDE
        if not directory.exists():
            return []
        return sorted(path.name.partition("@")[0] for path in directory.iterdir())

    def age(self, name: str) -> float:
        """Return how long ago a file was used last, in seconds."""
        return self.now - (self.base / name).stat().st_mtime

    def close(self) -> None:
        """Close the agent."""
        self.world.close()


def disk_xml(path: Any, image_format: str = "qcow2") -> str:
    """Return a disk for a definition."""
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{image_format}'/>"
        f"<source file='{path}'/><target dev='vda' bus='virtio'/></disk>"
    )


def with_disks(uuid: str, name: str, *disks: str) -> str:
    """Return a definition with these disks."""
    return definition_of(uuid, name).replace("<devices/>", f"<devices>{''.join(disks)}</devices>")
