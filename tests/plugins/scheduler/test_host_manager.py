# SPDX-License-Identifier: Apache-2.0
"""HostManager: which of a host's instances are trusted, and when the database is read."""

import threading

import pytest

from cepheid_plugins.database.errors import DatabaseUnavailable
from cepheid_plugins.scheduler import HostManager
from cepheid_plugins.scheduler.host_manager import MAX_AGE_SECONDS
from tests.fake_agent import eventually
from tests.worlds import fake_world, uuid_of

A, B, C = "a", "b", "c"


class Inventory:
    """What the database says, by host, and which hosts were asked for."""

    def __init__(self, **hosts):
        self.hosts = hosts
        self.asked = []
        self.available = True

    def instance_uuids_on_host(self, host):
        self.asked.append(host)
        if not self.available:
            raise DatabaseUnavailable("The database does not answer.")
        return list(self.hosts.get(host, []))


@pytest.fixture
def inventory():
    return Inventory(host1=[A, B])


@pytest.fixture
def hosts(inventory, clock):
    return HostManager(inventory, monotonic=clock.monotonic)


@pytest.fixture
def confirmed(hosts, inventory):
    """A manager that host1 has told the same as the database."""
    hosts.sync_instance_info("host1", [A, B])
    hosts.sync_instance_info("host1", [B, A])
    assert hosts.is_confirmed("host1")
    inventory.asked.clear()
    return hosts


def test_a_sync_of_an_unknown_host_reads_the_database(hosts, inventory):
    hosts.sync_instance_info("host1", [A])
    assert inventory.asked == ["host1"]
    assert hosts.instances("host1") == {A, B}
    assert not hosts.is_confirmed("host1")


def test_a_sync_that_matches_confirms_in_whatever_order_and_reads_nothing(confirmed, inventory):
    confirmed.sync_instance_info("host1", [B, A, B])
    assert confirmed.instances("host1") == {A, B}
    assert inventory.asked == []


@pytest.mark.parametrize("said", [[A], [A, B, C], [A, C], []])
def test_a_sync_that_does_not_match_reads_the_database(confirmed, inventory, said):
    inventory.hosts["host1"] = [C]
    confirmed.sync_instance_info("host1", said)
    assert inventory.asked == ["host1"]
    assert not confirmed.is_confirmed("host1")
    confirmed.sync_instance_info("host1", [C])
    assert confirmed.instances("host1") == {C}
    assert confirmed.is_confirmed("host1")


def test_what_was_not_confirmed_is_read_each_time(hosts, inventory):
    hosts.sync_instance_info("host1", [A])
    inventory.hosts["host1"] = [C]
    assert hosts.instances("host1") == {C}
    assert inventory.asked == ["host1", "host1"]


def test_an_unknown_host_is_read_and_not_remembered(hosts, inventory):
    assert hosts.instances("host1") == {A, B}
    assert hosts.instances("host9") == frozenset()
    assert hosts.hosts == []


def test_a_host_without_instances_can_be_confirmed(hosts, inventory):
    hosts.sync_instance_info("host2", [])
    hosts.sync_instance_info("host2", [])
    inventory.asked.clear()
    assert hosts.instances("host2") == frozenset()
    assert hosts.is_confirmed("host2")
    assert inventory.asked == []


def test_d12_an_emptied_set_is_healed_from_the_database_and_not_from_itself(confirmed, inventory):
    for uuid in (A, B):
        confirmed.delete_instance_info("host1", uuid)
    assert confirmed.instances("host1") == frozenset()
    confirmed.sync_instance_info("host1", [A, B])
    assert inventory.asked == ["host1"]
    assert confirmed.instances("host1") == {A, B}


def test_an_update_adds_instances_and_confirms(confirmed, inventory):
    confirmed.update_instance_info("host1", [C, A])
    assert confirmed.instances("host1") == {A, B, C}
    assert inventory.asked == []


def test_an_update_of_an_unknown_host_reads_the_database(hosts, inventory):
    hosts.update_instance_info("host1", [C])
    assert inventory.asked == ["host1"]
    assert not hosts.is_confirmed("host1")
    assert hosts.instances("host1") == {A, B}


