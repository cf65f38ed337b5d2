# SPDX-License-Identifier: Apache-2.0
"""A thousand generated storages: nothing in use is ever removed, and real garbage goes in time."""

import json
import os
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cepheid_plugins.database import models
from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import ASIDE
from cepheid_plugins.storage.storage_users import MEMORY, REGISTRY
from tests.images import DAY, HOUR, ImageHost, disk_xml, with_disks
from tests.worlds import uuid_of

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

IMAGES = [f"image-{number}" for number in range(4)]
FILES = [
    *(image_names.fingerprint(image) + suffix for image in IMAGES for suffix in ("", "_sm", "_20")),
    "swap_64",
    "swap_128",
    "ephemeral_1_abcdefg",
    "ephemeral_2_abcdefg",
]
#: What is never a file of the cache, however old.
OTHERS = ["README", f"{'x' * 40}", f"{image_names.fingerprint('y')}.part", "swap_x"]

#: In which way a file is used.
USES = (
    "image", "kernel", "swap", "ephemeral", "flavor", "silent host", "disk", "rescue", "eph1",
    "resize directory", "unknown directory", "two levels", "domain", "domain elsewhere",
    "saved", "open",
)  # fmt: skip
DISKS = {
    "disk": ("{uuid}", "disk"),
    "rescue": ("{uuid}", "disk.rescue"),
    "eph1": ("{uuid}", "disk.eph1"),
    "resize directory": ("{uuid}_resize", "disk"),
    "unknown directory": ("instance-0000001{number}", "disk.local"),
}

FAULTS = ("none", "broken disk", "registry", "processes", "hypervisor", "empty inventory")
PASSES = 5


def qcow2(backing, backing_format=b"raw"):
    """Return the beginning of a qcow2 image that qemu-img takes. Source: docs/interop/qcow2.txt."""
    name = os.fsencode(backing)
    extension = struct.pack(">II8s", 0xE2792ACA, len(backing_format), backing_format)
    end = struct.pack(">II", 0, 0)
    offset = 104 + len(extension) + len(end)
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, offset, len(name), 16, 1 << 20, 0, 1, 0x30000,
        0x10000, 1, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    content = header + extension + end + name
    return (
        content.ljust(0x10000, b"\0")
        + struct.pack(">Q", 0x20000).ljust(0x10000, b"\0")
        + bytes(0x20000)
    )


@st.composite
def storages(draw):
    ages = draw(st.lists(st.sampled_from([0, 1800, 2 * HOUR, 2 * DAY]), min_size=len(FILES),
                         max_size=len(FILES)))  # fmt: skip
    present = draw(st.lists(st.booleans(), min_size=len(FILES), max_size=len(FILES)))
    uses = draw(
        st.lists(
            st.tuples(st.sampled_from(USES), st.sampled_from(FILES), st.integers(0, PASSES - 1)),
            max_size=6,
        )
    )
    fault = draw(st.sampled_from(FAULTS))
    return ages, present, uses, fault, draw(st.integers(0, PASSES - 1))


