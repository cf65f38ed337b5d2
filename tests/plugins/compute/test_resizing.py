# SPDX-License-Identifier: Apache-2.0
"""Resize and confirm; the confirmation of a migration is handed from one agent to another."""

import json

import pytest
import sqlalchemy as sa

from cepheid.run import Run
from cepheid_plugins.compute.operations import NotPossible
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.driver import HypervisorUnavailable
from cepheid_plugins.storage import qemu_img
from tests.killing import Killed
from tests.worlds import disk_world, move, other_host, uuid_of

RUNNING, SHUTDOWN = 1, 4
UUID = uuid_of(1)


@pytest.fixture
def world(tmp_path):
    (tmp_path / "host1").mkdir()
    world = disk_world(tmp_path / "host1", [1])
    yield world
    world.close()


@pytest.fixture
def operations(world):
    return ResizeOperations(world.agent)


def rows(world):
    return world.database.instances_by_uuid([UUID])


def entries(world):
    return sorted(path.name for path in (world.path / "instances").iterdir())


def migration(world):
    (found,) = world.rows(models.migrations)
    return found


def flavors(world):
    (row,) = world.rows(models.instance_extra)
    return json.loads(row.flavor)


def resize(world, operations):
    assert operations.resize(rows(world), "req-1", Size(2, 256, 1)) == {UUID: None}


def confirm(world, operations):
    found = world.database.migrations_of([UUID], "finished")
    return operations.confirm(found, {row.uuid: row for row in rows(world)}, "req-2")


# Resize.


def test_a_resized_guest_runs_with_its_new_size_and_what_it_was_is_kept(world, operations):
    resize(world, operations)
    (details,) = world.hypervisor.details()
    assert (details.vcpus, details.memory_mib) == (2, 256)
    disk = world.path / "instances" / UUID / "disk"
    assert qemu_img.info(str(disk))["virtual-size"] == 2**30
    assert entries(world) == [UUID, f"{UUID}_resize"]
    kept = world.path / "instances" / f"{UUID}_resize" / "disk"
    assert qemu_img.info(str(kept))["virtual-size"] == 2**20
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("resized", None, RUNNING)
    assert (row.vcpus, row.memory_mb, row.root_gb) == (2, 256, 1)
    found = migration(world)
    assert (found.status, found.migration_type) == ("finished", "resize")
    assert (found.source_compute, found.dest_compute) == ("host1", "host1")
    sizes = {k: flavors(world)[k]["nova_object.data"]["memory_mb"] for k in ("cur", "old", "new")}
    assert sizes == {"cur": 256, "old": 128, "new": 256}
    assert world.database.system_metadata([UUID], "old_vm_state") == {UUID: "active"}


def test_a_stopped_instance_is_resized_and_stays_off(world, operations):
    world.update(1, vm_state="stopped", power_state=SHUTDOWN)
    world.hypervisor.states[UUID] = SHUTDOWN
    resize(world, operations)
    assert world.hypervisor.states[UUID] == SHUTDOWN
    confirm(world, operations)
    assert (world.row(1).vm_state, world.row(1).power_state) == ("stopped", SHUTDOWN)


def test_cpus_that_are_laid_out_are_left_as_they_are(world, operations):
    text = world.hypervisor.definition(UUID)
    topology = "<cpu><topology sockets='1' cores='1' threads='1'/></cpu><devices>"
    world.hypervisor.definitions[UUID] = text.replace("<devices>", topology)
    results = operations.resize(rows(world), "req-1", Size(2, 256))
    assert "laid out" in str(results[UUID])
    assert (world.row(1).vm_state, world.row(1).task_state) == ("active", None)
    assert world.rows(models.migrations) == []


def test_a_resized_instance_is_not_resized_again(world, operations):
    resize(world, operations)
    results = operations.resize(rows(world), "req-2", Size(4, 512))
    assert isinstance(results[UUID], NotPossible)


