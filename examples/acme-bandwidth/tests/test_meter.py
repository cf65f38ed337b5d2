# SPDX-License-Identifier: Apache-2.0
"""The meter: which counters belong to which interface."""

import logging
from pathlib import Path

import pytest
from acme_bandwidth.meter import TapMeter

from cepheid_plugins.bandwidth.driver import (
    InterfaceCounters,
    MeteredInstance,
    MeteredInterface,
    MeterError,
)


def instance(uuid, *devices):
    return MeteredInstance(uuid, tuple(MeteredInterface(f"mac of {d}", d) for d in devices))


@pytest.fixture
def meter(host):
    return host.agent("bandwidth", driver="acme").driver("bandwidth")


def test_the_driver_named_acme_is_this_one(meter):
    assert type(meter) is TapMeter


def test_what_a_tap_device_receives_its_guest_has_sent(host, meter):
    host.set_devices(tap1=(100, 7))
    assert meter.read([instance("web", "tap1")]) == [
        InterfaceCounters("web", "mac of tap1", in_bytes=7, out_bytes=100)
    ]


def test_interfaces_whose_devices_are_gone_or_unknown_are_left_out(host, meter):
    host.set_devices(tap1=(100, 7), eth0=(1, 1))
    found = meter.read([instance("web", "tap1", "tap2"), instance("off", ""), instance("new")])
    assert [counters.uuid for counters in found] == ["web"]


def test_a_device_that_two_interfaces_claim_is_nobodys_and_named_once(host, meter, caplog):
    host.set_devices(vnet0=(100, 7), vnet1=(1, 2))
    instances = [instance("off", "vnet0"), instance("web", "vnet0", "vnet1")]
    for _ in range(2):
        assert [counters.mac for counters in meter.read(instances)] == ["mac of vnet1"]
    assert caplog.messages == ["vnet0 is not metered: it is of 2 interfaces"]


def test_a_malformed_line_costs_its_device_only_and_is_named_until_it_is_over(host, meter, caplog):
    caplog.set_level(logging.INFO)
    host.set_devices("tap2: 1 2 x", tap1=(100, 7))
    for _ in range(2):
        assert len(meter.read([instance("web", "tap1", "tap2")])) == 1
    host.set_devices(tap1=(100, 7), tap2=(1, 1))
    assert len(meter.read([instance("web", "tap1", "tap2")])) == 2
    warning = f"tap2 is not metered: bad line in {host.devices}"
    assert caplog.messages == [warning, f"Over: {warning}"]


def test_a_file_that_cannot_be_read_is_named(host, meter):
    host.devices.unlink()
    for read in (meter.check, lambda: meter.read([])):
        with pytest.raises(MeterError, match=f"{host.devices} cannot be read: No such file"):
            read()


@pytest.mark.parametrize("number", [10, 1000])
def test_the_file_is_read_once_whatever_the_number_of_instances(host, meter, monkeypatch, number):
    host.set_devices(**{f"tap{n}": (n, n) for n in range(number)})
    reads = []
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda *a, **k: reads.append(a) or read_text(*a, **k))
    assert len(meter.read([instance(f"i{n}", f"tap{n}") for n in range(number)])) == number
    assert len(reads) == 1


def test_this_machines_own_file_has_the_form(host):
    host.agent("bandwidth", driver="acme", device_file="/proc/net/dev").driver("bandwidth").check()
