# SPDX-License-Identifier: Apache-2.0
"""The bundled meter, on a fake hypervisor; real guests are in the functional tests."""

import pytest

from cepheid_plugins.bandwidth.driver import InterfaceCounters, MeteredInstance, MeterError
from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.hypervisor.driver import NetworkCounters
from tests.fakes import FakeHypervisor

MACS = ("fa:16:3e:00:00:01", "fa:16:3e:00:00:02")


@pytest.fixture
def hypervisor(agent):
    hypervisor = FakeHypervisor([("uuid-1", "one", 1), ("uuid-2", "two", 1), ("uuid-3", "off", 4)])
    for uuid in hypervisor.states:
        hypervisor.traffic[uuid] = [NetworkCounters(mac, 10, 20) for mac in MACS]
    agent.drivers.use("hypervisor", hypervisor)
    return hypervisor


def test_tells_all_interfaces_of_those_that_are_asked_for_and_run(agent, hypervisor):
    asked = [MeteredInstance(uuid, ()) for uuid in ("uuid-1", "uuid-3", "uuid-4")]
    told = LibvirtMeter(agent).read(asked)
    assert told == [InterfaceCounters("uuid-1", mac, in_bytes=10, out_bytes=20) for mac in MACS]
    assert hypervisor.calls.total() == 1


def test_a_hypervisor_that_does_not_answer_is_a_meter_that_cannot_be_read(agent, hypervisor):
    hypervisor.available = False
    with pytest.raises(MeterError, match=r"^fake:/// does not answer$"):
        LibvirtMeter(agent).read([MeteredInstance("uuid-1", ())])
