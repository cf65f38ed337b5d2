# SPDX-License-Identifier: Apache-2.0
"""Soft delete, restore, delete: what goes, what stays, and in which order."""

import os

import pytest
import sqlalchemy as sa

from cepheid.errors import CepheidError
from cepheid.run import Raced
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.operations import NotPossible
from cepheid_plugins.database import instances, models
from cepheid_plugins.database.errors import DatabaseUnavailable
from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.tasks.run_pending_deletes import RunPendingDeletes
from tests.leftover_worlds import build
from tests.worlds import disk_world, let_another_domain_use, uuid_of

RUNNING, SHUTDOWN = 1, 4
UUID = uuid_of(1)


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2])
    with world.engine.begin() as connection:
        for number in (1, 2):
            owner = {"instance_uuid": uuid_of(number), "deleted": 0}
            for table in (models.instance_metadata, models.instance_system_metadata):
                connection.execute(sa.insert(table).values(key="color", value="blue", **owner))
            connection.execute(
                sa.insert(models.block_device_mapping).values(
                    destination_type="volume", volume_id=f"volume-{number}", **owner
                )
            )
    yield world
    world.close()


@pytest.fixture
def operations(world):
    return DeletionOperations(world.agent)


def rows(world, *numbers):
    return world.database.instances_by_uuid([uuid_of(number) for number in numbers])


def live(world, number):
    """Return how many live rows hang on an instance, by table."""
    found = {}
    with world.engine.connect() as connection:
        for table in models.DEPENDANTS:
            owner = table.c[instances.owner_column(table)]
            query = sa.select(sa.func.count()).where(owner == uuid_of(number), table.c.deleted == 0)
            found[table.name] = connection.scalar(query)
    return found


def test_deleting_removes_domain_files_and_the_row_with_all_that_hangs_on_it(world, operations):
    neighbour, before = world.row(2), live(world, 2)
    assert before["block_device_mapping"] == before["instance_extra"] == 1
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert list(world.hypervisor.states) == [uuid_of(2)]
    assert [path.name for path in (world.path / "instances").iterdir()] == [uuid_of(2)]
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("deleted", None, 0)
    assert (row.deleted, row.cleaned) == (row.id, 1)
    assert row.deleted_at == row.terminated_at == world.clock.utcnow()
    assert set(live(world, 1).values()) == {0}
    # Nothing of the neighbour's is touched.
    assert (world.row(2), live(world, 2)) == (neighbour, before)
    (action,) = world.rows(models.instance_actions)
    assert (action.action, action.message) == ("delete", None)


def test_a_disk_outside_of_instances_path_stays_and_is_named(world, operations, caplog):
    elsewhere = world.path / "pool" / "disk.qcow2"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"precious")
    text = world.hypervisor.definition(UUID)
    world.hypervisor.definitions[UUID] = text.replace(
        str(world.path / "instances" / UUID / "disk"), str(elsewhere)
    )
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert elsewhere.exists()
    assert f"and stay: {elsewhere}" in caplog.text


def test_a_root_disk_on_the_network_stays_and_is_named(world, operations, caplog):
    text = world.hypervisor.definition(UUID)
    file = f"<source file='{world.path}/instances/{UUID}/disk'/>"
    assert file in text
    remote = f"<source protocol='rbd' name='vms/{UUID}_disk'/>"
    world.hypervisor.definitions[UUID] = text.replace(file, remote)
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert f"and stay: rbd:vms/{UUID}_disk" in caplog.text


def test_d5_an_instance_is_never_deleted_without_what_hangs_on_it(world, operations, monkeypatch):
    original = instances.owner_column

    def fail_at_the_last(table):
        if table is models.DEPENDANTS[-1]:
            raise RuntimeError("the server goes away")
        return original(table)

    before = live(world, 1)
    with monkeypatch.context() as patch:
        patch.setattr(instances, "owner_column", fail_at_the_last)
        with pytest.raises(RuntimeError):
            operations.delete(rows(world, 1), "req-1")
    row = world.row(1)
    assert (row.deleted, row.task_state) == (0, "deleting")
    # The attempt to remove its files is on record already.
    before["instance_system_metadata"] += 1
    assert live(world, 1) == before


