# SPDX-License-Identifier: Apache-2.0
"""Rescue and unrescue: from the rescue disk and back to the domain as it was."""

import pytest

from cepheid_plugins.compute.operations import NotPossible
from cepheid_plugins.compute.rescue import RescueOperations
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.driver import (
    DomainNotFound,
    HypervisorError,
    HypervisorUnavailable,
)
from cepheid_plugins.storage import qemu_img
from cepheid_plugins.storage.instances_path import StorageError
from tests.worlds import disk_world, uuid_of

RUNNING, SHUTDOWN = 1, 4
UUID = uuid_of(1)


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2])
    (tmp_path / "rescue.img").write_bytes(b"\0" * 65536)
    yield world
    world.close()


@pytest.fixture
def operations(world):
    return RescueOperations(world.agent)


def rows(world, *numbers):
    return world.database.instances_by_uuid([uuid_of(number) for number in numbers])


def files(world):
    return sorted(path.name for path in (world.path / "instances" / UUID).iterdir())


def rescue(world, operations):
    image = str(world.path / "rescue.img")
    assert operations.rescue(rows(world, 1), "req-1", image) == {UUID: None}


def test_a_rescued_guest_boots_from_a_copy_of_the_image_with_its_own_disk_attached(
    world, operations
):
    before = world.hypervisor.definition(UUID)
    rescue(world, operations)
    assert files(world) == ["disk", "disk.rescue", "unrescue.xml"]
    assert (world.path / "instances" / UUID / "unrescue.xml").read_text() == before
    assert [disk.target for disk in world.hypervisor.disk_files(UUID)] == ["vda", "vdb"]
    assert '<boot order="1"/>' in world.hypervisor.definition(UUID)
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("rescued", None, RUNNING)
    assert row.launched_at == world.clock.utcnow()
    (action,) = world.rows(models.instance_actions)
    assert (action.action, action.message) == ("rescue", None)


def test_an_image_that_cannot_be_read_changes_nothing(world, operations):
    before = world.row(1)
    with pytest.raises(StorageError, match=r"nothing\.img"):
        operations.rescue(rows(world, 1), "req-1", str(world.path / "nothing.img"))
    assert world.row(1) == before
    assert world.hypervisor.acts == []


def test_an_unrescue_brings_the_domain_back_as_it_was_and_removes_what_the_rescue_needed(
    world, operations
):
    before = world.hypervisor.definition(UUID)
    rescue(world, operations)
    assert operations.unrescue(rows(world, 1), "req-2") == {UUID: None}
    assert world.hypervisor.definition(UUID) == before
    assert files(world) == ["disk"]
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)


def test_only_a_rescued_instance_is_unrescued(world, operations):
    results = operations.unrescue(rows(world, 1), "req-1")
    assert isinstance(results[UUID], NotPossible)
    assert world.hypervisor.acts == []


def test_an_unrescue_without_unrescue_xml_fails_as_in_nova_and_the_guest_goes_on(world, operations):
    rescue(world, operations)
    (world.path / "instances" / UUID / "unrescue.xml").unlink()
    results = operations.unrescue(rows(world, 1), "req-2")
    assert isinstance(results[UUID], StorageError)
    assert (world.row(1).vm_state, world.row(1).task_state) == ("error", None)
    assert world.hypervisor.states[UUID] == RUNNING
    assert world.hypervisor.is_rescue(UUID)
    (fault,) = world.rows(models.instance_faults)
    assert "unrescue.xml is missing" in fault.message


def test_an_unrescue_xml_of_another_domain_is_refused(world, operations):
    rescue(world, operations)
    other = world.hypervisor.definition(uuid_of(2))
    (world.path / "instances" / UUID / "unrescue.xml").write_text(other)
    results = operations.unrescue(rows(world, 1), "req-2")
    assert f"not of {UUID}" in str(results[UUID])
    assert world.row(1).vm_state == "error"
    assert world.hypervisor.definition(uuid_of(2)) == other
    assert "unrescue.xml" in files(world)


