# SPDX-License-Identifier: Apache-2.0
"""Shelve, offload, unshelve: nothing leaves the host of which there is no copy."""

import pytest
import sqlalchemy as sa

from cepheid.run import Run
from cepheid_plugins.compute.operations import NotPossible
from cepheid_plugins.compute.shelving import ShelvingOperations
from cepheid_plugins.database import models
from cepheid_plugins.storage.instances_path import InstancesPath, StorageError
from tests.killing import Killed
from tests.worlds import disk_world, let_another_domain_use, uuid_of

RUNNING, SHUTDOWN = 1, 4
UUID = uuid_of(1)


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2])
    yield world
    world.close()


@pytest.fixture
def operations(world):
    return ShelvingOperations(world.agent)


def rows(world, *numbers):
    return world.database.instances_by_uuid([uuid_of(number) for number in numbers])


def disk(world):
    return world.path / "instances" / UUID / "disk"


def test_shelving_shuts_down_puts_a_copy_by_and_says_where(world, operations):
    assert operations.shelve(rows(world, 1), "req-1") == {UUID: None}
    shelved = world.path / "shelved" / UUID
    assert sorted(path.name for path in shelved.iterdir()) == ["domain.xml", "vda.qcow2"]
    assert world.hypervisor.states[UUID] == SHUTDOWN
    assert disk(world).exists()
    assert (world.row(1).vm_state, world.row(1).host) == ("shelved", "host1")
    assert world.database.system_metadata([UUID], "shelved_host") == {UUID: "host1"}
    # As Nova writes it: a naive time, with a fraction of a second or without.
    assert world.database.system_metadata([UUID], "shelved_at") == {
        UUID: world.clock.utcnow().isoformat(timespec="microseconds")
    }


def test_offloading_removes_domain_and_files_and_the_instance_is_on_no_host(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}
    assert UUID not in world.hypervisor.states
    assert not disk(world).parent.exists()
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("shelved_offloaded", None, SHUTDOWN)
    assert (row.host, row.node, row.launched_on, row.deleted) == (None, None, None, 0)