def test_files_that_cannot_be_removed_leave_a_deleted_row_that_is_not_clean(world, operations):
    directory = world.path / "instances" / UUID
    (directory / "disk").rename(world.path / "precious")
    directory.rmdir()
    directory.symlink_to(world.path)
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    row = world.row(1)
    assert (row.deleted, row.cleaned) == (row.id, 0)
    assert (world.path / "precious").exists()


def test_a_disk_that_another_domain_uses_is_kept_until_nobody_does(world, operations, caplog):
    disk = world.path / "instances" / UUID / "disk"
    user = let_another_domain_use(world, disk)
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert disk.exists()
    assert UUID not in world.hypervisor.states
    row = world.row(1)
    assert (row.deleted, row.cleaned) == (row.id, 0)
    assert f"files of it are left: {disk} is named in a definition" in caplog.text
    task = build(world, RunPendingDeletes)
    world.clock.sleep(300)
    assert world.agent.run(task).counters == {"instances": 1, "skipped": 1}
    assert disk.exists()
    del world.hypervisor.states[user]
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}
    assert not disk.parent.exists()


def test_files_that_somebody_has_open_are_kept_when_the_guest_is_gone(world, operations, caplog):
    disk = world.path / "instances" / UUID / "disk"
    with disk.open("rb"):
        assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert disk.exists()
    assert (world.row(1).deleted, world.row(1).cleaned) == (world.row(1).id, 0)
    assert "somebody has begun to use its files" in caplog.text


def test_files_are_kept_while_copies_and_originals_have_one_directory(world, operations, caplog):
    world.agent.set("compute", shelved_path=str(world.path / "instances"))
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert (world.path / "instances" / UUID / "disk").exists()
    assert world.row(1).cleaned == 0
    assert "Set another shelved_path" in caplog.text


def test_a_file_whose_name_is_no_text_is_named_in_the_fault(world, operations, monkeypatch):
    def fail(uuid):
        raise StorageError(f"{os.fsdecode(bytes([0xFF]))} cannot be removed")

    monkeypatch.setattr(world.hypervisor, "power_off", fail)
    operations.delete(rows(world, 1), "req-1")
    (fault,) = world.rows(models.instance_faults)
    assert fault.message == "\\udcff cannot be removed"


def test_without_a_directory_of_instances_the_guest_is_deleted_all_the_same(world, operations):
    (world.path / "instances").rename(world.path / "not-mounted")
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert UUID not in world.hypervisor.states
    assert world.row(1).cleaned == 0


@pytest.mark.parametrize(
    ("earlier", "written"), [(None, "1"), ("2", "3"), ("", "1"), ("a few", "1")]
)
def test_the_attempt_to_remove_the_files_is_counted_before_the_row_is_deleted(
    world, operations, earlier, written
):
    if earlier is not None:
        world.database.set_system_metadata({UUID: {"clean_attempts": earlier}})
    operations.delete(rows(world, 1), "req-1")
    found = [
        (row.value, bool(row.deleted))
        for row in world.rows(models.instance_system_metadata)
        if row.key == "clean_attempts"
    ]
    assert found == [(written, True)]


def test_d7_a_deletion_that_fails_is_tried_again_whatever_became_of_earlier_lives(
    world, operations
):
    world.database.set_system_metadata({UUID: {"clean_attempts": "5"}})
    world.update(1, cleaned=1)
    world.clock.sleep(3600)
    directory = world.path / "instances" / UUID
    directory.rename(world.path / "instances" / "aside")
    directory.symlink_to(world.path)
    operations.delete(rows(world, 1), "req-1")
    directory.unlink()
    (world.path / "instances" / "aside").rename(directory)
    task = build(world, RunPendingDeletes)
    world.clock.sleep(300)
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}
    assert not directory.exists()


def test_a_guest_that_cannot_be_powered_off_keeps_its_files_and_its_row(world, operations):
    world.hypervisor.stubborn.add(UUID)
    results = operations.delete(rows(world, 1, 2), "req-1")
    assert "does not end" in str(results[UUID])
    assert results[uuid_of(2)] is None
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.deleted) == ("active", None, 0)
    assert (world.path / "instances" / UUID / "disk").exists()
    assert len(world.rows(models.instance_faults)) == 1


