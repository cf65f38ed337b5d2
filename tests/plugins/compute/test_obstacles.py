# SPDX-License-Identifier: Apache-2.0
"""Whose files are not to be touched: those that another domain has, or stands on."""

import pytest

from cepheid_plugins.compute.leftovers import Leftovers
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


def disk(world, uuid):
    return world.path / "instances" / uuid / "disk"


def put_on(world, uuid, other):
    """Let the disk of an instance stand on that of another."""
    disk(world, uuid).unlink()
    below = disk(world, other)
    qemu_img("create", "-f", "qcow2", "-b", below, "-F", "qcow2", disk(world, uuid))


def obstacles(world, *uuids):
    return Leftovers(world.agent).obstacles_beside_domains(uuids)


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
