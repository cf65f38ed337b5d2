# SPDX-License-Identifier: Apache-2.0
"""run_pending_deletes: the reference's cases, who may still use the files, and what fails."""

import datetime
import os
import stat

import pytest
import sqlalchemy as sa

from cepheid import concurrency
from cepheid.explanation import Kind
from cepheid_plugins.compute.sightings import FILE_NAME, Sightings, SightingsFile
from cepheid_plugins.database import models
from cepheid_plugins.database.records import DeadInstance
from cepheid_plugins.storage import native_files, trees
from cepheid_plugins.storage.instances_path import InstancesPath
from cepheid_plugins.tasks.run_pending_deletes import RunPendingDeletes, attempts_of, decide
from tests.explained import instance
from tests.fake_agent import eventually
from tests.images import disk_xml, qemu_img, with_disks
from tests.leftover_worlds import (
    add_attempts,
    add_dead,
    add_migration,
    attempts,
    build,
    fill,
    hold,
    left,
    leftover_world,
)
from tests.worlds import uuid_of

RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def world(tmp_path):
    world = leftover_world(tmp_path)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return build(world, RunPendingDeletes)


def cleaned(world, *numbers):
    return [world.row(number).cleaned for number in numbers]


def make_stuck(world, number):
    """Let an instance's files not be removable: a directory is a symbolic link."""
    (world.path / "instances" / uuid_of(number)).symlink_to(world.path / "proc")


def refuse(monkeypatch, name):
    """Let files of a name not be removable."""
    unlink = os.unlink

    def unlink_others(path, **arguments):
        if path == name:
            raise PermissionError(1, "Operation not permitted", path)
        unlink(path, **arguments)

    monkeypatch.setattr(os, "unlink", unlink_others)


# The decision.


NOW = datetime.datetime(2026, 11, 23, 12)
BEFORE, AFTER = NOW - datetime.timedelta(seconds=1), NOW + datetime.timedelta(seconds=1)


def dead(**fields):
    values = {"uuid": "a", "host": "host1", "display_name": "a", "deleted_at": NOW, "cleaned": 0,
              "clean_attempts": None, "attempted_at": None, "is_moving": False}  # fmt: skip
    return DeadInstance(**{**values, **fields})


@pytest.mark.parametrize(
    ("fields", "there", "verdict"),
    [
        ({}, True, "due"),
        ({}, False, "clean"),
        ({"clean_attempts": "4", "attempted_at": AFTER}, True, "due"),
        ({"clean_attempts": "5", "attempted_at": AFTER}, True, "given_up"),
        ({"clean_attempts": "5", "attempted_at": AFTER}, False, "clean"),
        ({"clean_attempts": "5", "attempted_at": BEFORE}, True, "due"),
        ({"clean_attempts": "5", "attempted_at": None}, True, "given_up"),
        ({"clean_attempts": "a few"}, True, "skipped"),
        ({"cleaned": 1}, True, "due"),
        ({"cleaned": None}, True, "due"),
        ({"deleted_at": None}, True, "skipped"),
        ({"deleted_at": None}, False, "clean"),
        ({"is_moving": True}, True, "skipped"),
        ({"is_moving": True}, False, "clean"),
    ],
)
def test_what_becomes_of_a_deleted_instance(fields, there, verdict):
    row = dead(**fields)
    plan = decide([row], {"a": ["a"]} if there else {}, 5, Sightings())
    found = {name: value for name, value in vars(plan).items() if value}
    assert list(found) == [verdict]


def test_one_that_was_seen_alive_after_its_deletion_is_left_alone():
    seen = Sightings(last_alive={"a": AFTER.isoformat()})
    plan = decide([dead()], {"a": ["a"]}, 5, seen)
    assert "old copy" in plan.skipped["a"]
    assert decide([dead()], {"a": ["a"]}, 5, Sightings(last_alive={"a": BEFORE.isoformat()})).due


@pytest.mark.parametrize(
    ("text", "written_at", "counted"),
    [
        (None, None, 0),
        ("", None, 0),
        ("3", AFTER, 3),
        ("3", None, 3),
        # That of the deletion is the last before it; a database may keep whole seconds only.
        ("3", NOW, 1),
        ("3", BEFORE, 1),
        ("0", BEFORE, 0),
    ],
)
def test_d7_attempts_of_an_earlier_life_do_not_count(text, written_at, counted):
    assert attempts_of(dead(clean_attempts=text, attempted_at=written_at)) == counted