def test_a_hypervisor_that_does_not_answer_loses_nothing(world, operations):
    found = rows(world, 1, 2)
    world.hypervisor.available = False
    results = operations.delete(found, "req-1")
    assert all(isinstance(result, Exception) for result in results.values())
    assert [world.row(number).deleted for number in (1, 2)] == [0, 0]
    assert (world.path / "instances" / UUID / "disk").exists()


def test_a_soft_deleted_instance_is_shut_down_and_can_be_restored(world, operations):
    asked_at = world.clock.utcnow()
    assert operations.soft_delete(rows(world, 1), "req-1") == {UUID: None}
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("soft-delete", None, SHUTDOWN)
    # The row itself lives; deleted_at is when it was asked to go.
    assert (row.deleted, row.deleted_at) == (0, asked_at)
    assert (world.path / "instances" / UUID / "disk").exists()
    assert operations.restore(rows(world, 1), "req-2") == {UUID: None}
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)
    assert row.deleted_at is None


def test_a_guest_that_cannot_be_shut_down_is_not_soft_deleted(world, operations):
    world.hypervisor.deaf.add(UUID)
    world.hypervisor.stubborn.add(UUID)
    results = operations.soft_delete(rows(world, 1), "req-1")
    assert "does not end" in str(results[UUID])
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.deleted_at) == ("active", None, None)


def test_only_a_soft_deleted_instance_is_restored(world, operations):
    assert isinstance(operations.restore(rows(world, 1), "req-1")[UUID], NotPossible)


def test_an_instance_that_was_restored_meanwhile_is_not_deleted(world, operations):
    operations.soft_delete(rows(world, 1), "req-1")
    read_before = rows(world, 1)
    operations.restore(rows(world, 1), "req-2")
    assert operations.delete(read_before, "req-3") == {UUID: "raced"}
    assert world.row(1).deleted == 0
    assert world.hypervisor.states[UUID] == RUNNING
    assert (world.path / "instances" / UUID / "disk").exists()


def test_a_row_that_moves_on_during_its_deletion_is_left_and_what_was_done_is_told(
    world, operations, monkeypatch
):
    undefine = world.hypervisor.undefine

    def undefine_and_reset(uuid):
        undefine(uuid)
        world.update(1, task_state=None)

    monkeypatch.setattr(world.hypervisor, "undefine", undefine_and_reset)
    result = operations.delete(rows(world, 1), "req-1")[UUID]
    assert isinstance(result, Raced)
    assert "the delete was carried out, but its row had changed" in str(result)
    assert (world.row(1).vm_state, world.row(1).deleted) == ("active", 0)


def test_a_commit_whose_answer_was_lost_has_deleted_the_row(world, operations, monkeypatch):
    destroy = world.database.destroy_instances

    def destroy_and_try_again(*arguments):
        destroy(*arguments)
        return destroy(*arguments)

    monkeypatch.setattr(world.database, "destroy_instances", destroy_and_try_again)
    assert operations.delete(rows(world, 1), "req-1") == {UUID: None}
    assert world.row(1).deleted == world.row(1).id
    assert world.rows(models.instance_faults) == []


def test_a_deletion_that_cannot_be_recorded_says_that_it_was_carried_out(
    world, operations, monkeypatch
):
    def refuse(*arguments):
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(world.database, "destroy_instances", refuse)
    with pytest.raises(CepheidError, match=r"carried out, but that could not be recorded: away"):
        operations.delete(rows(world, 1), "req-1")
    assert UUID not in world.hypervisor.states
    assert world.row(1).task_state == "deleting"


def test_set_to_error_writes_the_state_and_a_fault_that_says_why(world, operations):
    read_before = rows(world, 1, 2)
    world.update(2, task_state="rebooting")
    results = operations.set_to_error(read_before, "It has come to nothing.")
    assert results == {UUID: None, uuid_of(2): "raced"}
    assert (world.row(1).vm_state, world.row(2).vm_state) == ("error", "active")
    (fault,) = world.rows(models.instance_faults)
    assert (fault.instance_uuid, fault.message) == (UUID, "It has come to nothing.")