def test_a_domain_that_somebody_undefined_is_defined_again_from_unrescue_xml(world, operations):
    before = world.hypervisor.definition(UUID)
    rescue(world, operations)
    world.hypervisor.states[UUID] = SHUTDOWN
    world.hypervisor.undefine(UUID)
    assert operations.unrescue(rows(world, 1), "req-2") == {UUID: None}
    assert world.hypervisor.definition(UUID) == before
    assert world.hypervisor.states[UUID] == RUNNING


def test_an_instance_that_cannot_be_rescued_does_not_keep_the_others_waiting(world, operations):
    del world.hypervisor.states[UUID]
    image = str(world.path / "rescue.img")
    results = operations.rescue(rows(world, 1, 2), "req-1", image)
    assert "has no domain" in str(results[UUID])
    assert results[uuid_of(2)] is None
    assert (world.row(1).vm_state, world.row(2).vm_state) == ("active", "rescued")


def test_the_rescue_disk_of_a_rescue_that_was_given_up_is_not_booted(world, operations):
    left = world.path / "instances" / UUID / "disk.rescue"
    left.write_bytes(b"another image")
    rescue(world, operations)
    assert qemu_img.info(str(left))["virtual-size"] == 65536


def test_a_guest_that_does_not_boot_the_rescue_disk_is_as_it_was_but_off(
    world, operations, monkeypatch
):
    def refuse(uuid):
        raise HypervisorError("no memory")

    before = world.hypervisor.definition(UUID)
    monkeypatch.setattr(world.hypervisor, "start", refuse)
    image = str(world.path / "rescue.img")
    results = operations.rescue(rows(world, 1), "req-1", image)
    assert "no memory" in str(results[UUID])
    assert world.hypervisor.definition(UUID) == before
    assert world.hypervisor.states[UUID] == SHUTDOWN
    assert files(world) == ["disk"]
    assert (world.row(1).vm_state, world.row(1).task_state) == ("active", None)


def test_a_start_that_is_not_known_to_have_failed_leaves_the_rescue_disk(
    world, operations, monkeypatch
):
    def hang(uuid):
        raise HypervisorUnavailable("virDomainCreate has not returned")

    monkeypatch.setattr(world.hypervisor, "start", hang)
    operations.rescue(rows(world, 1), "req-1", str(world.path / "rescue.img"))
    assert files(world) == ["disk", "disk.rescue", "unrescue.xml"]
    assert world.hypervisor.is_rescue(UUID)


def test_a_domain_that_vanishes_before_its_rescue_is_not_brought_back(
    world, operations, monkeypatch
):
    def vanish(uuid):
        del world.hypervisor.states[uuid]
        raise DomainNotFound("fake:/// has no domain")

    monkeypatch.setattr(world.hypervisor, "start", vanish)
    results = operations.rescue(rows(world, 1), "req-1", str(world.path / "rescue.img"))
    assert "has no domain" in str(results[UUID])
    assert UUID not in world.hypervisor.states
    assert "disk" in files(world)


def test_a_guest_whose_memory_is_saved_is_not_rescued(world, operations):
    world.hypervisor.states[UUID] = SHUTDOWN
    world.hypervisor.saved.add(UUID)
    results = operations.rescue(rows(world, 1), "req-1", str(world.path / "rescue.img"))
    assert "its memory is saved" in str(results[UUID])
    assert world.hypervisor.acts == []
    assert world.hypervisor.saved == {UUID}
    assert files(world) == ["disk"]


def test_a_hypervisor_that_goes_away_leaves_it_rescued(world, operations):
    rescue(world, operations)
    world.hypervisor.available = False
    results = operations.unrescue(rows(world, 1), "req-2")
    assert "does not answer" in str(results[UUID])
    assert (world.row(1).vm_state, world.row(1).task_state) == ("rescued", None)
    assert "unrescue.xml" in files(world)