# The reference's cases.


def test_attempts_are_counted_and_cleaned_is_written_where_nothing_is_left(
    world, task, monkeypatch
):
    add_dead(world, 1, attempts="100")
    add_dead(world, 2, attempts="3")
    add_dead(world, 3)
    (world.path / "instances" / uuid_of(3) / "stuck").touch()
    refuse(monkeypatch, "stuck")
    run = world.agent.run(task)
    assert [attempts(world, number) for number in (1, 2, 3)] == ["100", "4", "1"]
    assert cleaned(world, 1, 2, 3) == [0, 1, 0]
    assert left(world) == ["1", "3_del"]
    assert run.outcome == "partial"
    assert run.counters == {"instances": 3, "given_up": 1, "done": 1, "failed": 1}


def test_a_soft_deleted_instance_is_not_looked_at(world, task):
    world.add(1, vm_state="soft-delete", cleaned=0, deleted_at=world.clock.utcnow())
    fill(world, 1)
    assert world.agent.run(task).counters == {}
    assert left(world) == ["1"]


def test_one_whose_files_are_gone_is_clean_at_once(world, task):
    add_dead(world, 1, suffixes=())
    run = world.agent.run(task)
    assert [(c.kind, c.before, c.after) for c in run.changes] == [("cleaned", 0, 1)]
    assert cleaned(world, 1) == [1]
    assert attempts(world, 1) is None
    assert world.hypervisor.calls["virConnectGetAllDomainStats"] == 0
    assert world.agent.run(task).counters == {}


def test_the_files_from_before_a_resize_are_removed_too(world, task):
    add_dead(world, 1, suffixes=["_resize"])
    world.agent.run(task)
    assert (left(world), cleaned(world, 1)) == ([], [1])


def test_what_is_left_aside_is_gone_on_with(world, task, monkeypatch):
    add_dead(world, 1)
    (world.path / "instances" / uuid_of(1) / "stuck").touch()
    with monkeypatch.context() as patch:
        refuse(patch, "stuck")
        run = world.agent.run(task)
        (change,) = run.changes
        assert (change.outcome, "stuck cannot be removed" in change.error) == ("failed", True)
    # What could go has gone.
    assert os.listdir(world.path / "instances" / f"{uuid_of(1)}_del") == ["stuck"]
    world.agent.run(task)
    assert (left(world), cleaned(world, 1), attempts(world, 1)) == ([], [1], "2")


def test_after_five_failures_it_is_named_once_and_not_tried_again(world, task, monkeypatch, caplog):
    add_dead(world, 1)
    (world.path / "instances" / uuid_of(1) / "stuck").touch()
    refuse(monkeypatch, "stuck")
    runs = [world.agent.run(task) for _ in range(8)]
    assert [len(run.changes) for run in runs] == [1] * 5 + [0] * 3
    assert attempts(world, 1) == "5"
    assert caplog.text.count("still there after 5 attempts") == 1
    world.agent.set(task.name, maximum_instance_delete_attempts=6)
    assert len(world.agent.run(task).changes) == 1


def test_says_of_how_many_the_files_were_removed(world, task, reports):
    add_dead(world, 1)
    add_dead(world, 2)
    add_dead(world, 3, suffixes=())
    world.agent.run(task)
    assert reports == [(0, 2), (1, 2), (2, 2)]


def test_another_hosts_instance_is_not_looked_at(world, task):
    add_dead(world, 1, host="host2")
    assert world.agent.run(task).counters == {}
    assert (left(world), cleaned(world, 1)) == (["1"], [0])


def test_a_copy_job_that_runs_is_waited_for(world, task):
    add_dead(world, 1)
    link = hold(world, world.path / "instances" / uuid_of(1) / "disk", name="qemu-img")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert (left(world), attempts(world, 1)) == (["1"], None)
    link.unlink()
    world.agent.run(task)
    assert (left(world), cleaned(world, 1)) == ([], [1])


# The reference's defects.


