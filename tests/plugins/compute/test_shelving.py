# SPDX-License-Identifier: Apache-2.0
"""Shelve, offload, unshelve: nothing leaves the host of which there is no copy."""

import datetime
import os
import subprocess

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


def add_cdrom(world, path, content):
    """Let the guest have a CD-ROM; return its path."""
    path.write_bytes(content)
    drive = (
        "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>"
        f"<source file='{path}'/><target dev='sda' bus='sata'/><readonly/></disk></devices>"
    )
    text = world.hypervisor.definitions[UUID]
    world.hypervisor.definitions[UUID] = text.replace("</devices>", drive)
    return path


def qemu_img_snapshot(path):
    subprocess.run(["qemu-img", "snapshot", "-c", "before-the-upgrade", path], check=True)


def shelve_as_nova(world, image=None, shelved_at=None):
    world.update(1, vm_state="shelved", power_state=SHUTDOWN)
    world.hypervisor.states[UUID] = SHUTDOWN
    written = {"shelved_image_id": image, "shelved_at": shelved_at}
    world.database.set_system_metadata({UUID: {k: v for k, v in written.items() if v}})


def attach(world, **columns):
    """Attach a volume to the instance."""
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping).values(
                instance_uuid=UUID,
                destination_type="volume",
                source_type="volume",
                volume_id="a-volume",
                deleted=0,
                **columns,
            )
        )


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
    assert "is named in a definition of the domain guest-7" in str(results[UUID])
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


def test_what_is_in_the_drives_of_the_guest_leaves_and_comes_back_too(world, operations):
    seed = add_cdrom(world, disk(world).parent / "seed.iso", b"cloud-init" + bytes(2038))
    operations.shelve(rows(world, 1), "req-1")
    shelved = world.path / "shelved" / UUID
    assert sorted(os.listdir(shelved)) == ["domain.xml", "sda.qcow2", "vda.qcow2"]
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}
    assert not seed.parent.exists()
    assert operations.unshelve(rows(world, 1), "req-3") == {UUID: None}
    assert seed.read_bytes() == b"cloud-init" + bytes(2038)


def test_a_cdrom_that_lies_elsewhere_is_neither_copied_nor_removed(world, operations):
    shared = add_cdrom(world, world.path / "debian.iso", bytes(2048))
    operations.shelve(rows(world, 1), "req-1")
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}
    assert "sda.qcow2" not in os.listdir(world.path / "shelved" / UUID)
    shared.unlink()
    assert operations.unshelve(rows(world, 1), "req-3") == {UUID: None}


@pytest.mark.parametrize("name", ["notes.txt", "disk.before", "seed.iso", "snapshots"])
def test_an_instance_with_a_file_of_which_there_is_no_copy_is_not_offloaded(
    world, operations, name
):
    file = disk(world).parent / name
    file.mkdir() if name == "snapshots" else file.write_text("precious")
    operations.shelve(rows(world, 1), "req-1")
    results = operations.offload(rows(world, 1), "req-2")
    assert f"of {file} there is no copy" in str(results[UUID])
    assert file.exists()
    assert UUID in world.hypervisor.states
    assert (world.row(1).vm_state, world.row(1).host) == ("shelved", "host1")


def test_what_is_made_anew_is_in_no_offloads_way(world, operations):
    for name in ("console.log", "console.log.0", "disk.info"):
        (disk(world).parent / name).write_text(name)
    operations.shelve(rows(world, 1), "req-1")
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}


def test_a_guest_whose_disk_has_snapshots_inside_is_not_shelved_and_runs_on(world, operations):
    qemu_img_snapshot(disk(world))
    results = operations.shelve(rows(world, 1), "req-1")
    assert "has snapshots inside" in str(results[UUID])
    assert world.hypervisor.states[UUID] == RUNNING
    assert world.hypervisor.acts == []
    assert (world.row(1).vm_state, world.row(1).task_state) == ("active", None)
    assert not (world.path / "shelved" / UUID).exists()