def test_an_instance_whose_copy_is_gone_is_not_offloaded(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    for path in (world.path / "shelved" / UUID).iterdir():
        path.unlink()
    results = operations.offload(rows(world, 1), "req-2")
    assert isinstance(results[UUID], NotPossible)
    assert disk(world).exists()
    assert UUID in world.hypervisor.states
    assert (world.row(1).vm_state, world.row(1).task_state) == ("shelved", None)


def test_an_instance_of_which_one_disk_has_no_copy_is_not_offloaded(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    (world.path / "shelved" / UUID / "vda.qcow2").unlink()
    results = operations.offload(rows(world, 1), "req-2")
    assert isinstance(results[UUID], NotPossible)
    assert disk(world).exists()
    assert UUID in world.hypervisor.states


def test_an_instance_whose_disk_another_domain_uses_is_not_offloaded(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    let_another_domain_use(world, disk(world))
    results = operations.offload(rows(world, 1), "req-2")
    assert "is a disk of the domain guest-7" in str(results[UUID])
    assert disk(world).exists()
    assert UUID in world.hypervisor.states
    assert (world.row(1).vm_state, world.row(1).host) == ("shelved", "host1")


def test_an_instance_whose_disk_somebody_has_open_is_not_offloaded_meanwhile(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    with disk(world).open("rb"):
        results = operations.offload(rows(world, 1), "req-2")
        assert "are kept here" in str(results[UUID])
        assert UUID in world.hypervisor.states
    assert operations.offload(rows(world, 1), "req-3") == {UUID: None}


def test_an_instance_that_ran_until_its_offload_stays_here_while_its_files_are_used(
    world, operations
):
    operations.shelve(rows(world, 1), "req-1")
    world.hypervisor.states[UUID] = RUNNING
    with disk(world).open("rb"):
        results = operations.offload(rows(world, 1), "req-2")
    assert "somebody has begun to use its files" in str(results[UUID])
    assert disk(world).exists()
    assert (world.row(1).vm_state, world.row(1).host) == ("shelved", "host1")
    assert operations.offload(rows(world, 1), "req-3") == {UUID: None}
    assert not disk(world).parent.exists()


def test_a_guest_that_is_back_stays_though_its_copy_cannot_be_removed(
    world, operations, monkeypatch
):
    remove, tried = InstancesPath.remove, []

    def remove_once(files, name):
        if name in tried:
            raise StorageError("Input/output error")
        tried.append(name)
        remove(files, name)

    operations.shelve(rows(world, 1), "req-1")
    monkeypatch.setattr(InstancesPath, "remove", remove_once)
    assert operations.unshelve(rows(world, 1), "req-2") == {UUID: None}
    assert world.row(1).vm_state == "active"
    assert world.hypervisor.states[UUID] == RUNNING


def test_a_guest_whose_unshelving_was_interrupted_after_its_start_is_not_offloaded(
    world, operations, monkeypatch
):
    start = world.hypervisor.start

    def die(*arguments):
        raise Killed

    def start_and_die(uuid):
        start(uuid)
        raise Killed

    def unshelve(context):
        with monkeypatch.context() as patch:
            patch.setattr(world.hypervisor, "start", start_and_die)
            patch.setattr(operations._claims, "record", die)
            operations.unshelve(rows(world, 1), context.request_id)

    def run():
        return Run("instance_unshelve", "test", "operator", False, world.clock.utcnow())

    operations.shelve(rows(world, 1), "req-1")
    with pytest.raises(Killed):
        world.agent.runner.execute(run(), unshelve)
    world.agent.runner.execute(
        run(), lambda context: operations.release_interrupted(context, rows(world, 1))
    )
    assert (world.row(1).vm_state, world.row(1).task_state) == ("shelved", None)
    results = operations.offload(rows(world, 1), "req-2")
    assert "they are kept here" in str(results[UUID])
    assert world.hypervisor.states[UUID] == RUNNING
    assert disk(world).exists()
    assert operations.unshelve(rows(world, 1), "req-3") == {UUID: None}


def test_an_instance_of_nova_is_offloaded_when_its_image_is_on_record(world, operations):
    world.update(1, vm_state="shelved", power_state=SHUTDOWN)
    world.hypervisor.states[UUID] = SHUTDOWN
    results = operations.offload(rows(world, 1), "req-1")
    assert "no image" in str(results[UUID])
    assert disk(world).exists()
    world.database.set_system_metadata({UUID: {"shelved_image_id": "an-image-of-glance"}})
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}
    assert not disk(world).parent.exists()


def test_an_instance_that_boots_from_a_volume_needs_no_image(world, operations):
    world.update(1, vm_state="shelved", power_state=SHUTDOWN)
    world.hypervisor.states[UUID] = SHUTDOWN
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping).values(
                instance_uuid=UUID,
                destination_type="volume",
                source_type="volume",
                boot_index=0,
                volume_id="a-volume",
                deleted=0,
            )
        )
    assert operations.offload(rows(world, 1), "req-1") == {UUID: None}


def test_only_a_shelved_instance_is_offloaded(world, operations):
    results = operations.offload(rows(world, 1), "req-1")
    assert isinstance(results[UUID], NotPossible)
    assert disk(world).exists()


def test_an_offload_that_the_hypervisor_refuses_leaves_the_files_and_the_others_go_on(
    world, operations, monkeypatch
):
    operations.shelve(rows(world, 1, 2), "req-1")
    world.hypervisor.states[UUID] = RUNNING
    world.hypervisor.stubborn.add(UUID)
    results = operations.offload(rows(world, 1, 2), "req-2")
    assert "does not end" in str(results[UUID])
    assert results[uuid_of(2)] is None
    assert disk(world).exists()
    assert (world.row(1).vm_state, world.row(1).host) == ("shelved", "host1")
    assert world.row(2).vm_state == "shelved_offloaded"
    assert len(world.rows(models.instance_faults)) == 1


@pytest.mark.parametrize("offloaded", [False, True])
def test_an_unshelved_instance_runs_here_again_and_its_copy_is_gone(world, operations, offloaded):
    before = world.hypervisor.definition(UUID)
    operations.shelve(rows(world, 1), "req-1")
    if offloaded:
        operations.offload(rows(world, 1), "req-2")
    assert operations.unshelve(rows(world, 1), "req-3") == {UUID: None}
    assert world.hypervisor.states[UUID] == RUNNING
    assert world.hypervisor.definition(UUID) == before
    assert disk(world).exists()
    assert not (world.path / "shelved" / UUID).exists()
    row = world.row(1)
    assert (row.vm_state, row.host, row.node) == ("active", "host1", "node1")


def test_what_another_host_put_by_is_not_unshelved_here(world, operations):
    world.update(1, vm_state="shelved_offloaded", host=None, node=None)
    world.hypervisor.states[UUID] = SHUTDOWN
    world.hypervisor.undefine(UUID)
    (world.path / "shelved").mkdir()
    with pytest.raises(NotPossible, match="not in"):
        operations.unshelve(rows(world, 1), "req-1")
    assert world.row(1).host is None