def test_d4_all_of_its_directories_go_in_one_pass_a_stale_del_too(world, task):
    add_dead(world, 1, suffixes=["", "_resize", "_del", "_part"])
    run = world.agent.run(task)
    assert [(c.before, c.outcome) for c in run.changes] == [("4 directories", "done")]
    assert (left(world), cleaned(world, 1)) == ([], [1])


def test_d4_a_stale_del_that_is_stuck_keeps_nothing_else(world, task, monkeypatch):
    add_dead(world, 1, suffixes=["", "_del"])
    (world.path / "instances" / f"{uuid_of(1)}_del" / "stuck").touch()
    refuse(monkeypatch, "stuck")
    world.agent.run(task)
    assert left(world) == ["1_del"]
    assert os.listdir(world.path / "instances" / f"{uuid_of(1)}_del") == ["stuck"]


def test_d7_files_that_are_there_are_removed_though_the_instance_was_clean_in_an_earlier_life(
    world, task
):
    """It was offloaded, came back, and its deletion failed: cleaned stayed 1, and 6 attempts."""
    add_dead(world, 1, cleaned=1)
    add_attempts(world, 1, "6", minutes_ago=61)
    run = world.agent.run(task)
    assert run.counters == {"instances": 1, "done": 1}
    assert (left(world), cleaned(world, 1), attempts(world, 1)) == ([], [1], "2")


@pytest.mark.parametrize(("seconds_ago", "found_after"), [(0, 0), (600, 0), (86400, 3600)], ids=str)
def test_one_that_is_deleted_later_and_called_clean_is_found(world, task, seconds_ago, found_after):
    """At once; by the next look at all, if its deletion is dated back."""
    world.add(1)
    fill(world, 1)
    assert world.agent.run(task).counters == {}
    world.clock.sleep(60)
    deleted_at = world.clock.utcnow() - datetime.timedelta(seconds=seconds_ago)
    world.update(1, deleted=world.row(1).id, deleted_at=deleted_at, cleaned=1)
    if found_after:
        assert world.agent.run(task).counters == {}
        world.clock.sleep(found_after)
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}
    assert left(world) == []


def test_an_explanation_asks_of_all_and_leaves_what_the_passes_know(world, task):
    """Its deletion is dated back, so the passes find it at the next look at all only."""
    world.add(1)
    fill(world, 1)
    world.agent.run(task)
    deleted_at = world.clock.utcnow() - datetime.timedelta(days=1)
    world.update(1, deleted=world.row(1).id, deleted_at=deleted_at, cleaned=1)
    (verdict,) = task.explain(instance(uuid_of(1)))
    assert verdict.kind is Kind.ACTS
    assert world.agent.run(task).counters == {}
    world.clock.sleep(3600)
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}


def test_one_that_is_called_clean_and_cannot_be_removed_is_tried_again_in_the_next_pass(
    world, task, monkeypatch
):
    add_dead(world, 1, cleaned=1)
    with monkeypatch.context() as patch:
        refuse(patch, "disk")
        for _ in range(2):
            assert world.agent.run(task).counters == {"instances": 1, "failed": 1}
    world.agent.run(task)
    assert left(world) == []


@pytest.mark.parametrize("count", [10, 1000])
def test_the_inventory_is_not_asked_again_of_those_that_live_here(world, task, monkeypatch, count):
    world.add_many(range(100, 100 + count))
    for number in range(100, 100 + count):
        (world.path / "instances" / uuid_of(number)).mkdir()
    asked = []
    dead_instances = world.database.dead_instances

    def ask(host, uuids, since):
        asked.append(len(uuids))
        return dead_instances(host, uuids, since)

    monkeypatch.setattr(world.database, "dead_instances", ask)
    world.agent.run(task)
    world.agent.run(task)
    fill(world, 99)
    world.agent.run(task)
    world.clock.sleep(3600)
    world.agent.run(task)
    assert asked == [count, 0, 1, count + 1]


def test_d7_one_that_is_clean_and_has_no_files_costs_nothing(world, task):
    add_dead(world, 1, suffixes=(), cleaned=1)
    assert world.agent.run(task).counters == {}
    assert world.statements() == 1


