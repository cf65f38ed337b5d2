# SPDX-License-Identifier: Apache-2.0
"""Whose files are not to be touched: those that another domain has, or stands on."""

import pytest

from cepheid_plugins.compute.obstacles import LOOKS, Obstacles
from tests.images import qemu_img
from tests.worlds import disk_world, uuid_of

FIRST, SECOND, THIRD = (uuid_of(number) for number in (1, 2, 3))
SHUTDOWN = 4


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2, 3])
    world.hypervisor.states.update(dict.fromkeys(world.hypervisor.states, SHUTDOWN))
    yield world
    world.close()


class Looks:
    """How often the definitions were read, and what happens right after each time."""

    def __init__(self):
        self.number = 0
        self.then = lambda: None


@pytest.fixture
def looks(world, monkeypatch):
    """The times that the definitions were read; afterwards, what a test gives for each is done."""
    named_files = world.hypervisor.named_files
    looks = Looks()

    def look():
        found = named_files()
        looks.number += 1
        looks.then()
        return found

    monkeypatch.setattr(world.hypervisor, "named_files", look)
    return looks


def disk(world, uuid):
    return world.path / "instances" / uuid / "disk"


def put_on(world, uuid, other):
    """Let the disk of an instance stand on that of another."""
    disk(world, uuid).unlink()
    below = disk(world, other)
    qemu_img("create", "-f", "qcow2", "-b", below, "-F", "qcow2", disk(world, uuid))


def obstacles(world, *uuids):
    return Obstacles(world.agent).beside_domains(uuids)


def test_a_domains_own_disk_is_no_obstacle(world):
    assert obstacles(world, FIRST, SECOND, THIRD) == {}


@pytest.mark.parametrize("also", [(), (FIRST,)], ids=["alone", "with the one that stands on it"])
def test_a_disk_that_another_one_stands_on_is_kept_though_both_are_to_go(world, also):
    put_on(world, FIRST, SECOND)
    found = obstacles(world, *also, SECOND)
    assert list(found) == [SECOND]
    assert f"the disk {disk(world, FIRST)} of a domain stands on" in found[SECOND]


def test_what_a_guest_that_is_to_go_has_lost_is_no_obstacle(world):
    disk(world, FIRST).unlink()
    assert obstacles(world, FIRST) == {}
    assert list(obstacles(world, SECOND)) == [SECOND]


def test_a_guest_that_has_moved_and_waits_for_its_confirmation_is_no_obstacle(world):
    """Nova keeps the domain on the source, and its files under another name."""
    put_on(world, FIRST, THIRD)
    disk(world, FIRST).parent.rename(world.path / "instances" / f"{FIRST}_resize")
    assert obstacles(world, SECOND) == {}
    assert list(obstacles(world, THIRD)) == [THIRD]


def test_a_guest_that_is_deleted_while_one_looks_is_no_obstacle(world, looks):
    """Its domain first, then its files: another task, or Nova."""

    def delete():
        world.hypervisor.states.pop(FIRST, None)
        disk(world, FIRST).unlink(missing_ok=True)

    looks.then = delete
    assert obstacles(world, SECOND) == {}


def test_what_a_guest_has_lost_is_looked_for_again_only_where_domains_have_changed(world, looks):
    disk(world, FIRST).unlink()
    assert f"{disk(world, FIRST)} is missing" in obstacles(world, SECOND)[SECOND]
    assert looks.number == 2


def test_where_domains_come_and_go_all_the_time_it_ends_with_what_is_not_known(world, looks):
    disk(world, FIRST).unlink()

    def change():
        if world.hypervisor.states.pop(THIRD, None) is None:
            world.hypervisor.states[THIRD] = SHUTDOWN

    looks.then = change
    assert f"{disk(world, FIRST)} is missing" in obstacles(world, SECOND)[SECOND]
    assert looks.number == LOOKS
