# SPDX-License-Identifier: Apache-2.0
"""update_available_resource: the cases of the behaviour reference, on a real inventory."""

import dataclasses
import datetime
import itertools
import json
import os

import pytest
import sqlalchemy as sa

from cepheid import concurrency
from cepheid_plugins.compute import resources
from cepheid_plugins.database import models
from cepheid_plugins.database.records import Move, Occupant, Sizes
from cepheid_plugins.hypervisor.driver import DiskCapacity
from cepheid_plugins.tasks import update_available_resource
from cepheid_plugins.tasks.update_available_resource import UpdateAvailableResource
from tests.worlds import World, fake_world, uuid_of

GIB = 1 << 30
RUNNING, SHUTDOWN = 1, 4

#: A flavor's columns.
TINY = {"memory_mb": 128, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0}


class FixedDisk:
    """os.statvfs of a file system of 6 GiB, of which 5 GiB are free."""

    f_frsize, f_blocks, f_bavail = 4096, 6 * GIB // 4096, 5 * GIB // 4096


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make a world, with instances_path and a disk of 6 GiB, and its task."""
    (tmp_path / "instances").mkdir()
    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: (os.stat(path), statvfs(path), FixedDisk)[2])
    worlds = []

    def make(states=None, **options):
        world = fake_world(tmp_path, states or {}, **options)
        worlds.append(world)
        task = world.agent.build(UpdateAvailableResource)
        if "settings" not in options:
            world.agent.set(task.name, reserved_host_memory_mb=0)
        return world, task

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def made(make):
    return make()


@pytest.fixture
def world(made):
    return made[0]


@pytest.fixture
def task(made):
    return made[1]


def record(world):
    (row,) = world.rows(models.compute_nodes)
    return row


def used(world):
    row = record(world)
    return row.local_gb_used, row.memory_mb_used, row.vcpus_used


def insert(world, table, **values):
    with world.engine.begin() as connection:
        connection.execute(sa.insert(table).values(deleted=0, **values))


def flavor(**sizes):
    data = {**TINY, "swap": 0, **sizes}
    return {"nova_object.name": "Flavor", "nova_object.data": data}


def extra(world, number, cur, old=None, new=None, context=None):
    text = None
    if context is not None:
        text = json.dumps({"nova_object.data": {"migration_id": context}})
    insert(
        world,
        models.instance_extra,
        instance_uuid=uuid_of(number),
        flavor=json.dumps({"cur": cur, "old": old, "new": new}),
        migration_context=text,
    )


def migration(world, number, **values):
    values = {
        "migration_type": "resize",
        "status": "finished",
        "source_compute": "host1",
        "dest_compute": "host2",
        **values,
    }
    insert(world, models.migrations, instance_uuid=uuid_of(number), **values)


# The record.


def test_case_1_an_empty_host_has_nothing_used(world, task):
    run = world.agent.run(task)
    row = record(world)
    assert (run.outcome, run.counters) == ("ok", {"done": 1})
    assert used(world) == (0, 0, 0)
    assert (row.vcpus, row.memory_mb, row.local_gb) == (4, 512, 6)
    assert (row.free_ram_mb, row.free_disk_gb, row.disk_available_least) == (512, 6, 5)
    assert (row.running_vms, row.current_workload) == (0, 0)


def test_case_2_what_is_reserved_is_used(world, task):
    world.agent.set(
        task.name,
        reserved_host_disk_mb=1024,
        reserved_host_memory_mb=512,
        reserved_host_cpus=1,
    )
    world.agent.run(task)
    row = record(world)
    assert used(world) == (1, 512, 1)
    assert (row.free_disk_gb, row.free_ram_mb) == (5, 0)


def test_the_record_says_what_the_host_is(world, task):
    world.agent.run(task)
    row = record(world)
    assert (row.host, row.hypervisor_hostname) == ("host1", "node1")
    assert (row.hypervisor_type, row.hypervisor_version) == ("FAKE", 7002000)
    assert json.loads(row.cpu_info)["model"] == "Nehalem"
    assert json.loads(row.supported_instances) == [["x86_64", "qemu", "hvm"]]
    assert (row.mapped, row.metrics, row.deleted) == (0, "[]", 0)
    assert len(row.uuid) == 36
    assert row.created_at == world.clock.utcnow()


# The instances.


def test_case_3_one_active_instance_counts_and_a_deleted_row_does_not(world, task):
    world.add(1, **TINY)
    world.add(2, **TINY, deleted=2)
    world.agent.run(task)
    assert used(world) == (1, 128, 1)
    assert record(world).running_vms == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"vm_state": "stopped", "power_state": SHUTDOWN},
        {"vm_state": "soft-delete"},
        {"vm_state": "building", "task_state": "spawning"},
        {"vm_state": "shelved"},
        {"vm_state": "shelved_offloaded", "task_state": "spawning"},
        {"hidden": True},
    ],
    ids=str,
)
def test_cases_4_and_6_an_instance_that_is_not_running_counts_the_same(world, task, columns):
    world.add(1, **TINY, **columns)
    world.agent.run(task)
    assert used(world) == (1, 128, 1)


@pytest.mark.parametrize("vm_state", ["deleted", "shelved_offloaded"])
def test_case_6_an_instance_that_has_left_the_host_takes_nothing(world, task, vm_state):
    world.add(1, **TINY, vm_state=vm_state)
    world.agent.run(task)
    assert used(world) == (0, 0, 0)
    assert record(world).running_vms == 0


def test_case_5_a_root_disk_on_a_volume_takes_no_room(world, task):
    volume = {"boot_index": 0, "destination_type": "volume"}
    world.add(1, **{**TINY, "ephemeral_gb": 2})
    insert(world, models.block_device_mapping, instance_uuid=uuid_of(1), **volume)
    world.add(2, **TINY)
    insert(
        world, models.block_device_mapping, instance_uuid=uuid_of(2), **{**volume, "boot_index": 1}
    )
    world.add(3, **TINY)
    insert(
        world,
        models.block_device_mapping,
        instance_uuid=uuid_of(3),
        **{**volume, "destination_type": "local"},
    )
    world.agent.run(task)
    assert used(world) == (2 + 1 + 1, 3 * 128, 3)


def test_instances_of_other_hosts_do_not_count(world, task):
    world.add(1, **TINY, host="host2")
    world.agent.run(task)
    assert used(world) == (0, 0, 0)


def test_the_flavor_goes_before_the_row(world, task):
    world.add(1, **TINY)
    extra(world, 1, flavor(memory_mb=256, vcpus=2, root_gb=3))
    world.agent.run(task)
    assert used(world) == (3, 256, 2)


def test_an_instance_with_two_rows_of_flavors_counts_once(world, task):
    world.add(1, **TINY)
    for _ in range(2):
        extra(world, 1, flavor(memory_mb=256, vcpus=2, root_gb=3))
    world.agent.run(task)
    assert used(world) == (3, 256, 2)
    assert record(world).running_vms == 1


@pytest.mark.parametrize(("swap_mb", "disk_gb"), [(0, 1), (512, 1), (1024, 2), (1536, 2)])
def test_swap_counts_in_whole_gib(world, task, swap_mb, disk_gb):
    world.add(1, **TINY)
    world.add(2, **TINY)
    for number in (1, 2):
        extra(world, number, flavor(swap=swap_mb))
    world.agent.run(task)
    assert used(world)[0] == 2 * disk_gb


def test_what_is_free_may_be_negative(world, task):
    world.add(1, **{**TINY, "memory_mb": 1024, "root_gb": 10})
    world.agent.run(task)
    row = record(world)
    assert (row.free_ram_mb, row.free_disk_gb) == (-512, -4)


def test_an_instance_recorded_at_another_node_counts_and_is_named(world, task, caplog):
    world.add(1, **TINY, node="former")
    world.agent.run(task)
    assert used(world) == (1, 128, 1)
    assert "at node former; its hypervisor is called node1" in caplog.text


# Migrations.


def test_case_7_an_outgoing_resize_keeps_its_old_flavor_here(world, task):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(memory_mb=64, vcpus=2, root_gb=5), new=flavor())
    migration(world, 1)
    world.agent.run(task)
    assert used(world) == (5, 64, 2)
    assert record(world).running_vms == 0


def test_an_incoming_resize_takes_its_new_flavor_here(world, task):
    world.add(1, **TINY, host="host2", task_state="resize_migrating")
    extra(world, 1, flavor(), old=flavor(), new=flavor(memory_mb=200, vcpus=3, root_gb=4))
    migration(world, 1, status="migrating", source_compute="host2", dest_compute="host1")
    world.agent.run(task)
    assert used(world) == (4, 200, 3)


@pytest.mark.parametrize(
    ("columns", "kept_mb"),
    [
        ({"vm_state": "resized"}, 64),
        ({"task_state": "resize_prep"}, 256),
        ({"task_state": "resize_prep", "instance_type_id": 1}, 256),
        ({"task_state": "resize_finish", "instance_type_id": 2}, 64),
    ],
    ids=str,
)
def test_a_resize_on_its_own_host_takes_both_flavors(world, task, columns, kept_mb):
    world.add(1, **TINY, **columns)
    extra(world, 1, flavor(), old=flavor(memory_mb=64), new=flavor(memory_mb=256))
    migration(world, 1, dest_compute="host1", old_instance_type_id=1)
    world.agent.run(task)
    assert used(world)[1] == 128 + kept_mb


def test_case_8_of_two_migrations_the_newest_counts(world, task):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(memory_mb=64), new=flavor(memory_mb=256))
    now = world.clock.utcnow()
    migration(world, 1, updated_at=now)
    migration(
        world,
        1,
        updated_at=now - datetime.timedelta(hours=1),
        source_compute="host2",
        dest_compute="host1",
    )
    world.agent.run(task)
    assert used(world)[1] == 64


def test_case_9_a_stale_migration_becomes_an_error_and_takes_nothing(world, task):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(), new=flavor(), context=77)
    migration(world, 1)
    run = world.agent.run(task)
    assert used(world) == (0, 0, 0)
    (row,) = world.rows(models.migrations)
    assert row.status == "error"
    ended = run.changes[0]
    assert (ended.kind, ended.target, ended.outcome) == ("migration_status", "1", "done")
    assert world.agent.run(task).changes == []


def test_a_migration_that_its_context_knows_is_kept(world, task):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(), new=flavor(), context=1)
    migration(world, 1)
    world.agent.run(task)
    assert used(world) == (1, 128, 1)


def test_a_stale_migration_that_moved_on_meanwhile_is_left_alone(world, task, monkeypatch):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(), new=flavor(), context=77)
    migration(world, 1)
    read = world.database.use_of_host

    def read_then_move_on(host):
        found = read(host)
        with world.engine.begin() as connection:
            connection.execute(sa.update(models.migrations).values(status="confirmed"))
        return found

    monkeypatch.setattr(world.database, "use_of_host", read_then_move_on)
    run = world.agent.run(task)
    assert run.counters["raced"] == 1
    assert world.rows(models.migrations)[0].status == "confirmed"


@pytest.mark.parametrize(
    ("status", "counts"),
    [(s, True) for s in ("accepted", "migrating", "finished", "confirming", "error")]
    + [(s, False) for s in ("confirmed", "reverted", "failed", "completed", "cancelled", "done")],
)
def test_a_migration_counts_until_it_has_ended(world, task, status, counts):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(), new=flavor())
    migration(world, 1, status=status)
    world.agent.run(task)
    assert used(world) == ((1, 128, 1) if counts else (0, 0, 0))


def test_a_live_migration_takes_its_flavor_where_it_goes(world, task):
    world.add(1, **TINY, host="host2", task_state="migrating")
    migration(
        world,
        1,
        migration_type="live-migration",
        status="running",
        source_compute="host2",
        dest_compute="host1",
    )
    world.agent.run(task)
    assert used(world) == (1, 128, 1)


def test_a_live_migration_counts_once_where_it_comes_from(world, task):
    world.add(1, **TINY, task_state="migrating")
    migration(world, 1, migration_type="live-migration", status="running")
    world.agent.run(task)
    assert used(world) == (1, 128, 1)


#: Sizes that tell what was added: powers of two.
PRESENT, OLD, NEW = (Sizes(1, memory_mb, 0, 0, 0) for memory_mb in (1, 2, 4))

#: What an instance takes here in MiB, by where it is (down) and the migration's type and way:
#: present 1, old 2, new 4.
KEPT = {
    "here": {"resize": (1, 1, 5), "migration": (1, 1, 2), "live-migration": (1, 1, 2)},
    "away": {"resize": (4, 2, 4), "migration": (1, 1, 1), "live-migration": (1, 1, 1)},
}
WAYS = {"in": ("host2", "host1"), "out": ("host1", "host2"), "both": ("host1", "host1")}


def occupant(**values):
    known = dict.fromkeys(Occupant._fields)
    sizes = {"present": PRESENT, "old": OLD, "new": NEW}
    return Occupant(**{**known, "uuid": uuid_of(1), "root_on_volume": False, **sizes, **values})


@pytest.mark.parametrize(
    ("place", "kind", "way"),
    list(itertools.product(KEPT, ("resize", "migration", "live-migration"), WAYS)),
)
def test_the_whole_table_of_what_migrations_keep(place, kind, way):
    row = occupant(
        host="host1" if place == "here" else "host2",
        vm_state="active",
        task_state="migrating" if kind == "live-migration" else "resize_prep",
    )
    source, dest = WAYS[way]
    move = Move(1, "migrating", kind, source, dest, None, None, None, row)
    here = [row] if place == "here" else []
    counted = resources.count("host1", resources.Use(), here, [move])
    assert counted.use.memory_mb == KEPT[place][kind][list(WAYS).index(way)]


@pytest.mark.parametrize(
    ("vm_state", "task_state", "counts"),
    [
        ("resized", None, True),
        ("active", "resize_prep", True),
        ("active", "resize_migrating", True),
        ("stopped", "resize_migrated", True),
        ("stopped", "resize_finish", True),
        ("active", "rebuilding", True),
        ("active", "rebuild_spawning", True),
        ("active", "migrating", True),
        ("paused", "migrating", True),
        ("paused", "resize_prep", False),
        ("stopped", "migrating", False),
        ("active", None, False),
        ("error", None, False),
        ("active", "powering-off", False),
    ],
)
def test_a_migration_counts_only_while_its_instance_moves(vm_state, task_state, counts):
    row = occupant(host="host2", vm_state=vm_state, task_state=task_state)
    move = Move(1, "error", "resize", "host1", "host2", None, None, None, row)
    counted = resources.count("host1", resources.Use(), [], [move])
    assert counted.use.memory_mb == (2 if counts else 0)


# Statistics.


def test_the_statistics_are_texts_by_state_system_and_project(world, task):
    world.add(1, **TINY, project_id="p1", os_type="linux")
    world.add(2, **TINY, project_id="p1", vm_state="building", task_state="spawning")
    world.add(3, **TINY, project_id="p2", vm_state="stopped", task_state="rescuing")
    world.agent.run(task)
    row = record(world)
    assert json.loads(row.stats) == {
        "failed_builds": "0",
        "io_workload": "2",
        "num_instances": "3",
        "num_os_type_None": "2",
        "num_os_type_linux": "1",
        "num_proj_p1": "2",
        "num_proj_p2": "1",
        "num_task_None": "1",
        "num_task_rescuing": "1",
        "num_task_spawning": "1",
        "num_vm_active": "1",
        "num_vm_building": "1",
        "num_vm_stopped": "1",
    }
    assert (row.running_vms, row.current_workload) == (3, 2)


@pytest.mark.parametrize("text", ["", "[]", "not JSON", None])
def test_statistics_that_cannot_be_read_are_written_anew(text):
    assert resources.statistics([], text) == {
        "failed_builds": "0", "io_workload": "0", "num_instances": "0",
    }  # fmt: skip


def test_failed_builds_are_kept():
    assert resources.statistics([], '{"failed_builds": "3"}')["failed_builds"] == "3"


# Options.


def test_ratios_are_as_configured_else_as_recorded_else_the_first_ones(world, task):
    world.agent.run(task)
    row = record(world)
    ratios = (row.cpu_allocation_ratio, row.ram_allocation_ratio, row.disk_allocation_ratio)
    assert ratios == (4.0, 1.0, 1.0)
    world.agent.set(task.name, cpu_allocation_ratio=2.0, initial_ram_allocation_ratio=9.0)
    world.agent.run(task)
    row = record(world)
    assert (row.cpu_allocation_ratio, row.ram_allocation_ratio) == (2.0, 1.0)
    world.agent.set(task.name, cpu_allocation_ratio=0.0)
    world.agent.run(task)
    assert record(world).cpu_allocation_ratio == 2.0


def test_nova_conf_sets_the_options(make):
    settings = (
        "update_resources_interval = 90\nreserved_host_cpus = 1\nreserved_host_memory_mb = 2\n"
        "reserved_host_disk_mb = 3072\ncpu_allocation_ratio = 16\ninitial_ram_allocation_ratio = 3"
        "\nmy_ip = 10.0.0.9\n[compute]\ncpu_shared_set = 1-2\n[libvirt]\nfile_backed_memory = 9000"
        "\n"
    )
    world, task = make(settings=settings)
    assert task.conf.spacing == 90
    world.agent.run(task)
    row = record(world)
    assert used(world) == (3, 2, 1)
    assert (row.cpu_allocation_ratio, row.ram_allocation_ratio) == (16.0, 3.0)
    assert (row.host_ip, row.vcpus, row.memory_mb) == ("10.0.0.9", 2, 9000)


@pytest.mark.parametrize(
    ("shared", "dedicated", "vcpus"),
    [("0-3", None, 4), ("0-3,^1", None, 3), ("2", "0-1", 1), (None, "0-1", 0), (None, None, 4)],
)
def test_vcpus_are_the_cpus_that_float(world, task, shared, dedicated, vcpus):
    world.agent.set(task.name, cpu_shared_set=shared, cpu_dedicated_set=dedicated)
    world.agent.run(task)
    assert record(world).vcpus == vcpus


def test_a_shared_cpu_that_is_offline_is_an_error_and_nothing_is_written(world, task):
    world.agent.set(task.name, cpu_shared_set="2-5")
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert "CPUs 4, 5 of cpu_shared_set are not online" in run.error
    assert world.rows(models.compute_nodes) == []


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "1,,2", "^", "-3"])
def test_a_text_that_names_no_cpus_is_refused(text):
    with pytest.raises(ValueError, match=r"names no CPUs|ends before"):
        resources.CpuSet()(text)


# Disks.


def disk(world, number, capacity_gib, blocks_bytes=0):
    path = world.path / f"disk-{number}"
    path.write_bytes(b"\0" * blocks_bytes)
    os.truncate(path, capacity_gib * GIB)
    world.hypervisor.capacities.append(DiskCapacity(uuid_of(number), str(path), capacity_gib * GIB))
    return path


def test_what_sparse_disks_may_grow_is_not_available(world, task):
    disk(world, 1, 1)
    disk(world, 2, 2)
    world.agent.run(task)
    assert record(world).disk_available_least == 5 - 3


def test_disks_may_grow_beyond_what_is_free(world, task):
    disk(world, 1, 20)
    world.agent.run(task)
    assert record(world).disk_available_least == -15


def test_a_disk_on_another_file_system_takes_nothing(world, task):
    world.hypervisor.capacities.append(DiskCapacity(uuid_of(1), "/proc/version", 3 * GIB))
    world.hypervisor.capacities.append(DiskCapacity(uuid_of(1), "/dev/null", 3 * GIB))
    world.agent.run(task)
    assert record(world).disk_available_least == 5


def test_case_13_a_disk_that_vanishes_is_named_and_the_others_count(world, task, caplog):
    disk(world, 1, 1).unlink()
    disk(world, 2, 2)
    run = world.agent.run(task)
    assert run.outcome == "ok"
    assert record(world).disk_available_least == 5 - 2
    assert "disk-1 is left out of disk_available_least" in caplog.text


def test_another_error_of_a_disk_ends_the_pass(world, task):
    world.hypervisor.capacities.append(DiskCapacity(uuid_of(1), f"{world.path}/{'x' * 300}", GIB))
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert world.rows(models.compute_nodes) == []


def test_a_missing_directory_is_an_error_and_not_zero(world, task):
    world.agent.run(task)
    before = record(world)
    (world.path / "instances").rmdir()
    world.add(1, **TINY)
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert "storage mounted" in run.error
    assert record(world) == before


# Orphans.


def test_domains_that_no_row_knows_are_reported_once(make, caplog):
    world, task = make(dict.fromkeys(range(1, 10), RUNNING))
    world.add(1, **TINY)
    world.add(2, **TINY, host="host2")
    world.add(3, **TINY, deleted=3)
    for _ in range(2):
        run = world.agent.run(task)
        assert run.counters["orphans"] == 6
    assert "6 domains are on the hypervisor and in no row" in caplog.text
    assert f"guest-4 ({uuid_of(4)})" in caplog.text
    assert "and 1 more" in caplog.text
    assert caplog.text.count("in no row") == 1
    assert not any(f"guest-{number} " in caplog.text for number in (1, 2, 3))
    assert world.hypervisor.acts == []


# Writing.


def test_cases_10_and_11_nothing_changed_is_no_write(world, task):
    world.add(1, **TINY)
    world.agent.run(task)
    before = record(world)
    world.clock.sleep(60)
    world.database.statements.clear()
    run = world.agent.run(task)
    assert run.changes == []
    assert world.database.statements.keys() <= {"BEGIN", "SELECT"}
    assert record(world) == before


def test_only_what_changed_is_written(world, task):
    world.agent.run(task)
    before = record(world)._asdict()
    world.clock.sleep(60)
    world.add(1, **TINY)
    run = world.agent.run(task)
    after = record(world)._asdict()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb", "free_disk_gb",
        "running_vms", "stats", "updated_at",
    }  # fmt: skip
    (change,) = run.changes
    assert (change.before["vcpus_used"], change.after["vcpus_used"]) == (0, 1)
    assert change.after.keys() == changed - {"updated_at"}


def test_what_others_keep_in_the_record_stays(world, task):
    world.agent.run(task)
    theirs = {"mapped": 1, "numa_topology": "{}", "metrics": "[1]", "host_ip": "10.0.0.1"}
    with world.engine.begin() as connection:
        connection.execute(sa.update(models.compute_nodes).values(service_id=7, **theirs))
    world.add(1, **TINY)
    world.agent.run(task)
    row = record(world)._asdict()
    assert {name: row[name] for name in theirs} == theirs
    assert (row["service_id"], row["vcpus_used"]) == (7, 1)


def test_a_record_written_by_others_meanwhile_is_left_alone(world, task, monkeypatch):
    world.agent.run(task)
    world.add(1, **TINY)
    describe = world.hypervisor.host_resources

    def describe_while_nova_claims():
        with world.engine.begin() as connection:
            connection.execute(sa.update(models.compute_nodes).values(vcpus_used=3))
        return describe()

    monkeypatch.setattr(world.hypervisor, "host_resources", describe_while_nova_claims)
    run = world.agent.run(task)
    assert run.counters["raced"] == 1
    assert used(world) == (0, 0, 3)
    monkeypatch.undo()


def test_the_hypervisor_may_get_another_name_and_there_is_still_one_record(world, task):
    world.agent.run(task)
    before = record(world)
    world.hypervisor.resources = dataclasses.replace(
        world.hypervisor.resources, hypervisor_hostname="renamed"
    )
    world.agent.run(task)
    assert record(world).hypervisor_hostname == "renamed"
    assert record(world).uuid == before.uuid


def of_nova(world):
    with world.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE cepheid_alembic_version"))
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('ab450ba04102')"))


def test_a_record_is_never_made_in_novas_database(world, task, caplog):
    of_nova(world)
    run = world.agent.run(task)
    assert (run.changes, world.rows(models.compute_nodes)) == ([], [])
    assert "nova-compute makes it when it starts" in caplog.text


REQUIRED = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used",
            "hypervisor_version")  # fmt: skip


def test_case_14_a_record_of_another_name_is_kept_in_novas_database(world, task, caplog):
    values = dict.fromkeys(REQUIRED, 0) | {"hypervisor_type": "QEMU", "cpu_info": "{}"}
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.compute_nodes).values(
                host="host1", hypervisor_hostname="other", deleted=0, **values
            )
        )
    before = record(world)
    of_nova(world)
    world.add(1, **TINY)
    assert world.agent.run(task).changes == []
    assert record(world) == before
    assert "it has: other" in caplog.text


def test_the_dry_run_plans_and_changes_nothing(world, task):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(), new=flavor(), context=77)
    migration(world, 1)
    run = world.agent.run(task, dry_run=True)
    assert [(c.kind, c.outcome) for c in run.changes] == [
        ("migration_status", "planned"),
        ("compute_node", "planned"),
    ]
    assert world.rows(models.compute_nodes) == []
    assert world.rows(models.migrations)[0].status == "finished"


# Cost and faults.


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_three_statements_and_three_bulk_calls(make, count):
    world, task = make(dict.fromkeys(range(count), RUNNING))
    world.add_many(range(count), **TINY)
    world.agent.run(task)
    world.database.statements.clear()
    world.hypervisor.calls.clear()
    assert world.agent.run(task).changes == []
    assert world.statements() == 3
    assert world.hypervisor.calls == {
        "virConnectGetCapabilities": 1,
        "virConnectGetAllDomainStats": 2,
    }


@pytest.mark.parametrize("count", [10, 1000])
def test_the_test_driver_is_asked_a_fixed_number_of_calls(tmp_path, count):
    (tmp_path / "instances").mkdir()
    world = World(tmp_path, states=[RUNNING] * count)
    world.add_many(range(count), **TINY)
    task = world.agent.build(UpdateAvailableResource)
    run = world.agent.run(task)
    assert (run.outcome, run.counters) == ("ok", {"instances": count, "done": 1})
    row = record(world)
    assert (row.hypervisor_type, row.vcpus, row.memory_mb) == ("TEST", 3, 3072)
    assert (row.running_vms, row.memory_mb_used) == (count, 512 + 128 * count)
    assert row.local_gb == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize // GIB
    before = world.hypervisor.calls.copy()
    assert world.agent.run(task).outcome == "ok"
    assert (world.hypervisor.calls - before).total() == 7
    world.close()


def test_case_15_a_hypervisor_that_is_away_leaves_the_last_record(world, task):
    world.agent.run(task)
    before = record(world)
    world.add(1, **TINY)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert record(world) == before
    world.hypervisor.available = True
    world.agent.run(task)
    assert used(world) == (1, 128, 1)


def test_case_12_a_database_away_in_the_middle_is_written_by_the_next_pass(
    world, task, monkeypatch
):
    world.agent.run(task)
    world.add(1, **TINY)
    before = record(world)
    file, elsewhere = world.path / "cepheid.sqlite", world.path / "elsewhere"
    describe = world.hypervisor.disk_capacities

    def describe_and_lose_the_database():
        file.rename(elsewhere)
        return describe()

    monkeypatch.setattr(world.hypervisor, "disk_capacities", describe_and_lose_the_database)
    run = world.agent.run(task)
    elsewhere.rename(file)
    assert (run.outcome, [c.outcome for c in run.changes]) == ("partial", ["failed"])
    assert record(world) == before
    monkeypatch.undo()
    world.agent.run(task)
    assert used(world)[1:] == (128, 1)


def test_a_database_that_does_not_answer_ends_the_pass(world, task):
    (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert world.hypervisor.calls.total() == 0


# The defects.


def test_d18_a_spacing_of_zero_is_a_minute_and_its_help_says_so(task):
    assert task.conf.spacing == 0
    (option,) = [o for o in task.all_options() if o.name == "spacing"]
    assert "0 means 60" in option.help
    assert task.seconds_to_next_run() <= 60


def test_d20_storage_that_hangs_ends_the_pass_within_its_deadline(world, task, monkeypatch):
    world.agent.run(task)
    before = record(world)
    world.add(1, **TINY)
    over = concurrency.original("threading").Event()  # it hangs on a native thread
    monkeypatch.setattr(update_available_resource, "MEASURE_SECONDS", 0.1)
    monkeypatch.setattr(os, "statvfs", lambda path: over.wait(20))
    run = world.agent.run(task)
    over.set()
    assert (run.outcome, run.changes) == ("failed", [])
    assert "statvfs" in run.error
    assert record(world) == before


@pytest.mark.parametrize("missing", ["vcpus", "memory_mb"])
def test_d21_a_null_size_is_one_bad_row(world, task, missing):
    world.add(1, **{**TINY, missing: None})
    world.add(2, **{**TINY, "root_gb": None, "ephemeral_gb": None}, created_at=None)
    extra(world, 1, "not a flavor")
    run = world.agent.run(task)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    assert used(world) == (0, 128, 1)
    assert record(world).running_vms == 2


def test_d21_a_migration_without_times_is_counted(world, task):
    world.add(1, **TINY, host="host2", vm_state="resized")
    extra(world, 1, flavor(), old=flavor(), new=flavor())
    migration(world, 1, created_at=None, updated_at=None)
    migration(world, 1, created_at=None, updated_at=None, migration_type=None)
    world.agent.run(task)
    assert used(world) == (1, 128, 1)


def test_tells_what_it_saw_as_metrics(make):
    world, task = make({1: RUNNING, 2: SHUTDOWN})
    assert {metric.name: dict(metric.values) for metric in task.metrics()} == {
        "cepheid_instances": {}
    }
    world.add(1, **TINY)
    world.add(2, **TINY, vm_state="stopped")
    world.add(3, **TINY)
    world.agent.run(task)
    told = {metric.name: dict(metric.values) for metric in task.metrics()}
    assert told["cepheid_instances"] == {
        ("active", "running"): 1,
        ("stopped", "shut down"): 1,
        ("active", "no domain"): 1,
    }
    (node,) = world.rows(models.compute_nodes)
    assert told["cepheid_host_vcpus"] == {(): node.vcpus}
    assert told["cepheid_host_vcpus_used"] == {(): 3}
    assert told["cepheid_host_memory_used_bytes"] == {(): 3 * 128 << 20}
    assert told["cepheid_host_disk_bytes"] == {(): 6 * GIB}
    assert told["cepheid_host_disk_used_bytes"] == {(): 3 * GIB}
    world.database.statements.clear()
    list(task.metrics())
    assert world.statements() == 0