def test_a_cleaned_that_is_null_is_written_only_where_there_are_files(world, task):
    add_dead(world, 1, cleaned=None)
    add_dead(world, 2, suffixes=(), cleaned=None)
    world.agent.run(task)
    assert (left(world), cleaned(world, 1, 2)) == ([], [1, None])


def test_copies_that_were_put_by_are_files_of_the_instance(world, task):
    add_dead(world, 1, suffixes=())
    copies = world.path / "shelved" / uuid_of(1)
    copies.mkdir(parents=True)
    (copies / "vda.qcow2").touch()
    world.agent.run(task)
    assert (left(world, "shelved"), cleaned(world, 1)) == ([], [1])


# What is never touched.


@pytest.mark.parametrize("state", [RUNNING, SHUTDOWN, None])
def test_the_files_of_a_domain_that_is_there_stay_whatever_its_state(world, task, state):
    add_dead(world, 1)
    world.hypervisor.states[uuid_of(1)] = state
    world.hypervisor.names[uuid_of(1)] = "guest-1"
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert (left(world), cleaned(world, 1), attempts(world, 1)) == (["1"], [0], None)


def test_a_disk_that_another_domain_has_been_given_stays(world, task):
    """An operator lets a helper guest look at a deleted instance's disk; it is off just now."""
    add_dead(world, 1)
    # By another name of the directory.
    (world.path / "link").symlink_to(world.path / "instances")
    define_helper(world, disk_xml(world.path / "link" / uuid_of(1) / "disk"))
    assert world.agent.run(task).outcome == "partial"
    assert left(world) == ["1"]


def define_helper(world, *disks):
    """Define a domain that is off and has these disks; return its uuid."""
    uuid = uuid_of(50)
    world.hypervisor.states[uuid], world.hypervisor.names[uuid] = SHUTDOWN, "helper"
    world.hypervisor.definitions[uuid] = with_disks(uuid, "helper", *disks)
    return uuid


@pytest.mark.parametrize(
    "text",
    [
        "<domain><os><kernel>{file}</kernel></os></domain>",
        "<domain><devices><disk><source startupPolicy='optional' file='{file}'/></disk></devices>"
        "</domain>",
        "<domainsnapshot><disks><disk name='vda'><source file='{file}'/></disk></disks>"
        "</domainsnapshot>",
    ],
    ids=["kernel", "empty drive", "snapshot"],
)
def test_what_a_definition_of_a_domain_that_is_off_names_stays(world, task, text, caplog):
    """libvirt counts neither of these among the domain's disks."""
    for number in (1, 2):
        add_dead(world, number)
    file = world.path / "instances" / uuid_of(1) / "disk.config"
    helper = define_helper(world)
    world.hypervisor.other_definitions[helper] = [text.format(file=file)]
    assert world.agent.run(task).counters["done"] == 1
    assert left(world) == ["1"]
    assert f"{file} is named in a definition of the domain helper" in caplog.text


VOLUME = disk_xml("").replace("file=''", "pool='images' volume='disk'")


def test_a_volume_that_a_domain_has_is_the_file_that_it_is(world, task):
    add_dead(world, 1)
    add_dead(world, 2)
    define_helper(world, VOLUME)
    disk = world.path / "instances" / uuid_of(1) / "disk"
    world.hypervisor.volumes["images", "disk"] = str(disk)
    assert world.agent.run(task).counters["done"] == 1
    assert left(world) == ["1"]


def test_a_volume_that_is_not_found_may_be_any_file_so_nothing_is_removed(world, task, caplog):
    add_dead(world, 1)
    define_helper(world, VOLUME)
    run = world.agent.run(task)
    assert (run.outcome, run.changes, left(world)) == ("partial", [], ["1"])
    assert (
        "the domain helper has the disk disk in the storage pool images, which libvirt does not "
        "find. Is the pool active?" in caplog.text
    )


