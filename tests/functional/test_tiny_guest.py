# SPDX-License-Identifier: Apache-2.0
"""What the tests' own guests do is what libvirt counts, and nothing of them is left behind."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.libvirtd import kill
from tests.functional.processes import wait_until
from tests.functional.tiny_guest import TinyGuest, disk, interface, make_volume

pytestmark = pytest.mark.functional

MAC = "52:54:00:00:00:01"
ADDRESS = "192.0.2.2"

#: Makes a privileged libvirtd with a guest, says where, and waits for its own end.
HOLDER = """
import sys
from tests.functional.privileged_libvirtd import PrivilegedLibvirtd

with PrivilegedLibvirtd() as daemon:
    daemon.add_guest("orphan")
    print(daemon.path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def guest(privileged_libvirtd):
    """A guest with two disks and an interface on the bridge."""
    devices = [
        disk(make_volume(privileged_libvirtd, "raw"), "vda"),
        disk(make_volume(privileged_libvirtd, "qcow2", "qcow2"), "vdb", "qcow2"),
        interface(MAC, privileged_libvirtd.bridge),
    ]
    guest = TinyGuest(privileged_libvirtd, "tiny", devices).start()
    privileged_libvirtd.introduce(guest, ADDRESS, MAC)
    return guest


@pytest.fixture
def counted(guest):
    """What has been counted since the test began; only what there is of it."""
    before = guest.stats()

    def counted(*prefixes):
        return {
            name: value - before[name]
            for name, value in guest.stats().items()
            if name.startswith(prefixes)
            and name.endswith((".reqs", ".bytes", ".pkts"))
            and value != before[name]
        }

    return counted


def test_blocks_are_counted_for_the_disk_to_which_they_are_written(guest, counted):
    assert guest.write("vda", blocks=10) == 40960
    assert guest.write("vdb", blocks=3, block_bytes=65536) == 196608
    assert counted("block.") == {
        "block.0.wr.reqs": 10, "block.0.wr.bytes": 40960,
        "block.1.wr.reqs": 3, "block.1.wr.bytes": 196608,
    }  # fmt: skip


def test_blocks_that_are_read_are_counted_each_time(guest, counted):
    for _ in range(2):
        assert guest.read("vda", blocks=100) == 409600
    assert counted("block.") == {"block.0.rd.reqs": 200, "block.0.rd.bytes": 819200}


def test_an_idle_guest_is_counted_nothing(guest, counted):
    guest.run("sleep 0.1")
    assert counted("block.", "net.") == {}


def test_what_is_answered_is_counted_both_ways(guest, counted):
    sent = guest.ping(guest.libvirtd.address, count=10)
    assert counted("net.") == {
        "net.0.rx.bytes": sent, "net.0.tx.bytes": sent, "net.0.rx.pkts": 10, "net.0.tx.pkts": 10
    }  # fmt: skip


def test_rx_is_what_the_guest_receives(guest, counted):
    assert guest.libvirtd.send_frames(MAC, count=20, size=500) == 10000
    assert counted("net.") == {"net.0.rx.bytes": 10000, "net.0.rx.pkts": 20}


def test_an_order_that_fails_is_told_with_what_it_printed(guest):
    with pytest.raises(AssertionError, match=r"tiny: = 1\s+cat: can't open '/nowhere'"):
        guest.run("cat /nowhere")


def test_the_machine_sees_neither_bridge_nor_taps_nor_mounts(guest):
    links = {path.name for path in Path("/sys/class/net").iterdir()}
    inside = guest.libvirtd.run_inside("ls", "/sys/class/net").split()
    assert {guest.libvirtd.bridge, "vnet0"} <= set(inside)
    assert "vnet0" not in links
    assert str(guest.libvirtd.path) not in Path("/proc/self/mountinfo").read_text()


def test_a_guest_follows_its_power_button_and_counts_from_zero_when_it_is_back(guest):
    before = guest.stats()["block.0.rd.bytes"]
    guest.press_power_button()
    guest.start()
    # Beside what firmware and kernel look for at boot.
    assert guest.stats()["block.0.rd.bytes"] < 10000 < before


def test_a_guest_can_be_killed_by_its_process_id(guest):
    kill(guest.libvirtd.guest_pid(guest.uuid))
    wait_until(lambda: not guest.domain.isActive())


def test_guests_outlive_their_daemon(privileged_libvirtd):
    uuid = privileged_libvirtd.add_guest("survivor")
    pid = privileged_libvirtd.guest_pid(uuid)
    for end in (privileged_libvirtd.stop, privileged_libvirtd.kill):
        end()
        privileged_libvirtd.start()
        assert privileged_libvirtd.guest_pid(uuid) == pid


def test_nothing_outlives_tests_that_are_killed():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        path = tests.stdout.readline().strip()
        assert len(processes_of(path)) >= 2
        tests.kill()
    wait_until(lambda: not processes_of(path), lambda: f"{processes_of(path)}")
    shutil.rmtree(path)


def processes_of(path):
    """Return what runs with a path in its arguments."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = arguments.read_text()
        except OSError:
            continue
        if path in words:
            found.append(words)
    return found
