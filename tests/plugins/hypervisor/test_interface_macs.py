# SPDX-License-Identifier: Apache-2.0
"""Whose traffic it is: MACs are read when they may have changed, and only then."""

from collections import Counter

import pytest

from cepheid_plugins.hypervisor.driver import HypervisorUnavailable, NetworkCounters
from cepheid_plugins.hypervisor.interface_macs import Devices, InterfaceMacs


class Domains:
    """Running domains as libvirt tells of them: by uuid, their id and by device MAC and counters.

    As libvirt does, it tells `macs` when an interface is plugged in, and says nothing of a start.
    """

    def __init__(self, macs, number=1):
        self.macs = macs
        self.running = {f"uuid-{n}": (n, {f"tap{n}": (f"mac-{n}", 10, 20)}) for n in range(number)}
        self.calls = Counter()
        #: Called after a definition was read, or before the second bulk.
        self.meanwhile = {}

    def start(self, uuid, id_, **interfaces):
        self.running[uuid] = (id_, interfaces)

    def plug(self, uuid, device, mac, counters=(0, 0)):
        self.running[uuid][1][device] = (mac, *counters)
        self.macs.forget(uuid)

    def unplug(self, uuid, device):
        del self.running[uuid][1][device]

    def bulk(self):
        self.calls["bulk"] += 1
        self.meanwhile.pop(f"bulk {self.calls['bulk']}", lambda: None)()
        return [
            Devices(uuid, id_, {device: numbers for device, (_, *numbers) in interfaces.items()})
            for uuid, (id_, interfaces) in self.running.items()
        ]

    def macs_of(self, uuid):
        self.calls["definition"] += 1
        found = {device: mac for device, (mac, *_) in self.running[uuid][1].items()}
        self.meanwhile.pop("definition", lambda: None)()
        return found

    def counted(self):
        """Return the counters, and how many calls they took."""
        self.calls.clear()
        found = self.macs.counters(self.bulk, self.macs_of)
        flat = {
            (uuid, one.mac): (one.received_bytes, one.sent_bytes)
            for uuid, of_one in found.items()
            for one in of_one
        }
        return flat, (self.calls["bulk"], self.calls["definition"])


@pytest.fixture
def domains():
    return Domains(InterfaceMacs())


FIRST, STEADY = (2, 1), (1, 0)


def test_the_definition_is_read_once(domains):
    assert domains.counted() == ({("uuid-0", "mac-0"): (10, 20)}, FIRST)
    assert domains.counted() == ({("uuid-0", "mac-0"): (10, 20)}, STEADY)


@pytest.mark.parametrize("number", [10, 1000])
def test_a_steady_look_costs_the_same_whatever_the_number_of_domains(number):
    domains = Domains(InterfaceMacs(), number)
    found, cost = domains.counted()
    assert (len(found), cost) == (number, (2, number))
    assert domains.counted() == (found, STEADY)


def test_the_definition_is_read_again_when_the_domain_was_started_anew(domains):
    domains.counted()
    domains.start("uuid-0", 7, tap0=("mac-7", 1, 2))
    assert domains.counted() == ({("uuid-0", "mac-7"): (1, 2)}, FIRST)
    assert domains.counted()[1] == STEADY


def test_the_definition_is_read_again_when_a_device_came_or_went(domains):
    domains.counted()
    domains.plug("uuid-0", "tap1", "mac-1", (3, 4))
    both = {("uuid-0", "mac-0"): (10, 20), ("uuid-0", "mac-1"): (3, 4)}
    assert domains.counted() == (both, FIRST)
    domains.unplug("uuid-0", "tap0")
    assert domains.counted() == ({("uuid-0", "mac-1"): (3, 4)}, FIRST)
    assert domains.counted()[1] == STEADY


def test_a_device_that_comes_back_for_another_mac_counts_for_that_one(domains):
    domains.counted()
    domains.unplug("uuid-0", "tap0")
    # The same device, the same domain, even the same counters.
    domains.plug("uuid-0", "tap0", "mac-9", (10, 20))
    assert domains.counted() == ({("uuid-0", "mac-9"): (10, 20)}, FIRST)


def test_a_domain_that_changes_while_its_definition_is_read_waits_until_the_next_time(domains):
    domains.meanwhile["definition"] = lambda: domains.plug("uuid-0", "tap0", "mac-9")
    assert domains.counted() == ({}, FIRST)
    assert domains.counted() == ({("uuid-0", "mac-9"): (0, 0)}, FIRST)


def test_a_domain_that_changes_before_it_is_counted_waits_until_the_next_time(domains):
    domains.meanwhile["bulk 2"] = lambda: domains.plug("uuid-0", "tap0", "mac-9")
    assert domains.counted() == ({}, FIRST)
    assert domains.counted() == ({("uuid-0", "mac-9"): (0, 0)}, FIRST)


def test_counters_are_not_older_than_the_mac_they_are_given_to(domains):
    domains.meanwhile["bulk 2"] = lambda: domains.start("uuid-0", 0, tap0=("mac-0", 11, 21))
    assert domains.counted() == ({("uuid-0", "mac-0"): (11, 21)}, FIRST)


def test_on_another_connection_nothing_is_known(domains):
    domains.counted()
    domains.macs.forget_all()
    assert domains.counted()[1] == FIRST


def test_a_domain_that_cannot_be_described_is_left_out_and_asked_again(domains):
    macs_of, domains.macs_of = domains.macs_of, lambda uuid: None
    assert domains.counted() == ({}, (2, 0))
    domains.macs_of = macs_of
    assert domains.counted()[0] == {("uuid-0", "mac-0"): (10, 20)}


def test_a_hypervisor_that_goes_away_meanwhile_ends_the_look(domains):
    def away(uuid):
        raise HypervisorUnavailable("gone")

    with pytest.raises(HypervisorUnavailable):
        domains.macs.counters(domains.bulk, away)
    assert domains.counted()[1] == FIRST


def test_nothing_is_kept_of_a_domain_that_is_gone(domains):
    domains.counted()
    del domains.running["uuid-0"]
    assert domains.counted() == ({}, STEADY)
    domains.start("uuid-0", 0, tap0=("mac-0", 1, 1))
    assert domains.counted()[1] == FIRST


def test_two_devices_of_one_mac_are_both_told(domains):
    domains.plug("uuid-0", "tap1", "mac-0", (1, 2))
    found = domains.macs.counters(domains.bulk, domains.macs_of)
    assert found == {"uuid-0": [NetworkCounters("mac-0", 10, 20), NetworkCounters("mac-0", 1, 2)]}