def make_overlay(path, backing):
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", path, "1M")
    return path


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_what_the_disk_of_a_domain_that_is_off_stands_on_stays(world, task, levels, caplog):
    add_dead(world, 1)
    add_dead(world, 2)
    disk = backing = world.path / "instances" / uuid_of(1) / "disk"
    qemu_img("create", "-q", "-f", "qcow2", disk, "1M")
    for level in range(levels):
        # The one in the middle is in the directory of another instance.
        directory = world.path / ("instances" if level == 1 else "vms") / uuid_of(99)
        directory.mkdir(parents=True, exist_ok=True)
        backing = make_overlay(directory / f"overlay-{level}", backing)
    define_helper(world, disk_xml(backing))
    assert world.agent.run(task).counters["done"] == 1
    assert left(world) == (["1", "99"] if levels > 1 else ["1"])
    assert f"the disk {backing} of a domain stands on {disk}" in caplog.text


def test_a_raw_disk_names_nothing_whatever_its_guest_wrote_to_its_beginning(world, task):
    add_dead(world, 1)
    backing = world.path / "instances" / uuid_of(1) / "disk"
    disk = make_overlay(world.path / "raw", backing)
    define_helper(world, disk_xml(disk, "raw"))
    world.agent.run(task)
    assert left(world) == []


def test_where_it_is_not_known_what_a_disk_stands_on_nothing_is_removed(world, task, caplog):
    add_dead(world, 1)
    define_helper(world, disk_xml(world.path / "not-mounted" / "disk"))
    run = world.agent.run(task)
    assert (run.outcome, run.changes, left(world)) == ("partial", [], ["1"])
    assert f"{world.path}/not-mounted/disk is missing, and a domain has it" in caplog.text
    # The record of a snapshot outlives its files where they are merged ('virsh blockcommit').
    assert "or had it in a snapshot" in caplog.text
    assert "virsh snapshot-delete --metadata" in caplog.text


@pytest.mark.parametrize("suffix", ["", "_resize", "_del"])
@pytest.mark.parametrize("what", ["disk", "snapshots/old", "snapshots", "."])
def test_files_that_a_process_has_open_stay_with_all_around_them(world, task, suffix, what):
    add_dead(world, 1, suffixes=["", "_resize", "_del"])
    hold(world, world.path / "instances" / f"{uuid_of(1)}{suffix}" / what)
    assert world.agent.run(task).changes == []
    assert left(world) == ["1", "1_del", "1_resize"]


def test_a_file_is_known_whatever_name_it_was_opened_by(world, task):
    add_dead(world, 1)
    os.link(world.path / "instances" / uuid_of(1) / "disk", world.path / "another-name")
    hold(world, world.path / "another-name")
    assert world.agent.run(task).changes == []


def test_a_directory_that_somebody_stands_in_stays(world, task):
    add_dead(world, 1)
    process = world.path / "proc" / "4712"
    (process / "fd").mkdir(parents=True)
    (process / "cwd").symlink_to(world.path / "instances" / uuid_of(1))
    assert world.agent.run(task).changes == []


def test_an_image_on_a_loop_device_stays(world, task):
    add_dead(world, 1)
    loop = world.path / "sys" / "block" / "loop7" / "loop"
    loop.mkdir(parents=True)
    (loop / "backing_file").write_text(f"{world.path}/instances/{uuid_of(1)}/disk\n")
    assert world.agent.run(task).changes == []
    (loop / "backing_file").write_text("/nowhere (deleted)\n")
    assert len(world.agent.run(task).changes) == 1


def test_where_not_all_processes_can_be_looked_at_the_kernel_must_say_that_a_file_is_not_open(
    world, task, monkeypatch, caplog
):
    add_dead(world, 1)
    hold(world, world.path / "cepheid.conf")
    listdir = os.listdir

    def refuse(path="."):
        if str(path).endswith("/fd"):
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with (world.path / "instances" / uuid_of(1) / "disk").open():
        run = world.agent.run(task)
        assert (run.outcome, run.changes, left(world)) == ("partial", [], ["1"])
        assert "somebody may have" in caplog.text
    world.agent.run(task)
    assert left(world) == []


@pytest.mark.parametrize("status", ["migrating", "a status of another version", None])
def test_a_migration_that_goes_on_keeps_the_files(world, task, status, caplog):
    """Nova deletes an instance's migrations with it, and leaves their status for ever."""
    add_dead(world, 1)
    add_migration(world, 1, status=status)
    add_dead(world, 2)
    add_migration(world, 2, status="migrating", deleted=7)
    add_dead(world, 3)
    add_migration(world, 3, status="error")
    assert world.agent.run(task).outcome == "partial"
    assert left(world) == ["1"]
    assert "if nobody is at it any more, set migrations.status to failed" in caplog.text
    with world.engine.begin() as connection:
        connection.execute(sa.update(models.migrations).values(status="failed"))
    world.agent.run(task)
    assert left(world) == []