def test_a_guest_whose_memory_is_saved_is_not_resized(world, operations):
    world.hypervisor.states[UUID] = SHUTDOWN
    world.hypervisor.saved.add(UUID)
    results = operations.resize(rows(world), "req-1", Size(2, 256, 1))
    assert "its memory is saved" in str(results[UUID])
    assert world.hypervisor.acts == []
    assert world.hypervisor.saved == {UUID}
    assert entries(world) == [UUID]


# Resize, interrupted.


def kept_size(world):
    kept = world.path / "instances" / f"{UUID}_resize" / "disk"
    return qemu_img.info(str(kept))["virtual-size"]


def interrupt(world, operations, step):
    """Let a run die in the middle of a resize, in the place of a step on the hypervisor."""

    def die(*arguments):
        raise Killed

    def act(context):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.hypervisor, step, die)
            patch.setattr(operations._claims, "record", die)
            operations.resize(rows(world), context.request_id, Size(2, 256, 1))

    with pytest.raises(Killed):
        world.agent.runner.execute(a_run(world), act)
    assert world.row(1).task_state == "resize_finish"


def a_run(world):
    return Run("instance_resize", "test", "operator", False, world.clock.utcnow())


def test_the_files_that_are_kept_are_from_before_a_resize_that_was_interrupted(world, operations):
    interrupt(world, operations, "start")
    disk = world.path / "instances" / UUID / "disk"
    assert qemu_img.info(str(disk))["virtual-size"] == 2**30
    resize(world, operations)
    assert kept_size(world) == 2**20


def test_the_files_of_a_resize_that_was_given_up_are_not_those_of_the_next(world, operations):
    interrupt(world, operations, "start")
    world.agent.runner.execute(
        a_run(world), lambda context: operations.release_interrupted(context, rows(world))
    )
    assert world.row(1).task_state is None
    resize(world, operations)
    # By now the guest may have run with its larger disk for days.
    assert kept_size(world) == 2**30


# Confirm, on one host.


def test_a_confirmed_resize_leaves_nothing_of_what_was(world, operations):
    resize(world, operations)
    assert confirm(world, operations) == {UUID: None}
    assert entries(world) == [UUID]
    assert migration(world).status == "confirmed"
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)
    assert flavors(world)["old"] is flavors(world)["new"] is None
    assert world.database.system_metadata([UUID], "old_vm_state") == {}
    ended = {action.action: action.message for action in world.rows(models.instance_actions)}
    assert ended == {"resize": None, "confirmResize": None}
    events = world.rows(models.instance_actions_events)
    assert {event.result for event in events} == {"Success"}


def test_what_is_confirmed_or_reverted_meanwhile_has_raced(world, operations):
    resize(world, operations)
    found = world.database.migrations_of([UUID], "finished")
    world.update(1, task_state="resize_reverting")
    by_uuid = {row.uuid: row for row in rows(world)}
    assert operations.confirm(found, by_uuid, "req-2") == {UUID: "raced"}
    assert migration(world).status == "finished"
    assert entries(world) == [UUID, f"{UUID}_resize"]


def test_files_that_cannot_be_removed_make_it_an_error_as_in_nova(world, operations):
    resize(world, operations)
    kept = world.path / "instances" / f"{UUID}_resize"
    kept.rename(world.path / "elsewhere")
    kept.symlink_to(world.path / "elsewhere")
    results = confirm(world, operations)
    assert "symbolic link" in str(results[UUID])
    assert migration(world).status == "error"
    assert (world.row(1).vm_state, world.row(1).task_state) == ("error", None)
    assert (world.path / "elsewhere" / "disk").exists()
    assert len(world.rows(models.instance_faults)) == 1


def test_what_is_asked_for_by_name_is_confirmed_by_its_newest_migration_alone(world, operations):
    for _ in range(2):
        world.update(1, vm_state="active")
        resize(world, operations)
    assert operations.confirm_instances(rows(world), "req-2") == {UUID: None}
    assert [row.status for row in world.rows(models.migrations)] == ["finished", "confirmed"]
    assert world.row(1).vm_state == "active"
    # What is left behind is none of an instance that is not resized.
    assert operations.confirm_instances(rows(world), "req-3") == {}


