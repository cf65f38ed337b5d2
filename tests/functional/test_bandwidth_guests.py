# SPDX-License-Identifier: Apache-2.0
"""poll_bandwidth_usage and real guests that send and receive what they are told, to the byte."""

import re
import signal

import libvirt
import pytest
import sqlalchemy as sa

from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor
from cepheid_plugins.tasks.poll_bandwidth_usage import PollBandwidthUsage
from tests.functional.agents import Installation
from tests.functional.inventories import rows
from tests.functional.processes import wait_until
from tests.functional.tiny_guest import PING_HEADER_BYTES, TinyGuest, interface
from tests.worlds import World

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
DEVICE = "tap-metered"
ADDRESS, NOBODY = "192.0.2.2", "192.0.2.77"
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
STEADY = {"virConnectGetAllDomainStats": 1}


def plug(libvirtd, mac, device=DEVICE):
    """Return the element of an interface whose device on the host has this name."""
    text = interface(mac, libvirtd.bridge)
    return text.replace("</interface>", f"<target dev='{device}'/></interface>")


@pytest.fixture(scope="module")
def metered(privileged_libvirtd):
    """A guest that is defined with one interface."""
    return TinyGuest(privileged_libvirtd, "metered", [plug(privileged_libvirtd, MAC)])


@pytest.fixture
def guest(metered):
    """It runs as it is defined; what a test has made of it is gone."""
    if not metered.domain.isActive() or macs_of(metered) != [MAC]:
        if metered.domain.isActive():
            metered.power_off()
        metered.start()
        metered.libvirtd.introduce(metered, ADDRESS, MAC)
        metered.run(f"arp -s {NOBODY} 52:54:00:00:00:77")
    return metered


def macs_of(guest):
    """Return the MACs of a guest's interfaces."""
    return re.findall(r"mac address='([^']+)'", guest.domain.XMLDesc())


class Host:
    """An agent on the host of the guests, with an inventory of its own."""

    def __init__(self, path, libvirtd, *uuids):
        self.world = World(path)
        self.agent = self.world.agent
        self.agent.set("hypervisor", uri=libvirtd.uri)
        self.hypervisor = LibvirtHypervisor(self.agent)
        self.agent.drivers.use("hypervisor", self.hypervisor)
        self.agent.drivers.use("bandwidth", LibvirtMeter(self.agent))
        self.task = self.agent.build(PollBandwidthUsage)
        with self.world.engine.begin() as connection:
            connection.execute(
                sa.insert(models.instances),
                [{"uuid": uuid, "host": "host1", "deleted": 0} for uuid in uuids],
            )

    def look(self):
        """Run the task once; return the libvirt calls that it took."""
        before = self.hypervisor.calls.copy()
        run = self.agent.run(self.task)
        assert run.outcome == "ok", run.error
        return self.hypervisor.calls - before

    def counted(self):
        """Look, and return what has been counted by MAC: in and out."""
        self.look()
        return {row.mac: (row.bw_in, row.bw_out) for row in self.world.rows(models.bw_usage_cache)}


@pytest.fixture
def host(privileged_libvirtd, tmp_path, guest):
    """An agent that has looked once."""
    host = Host(tmp_path, privileged_libvirtd, guest.uuid)
    host.look()
    yield host
    host.world.close()


def unplug(guest, mac):
    """Unplug an interface, and wait until the guest has let go of it."""
    guest.domain.detachDeviceFlags(plug(guest.libvirtd, mac), LIVE)
    wait_until(lambda: mac not in macs_of(guest))


def replug(guest, old, new):
    """Put another MAC behind the same device of the host; the guest can receive there."""
    unplug(guest, old)
    guest.domain.attachDeviceFlags(plug(guest.libvirtd, new), LIVE)
    # The guest names it as the one before.
    guest.run("until ip link set eth0 up; do sleep 0.1; done")


def test_in_is_what_the_guest_received_and_out_is_what_it_sent(host, guest):
    assert host.counted() == {MAC: (0, 0)}
    received = guest.libvirtd.send_frames(MAC, count=20, size=500)
    assert host.counted() == {MAC: (received, 0)}
    guest.run(f"! ping -q -c 1 -s 1000 -W 1 {NOBODY}")
    sent = 1000 + PING_HEADER_BYTES
    assert host.counted() == {MAC: (received, sent)}
    both = guest.ping(guest.libvirtd.address, count=10)
    assert host.counted() == {MAC: (received + both, sent + both)}
    assert host.look() == STEADY