def test_hidden_instances_live_in_another_cell(world, task):
    add_dead(world, 1, hidden=True)
    assert world.agent.run(task).counters == {}
    assert (left(world), cleaned(world, 1)) == (["1"], [0])


def test_what_has_no_name_of_an_instance_is_never_touched(world, task):
    add_dead(world, 1)
    others = ["_base", "locks", "compute_nodes", "images", uuid_of(1).upper(), f"{uuid_of(1)}.bak"]
    for name in others:
        (world.path / "instances" / name).mkdir()
    world.agent.run(task)
    assert sorted(os.listdir(world.path / "instances")) == sorted(others)


def test_a_directory_without_a_row_is_never_touched(world, task):
    fill(world, 7)
    fill(world, 99)
    assert world.agent.run(task).counters == {}
    assert left(world) == ["7", "99"]


def test_a_symbolic_link_in_place_of_a_directory_is_left_alone(world, task):
    add_dead(world, 1, suffixes=())
    make_stuck(world, 1)
    run = world.agent.run(task)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    assert (cleaned(world, 1), left(world)) == ([0], ["1"])
    assert (world.path / "proc").exists()


def test_a_hard_link_elsewhere_keeps_its_file(world, task):
    add_dead(world, 1)
    kept = world.path / "kept"
    os.link(world.path / "instances" / uuid_of(1) / "disk", kept)
    mode = stat.S_IMODE(kept.stat().st_mode)
    world.agent.run(task)
    assert (left(world), kept.read_text(), kept.stat().st_nlink) == ([], "disk", 1)
    assert stat.S_IMODE(kept.stat().st_mode) == mode


# In between.


def test_one_that_is_undeleted_meanwhile_is_not_touched(world, task, monkeypatch):
    add_dead(world, 1)
    obstacles = task.leftovers.obstacles

    def then_undelete(uuids):
        found = obstacles(uuids)
        world.update(1, deleted=0, deleted_at=None)
        return found

    monkeypatch.setattr(task.leftovers, "obstacles", then_undelete)
    assert world.agent.run(task).counters["raced"] == 1
    assert (left(world), attempts(world, 1)) == (["1"], None)


def test_one_that_gets_a_domain_meanwhile_is_not_touched(world, task, monkeypatch):
    add_dead(world, 1)
    deleted = world.database.deleted_instances

    def then_define(uuids):
        world.hypervisor.states[uuid_of(1)] = SHUTDOWN
        world.hypervisor.names[uuid_of(1)] = "guest-1"
        return deleted(uuids)

    monkeypatch.setattr(world.database, "deleted_instances", then_define)
    assert world.agent.run(task).counters["raced"] == 1
    assert left(world) == ["1"]


@pytest.mark.parametrize("suffixes", [[""], ["", "_resize"], ["", "_resize", "_del"]])
def test_files_that_are_opened_as_they_are_set_aside_get_their_names_back(
    world, task, monkeypatch, suffixes
):
    add_dead(world, 1, suffixes=suffixes)
    add_dead(world, 2)
    set_aside = InstancesPath.set_aside

    def opened_before(files, uuid):
        moved = set_aside(files, uuid)
        if uuid == uuid_of(1):
            there = world.path / "instances" / f"{uuid}_del"
            hold(world, there / "disk" if "_del" not in suffixes else there / uuid / "disk")
        return moved

    monkeypatch.setattr(InstancesPath, "set_aside", opened_before)
    run = world.agent.run(task)
    assert (run.counters["raced"], run.counters["done"]) == (1, 1)
    assert left(world) == sorted(f"1{suffix}" for suffix in suffixes)
    for suffix in suffixes:
        assert (world.path / "instances" / f"{uuid_of(1)}{suffix}" / "disk").exists()
    assert attempts(world, 1) is None