def test_an_interrupted_confirmation_is_not_carried_on_with_after_a_later_resize(world, operations):
    resize(world, operations)
    with world.engine.begin() as connection:
        connection.execute(sa.update(models.migrations).values(status="confirming"))
    world.update(1, vm_state="active")
    resize(world, operations)
    kept = (world.row(1), flavors(world), entries(world))
    assert carry_on(world) == {UUID: "raced"}
    assert (world.row(1), flavors(world), entries(world)) == kept
    assert [row.status for row in world.rows(models.migrations)] == ["confirming", "finished"]
    assert [row.action for row in world.rows(models.instance_actions)] == ["resize"] * 2


# Confirm, from host to host: host1 is the source, host2 the destination.


@pytest.fixture
def moved(world, tmp_path):
    """The agent that the instance has moved to from host1, with the same inventory."""
    (tmp_path / "host2").mkdir()
    move(world, 1)
    destination = other_host(world, tmp_path / "host2", {1: RUNNING})
    yield destination
    destination.close()


def carry_on(world):
    """Do as the source's agent does in each of its passes."""
    waiting, _ = world.database.waiting_migrations("host1", world.clock.utcnow())
    by_uuid = {row.uuid: row for row in rows(world)}
    return ResizeOperations(world.agent).carry_on_confirming(waiting, by_uuid)


def test_the_source_finds_in_the_migrations_row_what_the_destination_left_to_it(world, moved):
    assert confirm(moved, ResizeOperations(moved.agent)) == {UUID: None}
    # The source's agent is down, for an hour: nothing is lost, and nothing is half done.
    world.clock.sleep(3600)
    assert migration(world).status == "confirming"
    assert (world.row(1).vm_state, world.row(1).host) == ("resized", "host2")
    assert entries(world) == [f"{UUID}_resize"]
    # The destination's agent may be down by then.
    assert carry_on(world) == {UUID: None}
    assert entries(world) == []
    assert world.hypervisor.states == {}
    assert moved.hypervisor.states == {UUID: RUNNING}
    assert migration(world).status == "confirmed"
    assert (world.row(1).vm_state, world.row(1).task_state) == ("active", None)
    (action,) = world.rows(models.instance_actions)
    assert (action.action, action.message, action.request_id) == ("confirmResize", None, "req-2")
    (event,) = world.rows(models.instance_actions_events)
    assert (event.result, event.host) == ("Success", "host1")
    assert carry_on(world) == {}


def test_a_hypervisor_that_does_not_answer_is_asked_again_in_a_later_pass(world, moved):
    confirm(moved, ResizeOperations(moved.agent))
    world.hypervisor.available = False
    (failure,) = carry_on(world).values()
    assert isinstance(failure, HypervisorUnavailable)
    assert migration(world).status == "confirming"
    world.hypervisor.available = True
    assert carry_on(world) == {UUID: None}


def test_a_domain_that_runs_on_the_source_is_not_a_left_over(world, moved):
    confirm(moved, ResizeOperations(moved.agent))
    world.hypervisor.states[UUID] = RUNNING
    (failure,) = carry_on(world).values()
    assert "its domain runs here" in str(failure)
    assert world.hypervisor.states == {UUID: RUNNING}
    assert entries(world) == [f"{UUID}_resize"]
    assert migration(world).status == "error"
    assert world.row(1).vm_state == "error"


def test_two_agents_of_the_destination_confirm_once(world, moved):
    operations = ResizeOperations(moved.agent)
    found = moved.database.migrations_of([UUID], "finished")
    by_uuid = {row.uuid: row for row in rows(world)}
    assert operations.confirm(found, by_uuid, "req-2") == {UUID: None}
    assert operations.confirm(found, by_uuid, "req-3") == {UUID: "raced"}
    assert len(world.rows(models.instance_actions)) == 1
    assert entries(world) == [f"{UUID}_resize"]
