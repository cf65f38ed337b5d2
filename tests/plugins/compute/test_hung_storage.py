# SPDX-License-Identifier: Apache-2.0
"""Storage that hangs holds up one operation, and no other task: D20."""

import os
import threading

import pytest

from cepheid import concurrency, errors
from cepheid_plugins.compute import power_state
from cepheid_plugins.compute.reaping import ReapingOperations
from cepheid_plugins.database import models
from cepheid_plugins.storage import native_files, trees
from cepheid_plugins.storage.instances_path import InstancesPath
from tests import operations
from tests.fake_agent import eventually
from tests.worlds import disk_world

#: What waits for storage, by the module that it is called in.
CALLS = [(os, name) for name in ("open", "stat", "mkdir", "makedirs", "listdir")]
CALLS += [(os.path, name) for name in ("realpath", "exists", "isdir")]


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [operations.NUMBER])
    yield world
    world.close()


def in_order():
    """All operations, each in a state in which it is possible."""
    return ["stop", "start", "reboot", "rescue", "unrescue", "resize", "confirm", "shelve",
            "offload", "unshelve", "soft-delete", "restore", "delete"]  # fmt: skip


def test_d20_no_operation_waits_for_storage_on_its_own_thread(world, monkeypatch):
    ident = concurrency.original("threading").get_native_id
    own, seen, waited = ident(), [], []
    folders = tuple(str(world.path / name) for name in ("instances", "shelved"))

    def watched(name, call):
        def watch(path, *arguments, **named):
            if isinstance(path, str) and path.startswith(folders):
                (waited if ident() == own else seen).append(name)
            return call(path, *arguments, **named)

        return watch

    for owner, name in CALLS:
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    assert set(in_order()) == set(operations.OPERATIONS)
    for name in in_order():
        assert operations.run(world, name) == {operations.UUID: None}, name
        assert waited == [], name
    assert {"open", "realpath", "exists", "isdir", "makedirs"} <= set(seen)


def delete_row(world):
    row = world.row(operations.NUMBER)
    world.update(
        operations.NUMBER, vm_state="deleted", deleted=row.id, deleted_at=world.clock.utcnow()
    )


def test_d20_other_tasks_go_on_while_what_is_reaped_is_removed_from_storage_that_hangs(
    world, monkeypatch
):
    delete_row(world)
    threads = concurrency.original("threading")
    hangs, released, remove = threads.Event(), threads.Event(), trees.remove

    def hang(*arguments):
        hangs.set()
        released.wait(20)
        remove(*arguments)

    def other_task():
        eventually(hangs.is_set)
        released.set()

    monkeypatch.setattr(trees, "remove", hang)
    other = threading.Thread(target=other_task)
    other.start()
    assert ReapingOperations(world.agent).reap([operations.UUID]) == {operations.UUID: None}
    assert released.is_set()
    other.join()


def test_d20_nothing_is_deleted_while_the_storage_hangs(world, monkeypatch):
    over = concurrency.original("threading").Event()
    monkeypatch.setattr(native_files, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(trees, "survey", lambda *arguments: over.wait(20))
    world.hypervisor.states[operations.UUID] = power_state.SHUTDOWN
    results = operations.run(world, "delete")
    over.set()
    assert isinstance(results[operations.UUID], errors.CallTimeout)
    assert operations.UUID in world.hypervisor.states
    row = world.row(operations.NUMBER)
    assert (row.vm_state, row.task_state, row.deleted) == ("active", None, 0)


@pytest.mark.parametrize(
    ("before", "operation", "call", "vm_state"),
    [("rescue", "unrescue", "read", "rescued"), ("resize", "confirm", "remove", "resized")],
)
def test_d20_an_instance_whose_storage_hangs_stays_what_it_was_and_is_asked_again(
    world, monkeypatch, before, operation, call, vm_state
):
    operations.run(world, before)
    over = concurrency.original("threading").Event()
    with monkeypatch.context() as hanging:
        hanging.setattr(native_files, "LOOK_SECONDS", 0.1)
        hanging.setattr(native_files, "REMOVE_SECONDS", 0.1)
        hanging.setattr(InstancesPath, call, lambda *arguments: over.wait(20))
        results = operations.run(world, operation)
        over.set()
    assert isinstance(results[operations.UUID], errors.CallTimeout)
    row = world.row(operations.NUMBER)
    assert (row.vm_state, row.task_state) == (vm_state, None)
    assert "error" not in {row.status for row in world.rows(models.migrations)}
    assert operations.run(world, operation) == {operations.UUID: None}
    assert world.row(operations.NUMBER).vm_state == "active"


def test_d20_what_storage_that_hangs_keeps_from_being_reaped_is_left_to_another_task(
    world, monkeypatch
):
    delete_row(world)
    over = concurrency.original("threading").Event()
    monkeypatch.setattr(native_files, "REMOVE_SECONDS", 0.1)
    monkeypatch.setattr(trees, "remove", lambda *arguments: over.wait(20))
    results = ReapingOperations(world.agent).reap([operations.UUID])
    over.set()
    assert isinstance(results[operations.UUID], errors.CallTimeout)
    assert world.row(operations.NUMBER).cleaned != 1