def test_a_paused_guest_is_counted_up_to_its_pause(host, guest):
    both = guest.ping(guest.libvirtd.address, count=5)
    guest.domain.suspend()
    try:
        assert host.counted() == {MAC: (both, both)}
    finally:
        guest.domain.resume()


def test_a_guest_that_is_powered_off_and_on_goes_on_with_its_sum(host, guest):
    first = guest.ping(guest.libvirtd.address, count=10)
    assert host.counted() == {MAC: (first, first)}
    guest.power_off()
    assert host.counted() == {MAC: (first, first)}
    guest.start()
    guest.libvirtd.introduce(guest, ADDRESS, MAC)
    second = guest.ping(guest.libvirtd.address, count=3)
    assert host.counted() == {MAC: (first + second, first + second)}


def test_a_guest_that_is_reset_goes_on_with_its_counters(host, guest):
    first = guest.ping(guest.libvirtd.address, count=10)
    assert host.counted() == {MAC: (first, first)}
    guest.domain.reset()
    guest.wait_for_boot()
    guest.libvirtd.introduce(guest, ADDRESS, MAC)
    second = guest.ping(guest.libvirtd.address, count=30)
    assert host.counted() == {MAC: (first + second, first + second)}
    assert host.look() == STEADY


def test_an_interface_that_comes_back_under_the_same_device_for_another_mac_is_counted_for_that(
    host, guest
):
    first = guest.libvirtd.send_frames(MAC, count=1, size=100)
    assert host.counted() == {MAC: (first, 0)}
    replug(guest, MAC, OTHER)
    # More than the device had counted before, and nothing but the MAC is another.
    guest.libvirtd.send_frames(OTHER, count=10, size=500)
    assert host.counted() == {MAC: (first, 0), OTHER: (0, 0)}
    second = guest.libvirtd.send_frames(OTHER, count=3, size=200)
    assert host.counted() == {MAC: (first, 0), OTHER: (second, 0)}
    assert host.look() == STEADY


def test_an_interface_that_is_unplugged_and_comes_back_goes_on_with_its_row(host, guest):
    first = guest.libvirtd.send_frames(MAC, count=50, size=500)
    host.look()
    unplug(guest, MAC)
    assert host.counted() == {MAC: (first, 0)}
    guest.domain.attachDeviceFlags(plug(guest.libvirtd, MAC), LIVE)
    guest.run("until ip link set eth0 up; do sleep 0.1; done")
    second = guest.libvirtd.send_frames(MAC, count=2, size=500)
    assert host.counted() == {MAC: (first + second, 0)}


def test_a_second_interface_is_counted_from_its_first_look_on(host, guest):
    guest.domain.attachDeviceFlags(plug(guest.libvirtd, OTHER, "tap-second"), LIVE)
    guest.run("until ip link set eth1 up; do sleep 0.1; done")
    # What a bridge does not know it sends to all.
    entry = (OTHER, "dev", "tap-second", "master", "static")
    guest.libvirtd.run_inside("bridge", "fdb", "replace", *entry)
    assert host.counted() == {MAC: (0, 0), OTHER: (0, 0)}
    received = guest.libvirtd.send_frames(OTHER, count=7, size=300)
    assert host.counted() == {MAC: (0, 0), OTHER: (received, 0)}


def test_a_domain_that_is_renamed_goes_on_with_its_row(host, guest):
    first = guest.libvirtd.send_frames(MAC, count=5, size=500)
    host.look()
    guest.power_off()
    guest.domain.rename("cepheid-test-another")
    guest.start()
    guest.run("ip link set eth0 up")
    second = guest.libvirtd.send_frames(MAC, count=2, size=500)
    assert host.counted() == {MAC: (first + second, 0)}


