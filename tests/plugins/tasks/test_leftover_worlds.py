# SPDX-License-Identifier: Apache-2.0
"""A thousand generated hosts for the tasks that remove files: none in use, all garbage soon."""

import datetime
import os
import shutil

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cepheid_plugins.compute.sightings import FILE_NAME
from cepheid_plugins.database import models
from cepheid_plugins.storage.instances_path import InstancesPath
from cepheid_plugins.tasks.cleanup_incomplete_migrations import CleanupIncompleteMigrations
from cepheid_plugins.tasks.run_pending_deletes import RunPendingDeletes
from tests.images import disk_xml, with_disks
from tests.leftover_worlds import build, hold, leftover_world
from tests.worlds import uuid_of

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

RUNNING, SHUTDOWN = 1, 4
PASSES = 4
SUFFIXES = ("", "_resize", "_del", "_part")
PRECIOUS = "precious"

#: The rows that instances have: whether they are deleted, their columns, and their migration's.
ROWS = {
    "alive": (False, {"host": "host1"}, None),
    "soft-deleted": (False, {"host": "host1", "vm_state": "soft-delete"}, None),
    "alive elsewhere": (False, {"host": "host2"}, {"status": "error"}),
    "incoming": (False, {"host": "host2", "task_state": "migrating"}, {"status": "running"}),
    "none": None,
    "deleted": (True, {"host": "host1"}, None),
    "deleted, said to be clean": (True, {"host": "host1", "cleaned": 1}, None),
    "deleted, clean is NULL": (True, {"host": "host1", "cleaned": None}, None),
    "deleted, moving": (True, {"host": "host1"}, {"status": "migrating"}),
    "deleted elsewhere, failed": (True, {"host": "host2"}, {"status": "error", "deleted": 1}),
    "deleted elsewhere, rolled back": (True, {"host": "host2"}, {"status": "failed"}),
    "deleted without a host": (True, {"host": None}, {"status": "error"}),
    "deleted elsewhere": (True, {"host": "host2"}, None),
    "in another cell": (True, {"host": "host1", "hidden": True}, {"status": "error"}),
}

#: Those of which nobody needs a file any more, unless somebody uses it.
GARBAGE = {
    "deleted", "deleted, said to be clean", "deleted, clean is NULL", "deleted elsewhere, failed",
    "deleted elsewhere, rolled back", "deleted without a host",
}  # fmt: skip

#: Who uses an instance's files.
USERS = ("nobody", "a domain", "a process", "another domain", "somebody who comes in between")

FAULTS = ("none", "empty database", "live rows vanish", "renamed host", "another hypervisor",
          "no answer", "no storage")  # fmt: skip


@st.composite
def hosts(draw):
    size = draw(st.integers(1, 6))
    several = {"min_size": size, "max_size": size}
    return {
        "rows": draw(st.lists(st.sampled_from(sorted(ROWS)), **several)),
        "suffixes": draw(st.lists(st.sets(st.sampled_from(SUFFIXES)), **several)),
        "users": draw(st.lists(st.sampled_from(USERS), **several)),
        "states": draw(st.lists(st.sampled_from([RUNNING, SHUTDOWN]), **several)),
        "attempts": draw(st.lists(st.sampled_from([None, "0", "1", "6"]), **several)),
        "fault": draw(st.sampled_from(FAULTS)),
        "first": draw(st.integers(0, 1)),
        "order": draw(st.booleans()),
    }


HOUR = datetime.timedelta(hours=1)


def row(number, is_deleted, columns, now=None):
    """Return what is written of an instance, all columns of every one."""
    return {
        "id": number + 1,
        "uuid": uuid_of(number),
        "display_name": f"guest-{number}",
        "task_state": None,
        "vm_state": "deleted" if is_deleted else "active",
        "deleted": number + 1 if is_deleted else 0,
        "deleted_at": now - HOUR if is_deleted else None,
        "cleaned": 0,
        "hidden": False,
        **columns,
    }