def test_a_deletion_takes_one_away_and_confirms(confirmed, inventory):
    confirmed.delete_instance_info("host1", A)
    assert confirmed.instances("host1") == {B}
    assert inventory.asked == []


def test_a_deletion_of_what_is_not_there_is_done_already(confirmed):
    confirmed.delete_instance_info("host1", C)
    assert confirmed.instances("host1") == {A, B}


def test_a_deletion_on_an_unknown_host_reads_the_database(hosts, inventory):
    hosts.delete_instance_info("host1", A)
    assert inventory.asked == ["host1"]
    assert hosts.instances("host1") == {A, B}


def test_the_host_is_compared_exactly(confirmed, inventory):
    assert confirmed.instances("HOST1") == frozenset()
    confirmed.sync_instance_info("HOST1", [C])
    assert confirmed.instances("host1") == {A, B}


def test_the_word_of_a_host_that_fell_silent_counts_no_more(confirmed, inventory, clock):
    inventory.hosts["host1"] = [C]  # it died, and its instances were moved
    clock.sleep(MAX_AGE_SECONDS)
    assert confirmed.instances("host1") == {A, B}
    clock.sleep(1)
    assert not confirmed.is_confirmed("host1")
    assert confirmed.instances("host1") == {C}


def test_a_set_that_is_known_to_be_wrong_is_not_served_while_the_database_is_away(
    confirmed, inventory
):
    inventory.available = False
    with pytest.raises(DatabaseUnavailable):
        confirmed.sync_instance_info("host1", [A])
    with pytest.raises(DatabaseUnavailable):
        confirmed.instances("host1")
    inventory.available = True
    assert confirmed.instances("host1") == {A, B}


def test_a_confirmed_set_is_served_while_the_database_is_away(confirmed, inventory):
    inventory.available = False
    assert confirmed.instances("host1") == {A, B}


def test_a_host_that_was_forgotten_is_unknown(confirmed):
    confirmed.forget("host1")
    confirmed.forget("host9")
    assert confirmed.hosts == []
    assert not confirmed.is_confirmed("host1")


def test_a_slow_read_of_one_host_delays_no_other(clock):
    going, may_end = threading.Event(), threading.Event()

    class Slow(Inventory):
        def instance_uuids_on_host(self, host):
            if host == "slow":
                going.set()
                may_end.wait(20)
            return super().instance_uuids_on_host(host)

    hosts = HostManager(Slow(slow=[A], quick=[B]), monotonic=clock.monotonic)
    thread = threading.Thread(target=hosts.sync_instance_info, args=("slow", [C]))
    thread.start()
    eventually(going.is_set)
    hosts.sync_instance_info("quick", [B])
    assert hosts.instances("quick") == {B}
    may_end.set()
    thread.join()
    assert hosts.instances("slow") == {A}


def test_a_deletion_that_comes_while_the_host_is_read_is_not_lost(clock):
    going, may_end = threading.Event(), threading.Event()

    class Slow(Inventory):
        def instance_uuids_on_host(self, host):
            found = super().instance_uuids_on_host(host)
            going.set()
            may_end.wait(20)
            return found

    hosts = HostManager(Slow(host1=[A, B]), monotonic=clock.monotonic)
    reader = threading.Thread(target=hosts.sync_instance_info, args=("host1", [A, B]))
    reader.start()
    eventually(going.is_set)
    deletion = threading.Thread(target=hosts.delete_instance_info, args=("host1", A))
    deletion.start()
    may_end.set()
    reader.join()
    deletion.join()
    assert hosts.instances("host1") == {B}


def test_the_database_driver_is_an_inventory(tmp_path):
    world = fake_world(tmp_path, {})
    for number, columns in enumerate([{}, {"hidden": True}, {"vm_state": "soft-delete"}]):
        world.add(number, **columns)
    world.add(3, deleted=3)
    world.add(4, host="host2")
    hosts = HostManager(world.database)
    assert hosts.instances("host1") == {uuid_of(0), uuid_of(1), uuid_of(2)}
    assert world.statements() == 1
    world.close()