def test_an_instance_that_was_given_another_disk_since_is_not_offloaded(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    other = disk(world).with_name("disk.snap")
    disk(world).rename(other)
    text = world.hypervisor.definitions[UUID]
    world.hypervisor.definitions[UUID] = text.replace(str(disk(world)), str(other))
    results = operations.offload(rows(world, 1), "req-2")
    assert "other disks than those that are put by" in str(results[UUID])
    assert other.exists()


def test_an_instance_whose_tpm_is_emulated_is_not_offloaded(world, operations):
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>"
    text = world.hypervisor.definitions[UUID]
    world.hypervisor.definitions[UUID] = text.replace("</devices>", tpm)
    operations.shelve(rows(world, 1), "req-1")
    results = operations.offload(rows(world, 1), "req-2")
    assert "what its TPM holds would be lost" in str(results[UUID])
    assert UUID in world.hypervisor.states
    assert disk(world).exists()


def test_a_disk_that_was_written_to_since_is_not_offloaded(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    copied_at = (world.path / "shelved" / UUID / "vda.qcow2").stat().st_mtime
    os.utime(disk(world), (copied_at, copied_at + 11))
    results = operations.offload(rows(world, 1), "req-2")
    assert f"{disk(world)} was written to after its copy was made" in str(results[UUID])
    assert UUID in world.hypervisor.states
    # Clocks of storage are not the same to the second.
    os.utime(disk(world), (copied_at, copied_at + 10))
    assert operations.offload(rows(world, 1), "req-3") == {UUID: None}


@pytest.mark.parametrize("name", ["instances", "link", f"instances/{uuid_of(2)}/shelved"])
def test_copies_among_the_originals_are_refused_before_anything_is_done(world, operations, name):
    (world.path / "link").symlink_to(world.path / "instances")
    world.agent.set("compute", shelved_path=str(world.path / name))
    with pytest.raises(StorageError, match=r"instances_path = .* and .* shelved_path = "):
        operations.shelve(rows(world, 1), "req-1")
    assert world.hypervisor.acts == []
    assert os.listdir(disk(world).parent) == ["disk"]
    assert (world.row(1).vm_state, world.row(1).task_state) == ("active", None)


def test_copies_may_be_beside_the_originals(world, operations):
    world.agent.set("compute", shelved_path=str(world.path / "instances" / "shelved"))
    assert operations.shelve(rows(world, 1), "req-1") == {UUID: None}


def test_an_instance_that_lies_among_the_copies_is_not_offloaded(world, operations):
    operations.shelve(rows(world, 1), "req-1")
    world.agent.set("compute", shelved_path=str(world.path / "instances"))
    results = operations.offload(rows(world, 1), "req-2")
    assert "shelved_path" in str(results[UUID])
    assert disk(world).exists()
    assert UUID in world.hypervisor.states


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


def test_an_instance_of_nova_leaves_with_what_nova_makes_anew(world, operations):
    shelve_as_nova(world, image="an-image-of-glance")
    for name in ("disk.config", "disk.eph0", "disk.swap", "disk.info", "console.log", "kernel"):
        (disk(world).parent / name).write_text(name)
    (disk(world).parent / "notes.txt").write_text("precious")
    results = operations.offload(rows(world, 1), "req-1")
    assert "notes.txt there is no copy" in str(results[UUID])
    (disk(world).parent / "notes.txt").unlink()
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}


def test_an_instance_of_nova_whose_disk_was_written_to_since_is_not_offloaded(world, operations):
    shelve_as_nova(world, image="an-image-of-glance", shelved_at="2026-11-23T11:00:00.000000")
    at = datetime.datetime(2026, 11, 23, 11, 0, tzinfo=datetime.UTC).timestamp()
    os.utime(disk(world), (at, at + 11))
    results = operations.offload(rows(world, 1), "req-1")
    assert "was written to after its copy was made" in str(results[UUID])
    assert disk(world).exists()
    os.utime(disk(world), (at, at))
    assert operations.offload(rows(world, 1), "req-2") == {UUID: None}


def test_an_instance_that_boots_from_a_volume_needs_no_image(world, operations):
    shelve_as_nova(world)
    attach(world, boot_index=0)
    disk(world).unlink()
    assert operations.offload(rows(world, 1), "req-1") == {UUID: None}


def test_an_instance_that_boots_from_a_volume_keeps_a_disk_that_is_here(world, operations):
    shelve_as_nova(world, image="an-image-of-glance")
    attach(world, boot_index=0)
    results = operations.offload(rows(world, 1), "req-1")
    assert f"of {disk(world)} there is no copy" in str(results[UUID])
    assert disk(world).exists()


@pytest.mark.parametrize("boot_index", [None, -1, 1])
def test_a_volume_that_it_does_not_boot_from_is_no_copy_of_its_disk(world, operations, boot_index):
    shelve_as_nova(world)
    attach(world, boot_index=boot_index)
    results = operations.offload(rows(world, 1), "req-1")
    assert "no image of its disks is on record" in str(results[UUID])
    assert disk(world).exists()
    assert UUID in world.hypervisor.states


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