class Host:
    """One agent whose world is made anew for each example."""

    def __init__(self, path):
        self.world = leftover_world(path)
        self.tasks = [
            build(self.world, factory)
            for factory in (RunPendingDeletes, CleanupIncompleteMigrations)
        ]
        self.instances = path / "instances"

    def make(self, example):
        world = self.world
        (world.path / FILE_NAME).unlink(missing_ok=True)
        for folder in ("instances", "proc", "storage"):
            shutil.rmtree(world.path / folder, ignore_errors=True)
            (world.path / folder).mkdir()
        (world.path / "storage").rmdir()
        world.hypervisor.__init__()
        self.tasks[0].agent.host = "host1"
        (self.instances / PRECIOUS).mkdir()
        (self.instances / PRECIOUS / "data").write_text("data")
        self.late = {}
        self.write_rows(example)
        for number in range(len(example["rows"])):
            self.make_files(number, example)

    def make_files(self, number, example):
        world, uuid = self.world, uuid_of(number)
        there = [self.instances / f"{uuid}{suffix}" for suffix in example["suffixes"][number]]
        for directory in there:
            (directory / "inner").mkdir(parents=True)
            (directory / "disk").write_text("disk")
            (directory / "inner" / "link").symlink_to(self.instances / PRECIOUS)
        user = example["users"][number]
        if user == "a domain":
            world.hypervisor.states[uuid] = example["states"][number]
            world.hypervisor.names[uuid] = f"guest-{number}"
        elif user == "a process" and there:
            hold(world, there[0] / "disk", pid=4000 + number)
        elif user == "another domain" and there:
            helper = uuid_of(80 + number)
            world.hypervisor.states[helper] = example["states"][number]
            world.hypervisor.names[helper] = f"helper-{number}"
            world.hypervisor.definitions[helper] = with_disks(
                helper, f"helper-{number}", disk_xml(there[0] / "disk")
            )
        elif user == "somebody who comes in between" and there:
            self.late[uuid] = 4000 + number

    def write_rows(self, example):
        instances, migrations, counts = [row(99, False, {"host": "host1"})], [], []
        now = self.world.clock.utcnow()
        for number, kind in enumerate(example["rows"]):
            if ROWS[kind] is None:
                continue
            is_deleted, columns, migration = ROWS[kind]
            instances.append(row(number, is_deleted, columns, now))
            if migration is not None:
                values = {"source_compute": "host2", "dest_compute": "host1", "deleted": 0}
                migrations.append({"instance_uuid": uuid_of(number), **values, **migration})
            if example["attempts"][number] is not None:
                counts.append(
                    {"instance_uuid": uuid_of(number), "key": "clean_attempts", "deleted": 1,
                     "value": example["attempts"][number], "created_at": now - 2 * HOUR}
                )  # fmt: skip
        with self.world.engine.begin() as connection:
            for table, rows in (
                (models.instances, instances),
                (models.migrations, migrations),
                (models.instance_system_metadata, counts),
            ):
                connection.execute(sa.delete(table))
                if rows:
                    connection.execute(sa.insert(table), rows)

    def break_down(self, fault):
        world = self.world
        if fault in ("empty database", "live rows vanish"):
            gone = sa.delete(models.instances)
            if fault == "live rows vanish":
                gone = gone.where(models.instances.c.deleted == 0)
            with world.engine.begin() as connection:
                connection.execute(gone)
        elif fault == "renamed host":
            self.tasks[0].agent.host = "host9"
        elif fault == "another hypervisor":
            world.hypervisor.system_uuid = "another machine"
        elif fault == "no answer":
            world.hypervisor.available = False
        elif fault == "no storage":
            self.instances.rename(world.path / "storage")

    def come_in_between(self, files, uuid, moved):
        """Open a disk in the moment when it has been set aside."""
        if uuid in self.late:
            aside = self.instances / f"{uuid}_del"
            disks = sorted(aside.glob("**/disk"))
            if disks:
                hold(self.world, disks[0], pid=self.late.pop(uuid))

    def there(self):
        """Return all files that are here, whatever directory of an instance they are in."""
        found = {}
        root = self.instances if self.instances.exists() else self.world.path / "storage"
        for name in os.listdir(root):
            if name != PRECIOUS:
                found.setdefault(name[:36], []).append(name)
        return found, root


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("leftovers"))
    set_aside = InstancesPath.set_aside

    def then_come_in(files, uuid):
        moved = set_aside(files, uuid)
        host.come_in_between(files, uuid, moved)
        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstancesPath, "set_aside", then_come_in)
        yield host
    host.world.close()


@settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(example=hosts())
def test_nothing_in_use_is_ever_removed_and_all_garbage_goes_in_time(host, example):
    host.make(example)
    before, _ = host.there()
    tasks = host.tasks if example["order"] else host.tasks[::-1]
    late = dict(host.late)
    for number in range(PASSES):
        if number == example["first"] + 1:
            host.break_down(example["fault"])
        for task in tasks:
            run = host.world.agent.run(task)
            assert example["fault"] != "none" or run.outcome in ("ok", "partial"), run.error
        host.world.clock.sleep(300)
    after, root = host.there()
    assert (root / PRECIOUS / "data").read_text() == "data"
    for number, kind in enumerate(example["rows"]):
        uuid, user = uuid_of(number), example["users"][number]
        is_used = user != "nobody" and bool(before.get(uuid))
        if kind not in GARBAGE or (is_used and uuid not in late):
            assert sorted(after.get(uuid, [])) == sorted(before.get(uuid, [])), (kind, user)
        elif is_used:
            # Whether it was set aside at all or not: who came in still has all of it.
            assert uuid in host.late or sorted(after[uuid]) == sorted(before[uuid]), (kind, user)
        elif example["fault"] == "none":
            assert uuid not in after, (kind, user)