def test_files_are_not_set_aside_by_a_call_that_was_given_up(world, task, monkeypatch):
    """The storage is back when the instance is alive again."""
    add_dead(world, 1)
    over, survey, looks = concurrency.original("threading").Event(), trees.survey, []

    def hang_the_second_time(*arguments):
        found = survey(*arguments)
        looks.append(found)
        if len(looks) == 2:
            over.wait(20)
        return found

    monkeypatch.setattr(trees, "survey", hang_the_second_time)
    monkeypatch.setattr(native_files, "LOOK_SECONDS", 0.3)
    run = world.agent.run(task)
    assert run.counters["failed"] == 1
    world.update(1, vm_state="active", deleted=0, deleted_at=None)
    world.clock.sleep(1)
    over.set()
    eventually(lambda: world.agent.native.abandoned == 0)
    assert left(world) == ["1"]


def test_nothing_is_removed_where_the_second_look_fails(world, task, monkeypatch):
    add_dead(world, 1, suffixes=["", "_resize"])
    set_aside = InstancesPath.set_aside

    def then_hide(files, uuid):
        moved = set_aside(files, uuid)
        (world.path / "proc").rename(world.path / "elsewhere")
        return moved

    monkeypatch.setattr(InstancesPath, "set_aside", then_hide)
    run = world.agent.run(task)
    assert [change.outcome for change in run.changes] == ["failed"]
    assert left(world) == ["1", "1_resize"]


# The worlds in which a naive version removes good files.


def test_an_inventory_that_vanished_removes_nothing_until_the_operator_confirms(world, task):
    add_dead(world, 1)
    SightingsFile(str(world.path)).write(
        Sightings("host1", world.hypervisor.identity, live={uuid_of(99)})
    )
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances).where(models.instances.c.deleted == 0))
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert left(world) == ["1"]


@pytest.mark.parametrize("columns", [{"host": "host0"}, {"hypervisor": "another machine"}])
def test_another_host_or_hypervisor_removes_nothing(world, task, columns):
    add_dead(world, 1)
    add_dead(world, 2, suffixes=())
    seen = {"host": "host1", "hypervisor": world.hypervisor.identity, **columns}
    SightingsFile(str(world.path)).write(Sightings(**seen))
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert (left(world), cleaned(world, 1, 2)) == (["1"], [0, 0])


def test_the_database_of_another_cell_removes_nothing(world, task):
    add_dead(world, 1)
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances).where(models.instances.c.deleted == 0))
    assert world.agent.run(task).changes == []
    assert left(world) == ["1"]


def test_what_is_seen_first_is_kept_for_the_next_pass(world, task):
    add_dead(world, 1)
    world.agent.run(task)
    seen = SightingsFile(str(world.path)).read()
    assert (seen.host, seen.live) == ("host1", {uuid_of(99)})


def test_an_unmounted_instances_path_is_not_an_empty_one(world, task):
    add_dead(world, 1, suffixes=())
    (world.path / "instances").rmdir()
    run = world.agent.run(task)
    assert (run.outcome, "storage mounted" in run.error) == ("failed", True)
    assert cleaned(world, 1) == [0]


def test_one_wrongly_said_to_be_clean_while_its_storage_was_away_is_found_again(world, task):
    add_dead(world, 1)
    (world.path / "instances").rename(world.path / "storage")
    (world.path / "instances").mkdir()
    world.agent.run(task)
    assert cleaned(world, 1) == [1]
    (world.path / "instances").rmdir()
    (world.path / "storage").rename(world.path / "instances")
    world.agent.run(task)
    assert left(world) == []


# Faults, cost, dry run.


def test_d21_rows_that_are_bad_are_one_bad_row_each(world, task):
    add_dead(world, 1, deleted_at=None)
    add_dead(world, 2, attempts="a few")
    add_dead(world, 3)
    run = world.agent.run(task)
    assert run.counters == {"instances": 3, "skipped": 2, "done": 1}
    assert left(world) == ["1", "2"]