class Storage:
    """One agent whose storage is made anew for each example."""

    def __init__(self, path):
        self.host = ImageHost(path)
        self.host.world.agent.set(self.host.task.name, max_changes=0)

    def make(self, ages, present):
        host = self.host
        hypervisor = host.world.hypervisor
        hypervisor.__init__()
        with host.world.engine.begin() as connection:
            for table in (models.instances, models.instance_extra, models.block_device_mapping):
                connection.execute(sa.delete(table))
        for directory in (host.instances, host.proc, host.world.path / "vms"):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        (host.world.path / "cepheid-sightings.json").unlink(missing_ok=True)
        host.base.mkdir()
        (host.proc / "1" / "fd").mkdir(parents=True)
        (host.proc / "locks").touch()
        host.add(99, image_ref="")
        host.define(99)
        self.contents = {}
        for name, age, is_there in zip(FILES, ages, present, strict=True):
            if is_there:
                host.file(name, age, content=name)
                self.contents[name] = name.encode()
        for name in OTHERS:
            host.file(name, 30 * DAY)

    def use(self, how, name, number):
        """Let somebody begin to use a file, as they would; return the files that are used so."""
        host, kind = self.host, image_names.kind_of(name)
        path, uuid = host.base / name, uuid_of(number)
        fingerprint = image_names.image_of(name)
        image = next((i for i in IMAGES if image_names.fingerprint(i) == fingerprint), None)
        if how in ("image", "kernel", "silent host"):
            if image is None:
                return set()
            column = "kernel_id" if how == "kernel" else "image_ref"
            where = "host2" if how == "silent host" else "host1"
            if where == "host2":
                file = host.instances / REGISTRY
                known = json.loads(file.read_text()) if file.exists() else {}
                file.write_text(json.dumps({**known, "host2": host.now - 40 * DAY}))
            host.add(number, host=where, **{column: image})
            return {file for file in FILES if file.startswith(fingerprint)}
        if how in ("swap", "ephemeral", "flavor"):
            return self.use_size(how, name, kind, number)
        if how in DISKS:
            where, disk = (part.format(uuid=uuid, number=number) for part in DISKS[how])
            self.disk(where, disk, path)
        elif how == "two levels":
            middle = host.base / f"{image_names.fingerprint(f'middle {number}')}_20"
            middle.write_bytes(qcow2(path))
            host.make_old(middle)
            self.contents[middle.name] = middle.read_bytes()
            self.disk(uuid, "disk", middle, b"qcow2")
            return {name, middle.name}
        elif how == "domain":
            host.define(number, disk_xml(path, "raw"))
        elif how == "domain elsewhere":
            disk = host.world.path / "vms" / f"{number}.qcow2"
            disk.write_bytes(qcow2(path))
            host.define(number, disk_xml(disk), running=False)
        elif how == "saved":
            host.define(number)
            host.world.hypervisor.other_definitions[uuid] = [
                with_disks(uuid, "saved", disk_xml(path, "raw"))
            ]
        elif path.exists():
            directory = host.proc / str(1000 + number) / "fd"
            directory.mkdir(parents=True)
            (directory / "3").symlink_to(path)
        else:
            return set()
        return {name}

    def use_size(self, how, name, kind, number):
        if kind not in ("swap", "ephemeral") or how not in (kind, "flavor"):
            return set()
        size = image_names.size_of(name)
        if how == "flavor":
            self.host.add(number, {"swap" if kind == "swap" else "ephemeral_gb": size})
        else:
            self.host.add(number)
            self.host.add_blank_disk(number, size, "swap" if kind == "swap" else "ext4")
        return {name}

    def disk(self, directory, name, path, backing_format=b"raw"):
        (self.host.instances / directory).mkdir(exist_ok=True)
        (self.host.instances / directory / name).write_bytes(qcow2(path, backing_format))

    def break_down(self, fault):
        """Let something be unreadable; return what repairs it."""
        host = self.host
        if fault == "broken disk":
            broken = host.instances / uuid_of(98)
            broken.mkdir()
            (broken / "disk").write_bytes(b"QFI\xfb" + b"\xff" * 600)
            return lambda: shutil.rmtree(broken)
        if fault == "registry":
            file = host.instances / MEMORY
            before = file.read_text() if file.exists() else "{}"
            file.write_text("{")
            return lambda: file.write_text(before)
        if fault == "processes":
            (host.proc / "1").rename(host.proc / "one")
            return lambda: (host.proc / "one").rename(host.proc / "1")
        if fault == "hypervisor":
            host.world.hypervisor.available = False
            return lambda: setattr(host.world.hypervisor, "available", True)
        if fault == "empty inventory":
            with host.world.engine.begin() as connection:
                rows = connection.execute(sa.select(models.instances)).mappings().all()
                connection.execute(sa.delete(models.instances))
            return lambda: self.insert(rows)
        return lambda: None

    def insert(self, rows):
        with self.host.world.engine.begin() as connection:
            connection.execute(sa.insert(models.instances), [dict(row) for row in rows])

    def has(self, name):
        """Tell whether a file is in its place, or aside, with what was in it."""
        paths = [self.host.base / name, *(self.host.base / ASIDE).glob(f"{name}@*")]
        content = self.contents.get(name)
        return any(p.exists() and p.read_bytes() == content for p in paths)


@pytest.fixture(scope="module")
def storage():
    # In memory where there is such a directory: each example writes much, and nothing to keep.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        storage = Storage(Path(directory))
        yield storage
        storage.host.close()


@settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(example=storages())
def test_nothing_in_use_is_ever_removed_and_real_garbage_goes_in_time(storage, example):
    ages, present, uses, fault, broken_pass = example
    storage.make(ages, present)
    host, used = storage.host, set()
    for number in range(PASSES):
        for index, (how, name, since) in enumerate(uses):
            if since == number:
                # What is gone by then is nobody's loss any more.
                used |= {file for file in storage.use(how, name, index + 1) if storage.has(file)}
        repair = storage.break_down(fault) if number == broken_pass else None
        run = host.run()
        if repair is not None:
            assert fault == "none" or not {"set_aside", "delete"} & {
                change.kind for change in run.changes if change.outcome == "done"
            }
            repair()
        for name in used:
            assert storage.has(name), (name, uses)
        if repair is None:
            assert run.outcome == "ok", run.error
            assert used <= set(host.names())
        host.world.clock.sleep(DAY)
    assert set(OTHERS) <= set(host.names())
    # Old when it began, or by now; set aside; deleted: three passes are enough, and a fault one.
    if all(since == 0 for _, _, since in uses) and fault == "none":
        assert set(host.names()) - set(OTHERS) == used
        assert host.aside() == []