def test_a_device_that_is_renamed_behind_libvirts_back_is_counted_when_it_is_back(host, guest):
    first = guest.libvirtd.send_frames(MAC, count=5, size=500)
    assert host.counted() == {MAC: (first, 0)}
    guest.libvirtd.run_inside("ip", "link", "set", DEVICE, "name", "tap-hidden")
    second = guest.libvirtd.send_frames(MAC, count=2, size=500)
    assert host.counted() == {MAC: (first, 0)}
    guest.libvirtd.run_inside("ip", "link", "set", "tap-hidden", "name", DEVICE)
    assert host.counted() == {MAC: (first + second, 0)}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_libvirtd_that_was_away_is_watched_again(host, guest, end):
    first = guest.libvirtd.send_frames(MAC, count=1, size=500)
    assert host.counted() == {MAC: (first, 0)}
    getattr(guest.libvirtd, end)()
    guest.libvirtd.start()
    guest.domain = guest.libvirtd.connect().lookupByUUIDString(guest.uuid)
    # Nobody has told of this.
    replug(guest, MAC, OTHER)
    guest.libvirtd.send_frames(OTHER, count=10, size=500)
    assert host.counted() == {MAC: (first, 0), OTHER: (0, 0)}
    # Of this somebody has.
    replug(guest, OTHER, MAC)
    second = guest.libvirtd.send_frames(MAC, count=2, size=100)
    assert host.counted() == {MAC: (first + second, 0), OTHER: (0, 0)}


def test_a_libvirtd_that_hung_is_watched_again(host, guest):
    first = guest.libvirtd.send_frames(MAC, count=1, size=500)
    assert host.counted() == {MAC: (first, 0)}
    host.agent.set("hypervisor", call_timeout=1)
    guest.libvirtd.signal(signal.SIGSTOP)
    try:
        run = host.agent.run(host.task)
    finally:
        guest.libvirtd.signal(signal.SIGCONT)
        guest.libvirtd.process.send_signal(signal.SIGCONT)  # nsenter, which stops with it
    assert (run.outcome, run.changes) == ("failed", [])
    assert "does not answer" in run.error
    host.agent.set("hypervisor", call_timeout=60)
    replug(guest, MAC, OTHER)
    guest.libvirtd.send_frames(OTHER, count=10, size=500)
    assert host.counted() == {MAC: (first, 0), OTHER: (0, 0)}
    assert host.look() == STEADY


def test_many_interfaces_of_many_guests_take_the_one_call_that_one_takes(
    privileged_libvirtd, tmp_path
):
    uuids = [privileged_libvirtd.add_guest(f"guest-{n}", start=False) for n in range(5)]
    connection = privileged_libvirtd.connect()
    for n, uuid in enumerate(uuids):
        domain = connection.lookupByUUIDString(uuid)
        for m in range(8):
            element = plug(privileged_libvirtd, f"52:54:00:00:{n:02x}:{m:02x}", f"tap-{n}-{m}")
            domain.attachDeviceFlags(element, CONFIG)
        domain.create()
    (tmp_path / "one").mkdir()
    (tmp_path / "all").mkdir()
    one = Host(tmp_path / "one", privileged_libvirtd, uuids[0])
    every = Host(tmp_path / "all", privileged_libvirtd, *uuids)
    # Once, the definitions of those that the inventory has are read.
    assert one.look()["virDomainGetXMLDesc"] == 1
    assert every.look()["virDomainGetXMLDesc"] == 5
    assert len(every.counted()) == 40
    assert one.look() == every.look() == STEADY
    for host in (one, every):
        host.world.close()
    for uuid in uuids:
        connection.lookupByUUIDString(uuid).destroy()


def test_an_agent_counts_the_guests_that_were_adopted(privileged_libvirtd, tmp_path, guest):
    installation = Installation(
        tmp_path,
        f"enabled_tasks = poll_bandwidth_usage\n[hypervisor]\nuri = {privileged_libvirtd.uri}\n"
        "[poll_bandwidth_usage]\nspacing = 1\n",
    )
    installation.run("db", "sync")
    installation.run("host", "adopt")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/cepheid.sqlite", poolclass=sa.NullPool)
    installation.start_agent()
    wait_until(lambda: rows(engine, models.bw_usage_cache), installation.read_log)
    received = privileged_libvirtd.send_frames(MAC, count=20, size=500)
    both = guest.ping(privileged_libvirtd.address, count=10)

    def counted():
        (row,) = rows(engine, models.bw_usage_cache)
        return row.uuid, row.mac, row.bw_in, row.bw_out

    wait_until(lambda: counted() == (guest.uuid, MAC, received + both, both), installation.read_log)
    assert installation.stop_agent() == 0
    words = ("task", "history", "poll_bandwidth_usage", "--changed", "--limit", "1000")
    changed = installation.rows(*words)
    assert {row["Result"] for row in changed} == {"done"}
    installation.close()
