# SPDX-License-Identifier: Apache-2.0
"""The record of a host with real QEMU guests behind a real libvirtd, and real disks."""

import json
import os
import subprocess

import pytest

from cepheid_plugins.hypervisor import opts
from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor
from tests.fake_agent import FakeAgent
from tests.functional.agents import Installation
from tests.functional.processes import wait_until

pytestmark = pytest.mark.functional

TASK = "update_available_resource"
GIB = 1 << 30

SETTINGS = """
enabled_tasks = update_available_resource
[hypervisor]
uri = {uri}
[compute]
instances_path = {path}
[update_available_resource]
spacing = 1
cpu_allocation_ratio = 2.5
"""


@pytest.fixture
def guests(libvirtd):
    """Two running guests and one that is off."""
    uuids = [libvirtd.add_guest(f"guest-{n}", start=n < 2) for n in range(3)]
    yield uuids
    libvirtd.end_guests()


@pytest.fixture
def installation(libvirtd, guests, tmp_path):
    """An installation whose instances_path is where the guests' disks are, all adopted."""
    settings = SETTINGS.format(uri=libvirtd.uri, path=libvirtd.path / "disks")
    installation = Installation(tmp_path, settings)
    installation.run("db", "sync")
    installation.run("host", "adopt")
    yield installation
    installation.close()


@pytest.fixture
def still_disk(libvirtd, installation):
    """Let the disk be as full as it is now, whatever tests beside this one write meanwhile."""
    now = tuple(os.statvfs(libvirtd.path / "disks"))
    folder = installation.path / "still"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import os\nNOW = os.statvfs_result({now})\nos.statvfs = lambda path: NOW\n"
    )
    installation.environment = {**os.environ, "PYTHONPATH": str(folder)}


def show(installation):
    return json.loads(installation.run("host", "show", "-f", "json").stdout)


def test_the_record_is_what_libvirt_and_the_file_system_say(libvirtd, guests, installation):
    disks = libvirtd.path / "disks"
    subprocess.run(
        ["qemu-img", "resize", "-q", disks / "guest-2.qcow2", f"{3 * GIB}"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    before = os.statvfs(disks)
    installation.run("task", "run", TASK)
    system = os.statvfs(disks)
    connection = libvirtd.connect()
    record = show(installation)
    assert record["hypervisor_type"] == "QEMU"
    assert record["hypervisor_version"] == connection.getVersion()
    assert record["hypervisor_hostname"] == connection.getHostname()
    assert record["vcpus"] == connection.getCPUMap()[2]
    assert record["memory_mb"] == connection.getInfo()[1]
    assert record["cpu"].startswith("x86_64")
    assert "x86_64 qemu hvm" in record["supported_instances"]
    assert (record["vcpus_used"], record["memory_mb_used"]) == (3, 512 + 3 * 32)
    assert (record["running_vms"], record["num_vm_active"]) == (3, "2")
    assert record["cpu_allocation_ratio"] == 2.5
    assert record["local_gb"] == system.f_blocks * system.f_frsize // GIB
    # Tests beside this one write, and remove, while the task looks.
    free_gb = sorted(one.f_bavail * one.f_frsize / GIB for one in (before, system))
    assert free_gb[0] - 4.5 < record["disk_available_least"] <= free_gb[1] - 2.5
    connection.close()


def test_a_second_pass_writes_nothing_and_a_change_is_written(libvirtd, installation, still_disk):
    installation.run("task", "run", TASK)
    before = show(installation)
    installation.run("task", "run", TASK)
    assert show(installation) == before
    assert len(installation.rows("task", "history", TASK, "--changed")) == 1
    libvirtd.add_guest("newcomer")
    installation.run("host", "adopt")
    installation.run("task", "run", TASK)
    assert show(installation)["running_vms"] == before["running_vms"] + 1


def test_a_domain_that_no_row_knows_is_reported(libvirtd, installation):
    orphan = libvirtd.add_guest("orphan")
    installation.start_agent()
    wait_until(lambda: orphan in installation.read_log(), installation.read_log)
    assert "1 domains are on the hypervisor and in no row" in installation.read_log()
    connection = libvirtd.connect()
    assert connection.lookupByUUIDString(orphan).isActive()
    connection.close()
    assert installation.stop_agent() == 0


def test_while_libvirtd_is_away_the_last_record_stays(libvirtd, installation, still_disk):
    installation.start_agent()
    wait_until(lambda: installation.rows("task", "history", TASK), installation.read_log)
    before = show(installation)
    libvirtd.kill()
    wait_until(
        lambda: "failed" in {r["Outcome"] for r in installation.rows("task", "history", TASK)},
        installation.read_log,
    )
    assert show(installation) == before
    libvirtd.start()

    def last_run_is_ok():
        (run,) = installation.rows("task", "history", TASK, "--limit", "1")
        return run["Outcome"] == "ok"

    wait_until(last_run_is_ok, installation.read_log)
    assert show(installation)["running_vms"] == before["running_vms"]
    assert installation.stop_agent() == 0


def test_the_calls_do_not_depend_on_the_number_of_guests(libvirtd, tmp_path):
    agent = FakeAgent(tmp_path)
    agent.conf.register_opts(opts.OPTIONS, group="hypervisor")
    agent.set("hypervisor", uri=libvirtd.uri)
    hypervisor = LibvirtHypervisor(agent)
    hypervisor.host_resources()

    def calls():
        before = hypervisor.calls.copy()
        hypervisor.host_resources()
        capacities = hypervisor.disk_capacities()
        return len(capacities), hypervisor.calls - before

    libvirtd.add_guest("one")
    one, of_one = calls()
    for number in range(4):
        libvirtd.add_guest(f"more-{number}", start=number % 2 == 0)
    five, of_five = calls()
    assert (one, five) == (1, 5)
    assert of_one == of_five
    libvirtd.end_guests()
    hypervisor.close()
    agent.close()