def test_a_hypervisor_that_does_not_answer_ends_the_pass(world, task):
    add_dead(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert left(world) == ["1"]


def test_a_hypervisor_that_goes_away_in_the_middle_removes_nothing(world, task, monkeypatch):
    add_dead(world, 1)
    deleted = world.database.deleted_instances

    def then_go(uuids):
        world.hypervisor.available = False
        return deleted(uuids)

    monkeypatch.setattr(world.database, "deleted_instances", then_go)
    assert [change.outcome for change in world.agent.run(task).changes] == ["failed"]
    assert (left(world), attempts(world, 1)) == (["1"], None)


def test_a_database_that_goes_away_after_the_removal_is_told_at_the_next_pass(
    world, task, monkeypatch
):
    add_dead(world, 1)

    def go_away(attempts, cleaned):
        raise RuntimeError("the server goes away")

    with monkeypatch.context() as patch:
        patch.setattr(world.database, "record_cleaning", go_away)
        assert [change.outcome for change in world.agent.run(task).changes] == ["failed"]
    assert (left(world), cleaned(world, 1)) == ([], [0])
    world.agent.run(task)
    assert cleaned(world, 1) == [1]


def test_a_file_of_sightings_that_cannot_be_read_ends_the_pass(world, task):
    add_dead(world, 1)
    (world.path / FILE_NAME).write_text("{")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert left(world) == ["1"]


def test_a_pass_removes_twenty_at_most_unless_told_otherwise(world, task):
    assert task.conf.max_changes == 20
    for number in range(1, 4):
        add_dead(world, number)
    world.agent.set(task.name, max_changes=2)
    run = world.agent.run(task)
    assert (run.outcome, run.counters["refused"]) == ("limited", 1)
    assert len(left(world)) == 1


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("count", [10, 1000])
def test_a_pass_over_instances_that_are_not_clean_costs_the_same_whatever_their_number(
    world, task, count, files
):
    """Those with files have been given up; those without are refused at once."""
    numbers = range(1000, 1000 + count)
    world.add_many(numbers, vm_state="deleted", cleaned=0, deleted_at=world.clock.utcnow())
    with world.engine.begin() as connection:
        table = models.instances
        connection.execute(
            sa.update(table).where(table.c.vm_state == "deleted").values(deleted=table.c.id)
        )
        for number in numbers if files else ():
            connection.execute(
                sa.insert(models.instance_system_metadata).values(
                    instance_uuid=uuid_of(number), key="clean_attempts", value="5", deleted=1
                )
            )
            (world.path / "instances" / uuid_of(number)).mkdir()
    run = world.agent.run(task, dry_run=True)
    assert run.counters["instances"] == count
    assert world.statements() == 2
    assert world.hypervisor.calls == {"virConnectGetCapabilities": 1}


@pytest.mark.parametrize("count", [10, 200])
def test_looking_who_uses_the_files_costs_the_same_whatever_their_number(world, task, count):
    world.add_many(range(1000, 1000 + count), vm_state="deleted", deleted_at=world.clock.utcnow())
    with world.engine.begin() as connection:
        table = models.instances
        connection.execute(
            sa.update(table).where(table.c.vm_state == "deleted").values(deleted=table.c.id)
        )
    for number in range(1000, 1000 + count):
        (world.path / "instances" / uuid_of(number)).mkdir()
    run = world.agent.run(task, dry_run=True)
    assert run.counters["planned"] == min(count, 20)
    assert world.statements() == 2
    assert world.hypervisor.calls == {
        "virConnectGetCapabilities": 1, "virConnectGetAllDomainStats": 1,
        "virConnectListAllDomains": 1,
    }  # fmt: skip


def test_the_dry_run_plans_and_changes_nothing(world, task):
    add_dead(world, 1, suffixes=["", "_resize"])
    add_dead(world, 2, suffixes=())
    run = world.agent.run(task, dry_run=True)
    assert [(c.kind, c.outcome) for c in run.changes] == [
        ("delete_files", "planned"), ("cleaned", "planned")
    ]  # fmt: skip
    assert (left(world), cleaned(world, 1, 2)) == (["1", "1_resize"], [0, 0])
    assert not (world.path / FILE_NAME).exists()


def test_nova_conf_sets_attempts_and_spacing(tmp_path):
    settings = "maximum_instance_delete_attempts = 7\ninstance_delete_interval = 120\n"
    world = leftover_world(tmp_path, settings)
    conf = world.agent.build(RunPendingDeletes).conf
    assert (conf.maximum_instance_delete_attempts, conf.spacing) == (7, 120)
    world.close()
