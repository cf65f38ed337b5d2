# SPDX-License-Identifier: Apache-2.0
"""Reaping: what is said of a deleted instance when only the record of it fails."""

import pytest

from cepheid_plugins.compute.reaping import ReapingOperations
from cepheid_plugins.database.errors import DatabaseUnavailable
from tests.worlds import disk_world, uuid_of

GONE, ALIVE = uuid_of(1), uuid_of(2)


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2])
    world.update(1, vm_state="deleted", deleted=world.row(1).id, cleaned=0)
    yield world
    world.close()


def test_what_is_reaped_is_recorded_as_clean_and_what_is_alive_is_left(world):
    assert ReapingOperations(world.agent).reap([GONE, ALIVE]) == {GONE: None, ALIVE: "raced"}
    assert world.row(1).cleaned == 1
    assert list(world.hypervisor.states) == [ALIVE]


def test_disks_that_are_not_among_its_files_stay_and_are_named(world, caplog):
    text = world.hypervisor.definition(GONE)
    file = f"<source file='{world.path}/instances/{GONE}/disk'/>"
    assert file in text
    remote = f"<source protocol='rbd' name='vms/{GONE}_disk'/>"
    world.hypervisor.definitions[GONE] = text.replace(file, remote)
    assert ReapingOperations(world.agent).reap([GONE]) == {GONE: None}
    assert f"and stay: rbd:vms/{GONE}_disk" in caplog.text


def test_where_the_record_fails_it_is_told_what_was_removed(world, monkeypatch):
    def refuse(*arguments):
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(world.database, "set_cleaned", refuse)
    results = ReapingOperations(world.agent).reap([GONE, ALIVE])
    assert str(results[GONE]) == (
        "its domain and files are removed, but that could not be recorded: away"
    )
    assert results[ALIVE] == "raced"
    assert list(world.hypervisor.states) == [ALIVE]
