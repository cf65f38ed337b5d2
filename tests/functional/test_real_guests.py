# SPDX-License-Identifier: Apache-2.0
"""The agent and real QEMU guests behind a real libvirtd."""

import signal

import pytest

from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor import opts
from cepheid_plugins.hypervisor.driver import HypervisorUnavailable
from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor
from tests.contracts import HypervisorContract
from tests.fake_agent import FakeAgent
from tests.functional.agents import Installation
from tests.functional.libvirtd import kill
from tests.functional.processes import wait_until

pytestmark = pytest.mark.functional

SETTINGS = """
[hypervisor]
uri = {uri}
[compute]
shutdown_timeout = 2
[sync_power_states]
spacing = 1
policy = {policy}
[check_instance_build_time]
spacing = 1
"""


@pytest.fixture
def guests(libvirtd):
    """Five running guests."""
    uuids = [libvirtd.add_guest(f"guest-{number}") for number in range(5)]
    yield uuids
    libvirtd.end_guests()


@pytest.fixture
def hypervisor(libvirtd, tmp_path):
    agent = FakeAgent(tmp_path)
    agent.conf.register_opts(opts.OPTIONS, group="hypervisor")
    agent.set("hypervisor", uri=libvirtd.uri)
    hypervisor = LibvirtHypervisor(agent)
    yield hypervisor
    hypervisor.close()
    agent.close()


class TestRealGuests(HypervisorContract):
    @pytest.fixture
    def running(self, libvirtd):
        uuid = libvirtd.add_guest("contract")
        yield uuid
        libvirtd.end_guests()


def test_the_bios_of_a_real_guest_reads_its_disk_and_that_is_counted(libvirtd, hypervisor, guests):
    wanted = {uuid: ["vda"] for uuid in guests}
    wait_until(
        lambda: all(disks["vda"].reads > 0 for disks in hypervisor.block_counters(wanted).values())
    )
    before = hypervisor.calls.copy()
    counters = hypervisor.block_counters(wanted)
    assert set(counters) == set(guests)
    assert all(disks["vda"].read_bytes >= 512 for disks in counters.values())
    assert hypervisor.calls - before == {"virConnectGetAllDomainStats": 1}


@pytest.fixture
def install(libvirtd, tmp_path):
    """Make an installation for the guests that are there, and adopt them."""
    made = []

    def install(policy="enforce"):
        installation = Installation(tmp_path, SETTINGS.format(uri=libvirtd.uri, policy=policy))
        made.append(installation)
        installation.run("db", "sync")
        installation.run("host", "adopt")
        return installation

    yield install
    for installation in made:
        installation.close()


def states(installation):
    rows = installation.rows("instance", "list")
    return {row["UUID"]: (row["VM state"], row["Power state"]) for row in rows}


def test_adopting_takes_in_every_domain_once_and_alters_none(libvirtd, guests, install):
    connection = libvirtd.connect()
    before = {d.UUIDString(): (d.XMLDesc(), d.state()) for d in connection.listAllDomains()}
    installation = install()
    assert states(installation) == dict.fromkeys(guests, ("active", "running"))
    (row,) = [r for r in installation.rows("instance", "list") if r["UUID"] == guests[0]]
    assert (row["vCPUs"], row["Memory MiB"]) == (1, 32)
    assert "0 domains adopted, 5 known already" in installation.run("host", "adopt").stderr
    assert before == {d.UUIDString(): (d.XMLDesc(), d.state()) for d in connection.listAllDomains()}
    connection.close()


def test_the_database_follows_what_happens_to_the_guests(libvirtd, guests, install):
    installation = install()
    connection = libvirtd.connect()
    domains = [connection.lookupByUUIDString(uuid) for uuid in guests]
    installation.start_agent()
    destroyed, paused, killed, shut_off, _untouched = domains
    destroyed.destroy()
    paused.suspend()
    kill(libvirtd.guest_pid(killed.UUIDString()))
    wait_until(
        lambda: (
            [states(installation)[uuid] for uuid in guests[:3]]
            == [("stopped", "shut down"), ("active", "paused"), ("stopped", "shut down")]
        ),
        installation.read_log,
    )
    assert states(installation)[guests[4]] == ("active", "running")
    # Started again behind the database's back: it is stopped, and listens to no request.
    destroyed.create()
    wait_until(lambda: not destroyed.isActive(), installation.read_log)
    paused.resume()
    wait_until(lambda: states(installation)[guests[1]] == ("active", "running"))
    assert shut_off.isActive()
    assert installation.stop_agent() == 0
    connection.close()


def test_with_policy_follow_nothing_is_ever_stopped(libvirtd, guests, install):
    installation = install(policy="follow")
    connection = libvirtd.connect()
    domains = [connection.lookupByUUIDString(uuid) for uuid in guests]
    domains[0].destroy()
    installation.start_agent()
    wait_until(lambda: states(installation)[guests[0]] == ("stopped", "shut down"))
    domains[0].create()
    wait_until(lambda: states(installation)[guests[0]] == ("active", "running"))
    domains[1].suspend()
    wait_until(lambda: states(installation)[guests[1]] == ("paused", "paused"))
    assert domains[0].isActive()
    connection.close()


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_libvirtd_that_goes_away_and_comes_back_leads_to_no_wrong_change(
    libvirtd, guests, install, ending
):
    installation = install()
    installation.start_agent()
    wait_until(lambda: len(installation.rows("task", "history", "sync_power_states")) >= 2)
    getattr(libvirtd, ending)()
    wait_until(
        lambda: "failed" in {r["Outcome"] for r in installation.rows("task", "history")},
        installation.read_log,
    )
    assert states(installation) == dict.fromkeys(guests, ("active", "running"))
    libvirtd.start()

    def last_run_is_ok():
        (run,) = installation.rows("task", "history", "sync_power_states", "--limit", "1")
        return run["Outcome"] == "ok"

    wait_until(last_run_is_ok, installation.read_log)
    assert states(installation) == dict.fromkeys(guests, ("active", "running"))
    words = ("task", "history", "sync_power_states", "--changed", "--limit", "1000")
    assert installation.rows(*words) == []
    # The outage is said once, however many passes it lasted, and so is its end.
    log = installation.read_log()
    assert 1 <= log.count("ERROR cepheid.sync_power_states") <= 2, log
    assert "Over: " in log
    assert installation.stop_agent() == 0


def test_while_libvirtd_is_away_there_is_no_list_rather_than_an_empty_one(
    libvirtd, guests, hypervisor
):
    assert set(guests) <= set(hypervisor.domains())
    libvirtd.kill()
    for _ in range(3):
        with pytest.raises(HypervisorUnavailable, match="Is libvirtd running"):
            hypervisor.domains()
    libvirtd.start()
    assert set(guests) <= set(hypervisor.domains())


def test_a_guest_whose_process_is_killed_is_shut_down(libvirtd, guests, hypervisor):
    kill(libvirtd.guest_pid(guests[0]))
    wait_until(lambda: hypervisor.power_state(guests[0]) == power_state.SHUTDOWN)


def test_a_daemon_that_hangs_costs_its_task_only(libvirtd, guests, install):
    installation = install()
    installation.conf.write_text(
        installation.conf.read_text().replace("[hypervisor]", "[hypervisor]\ncall_timeout = 2")
    )
    installation.start_agent()
    wait_until(lambda: len(installation.rows("task", "history", "sync_power_states")) >= 1)
    libvirtd.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(
            lambda: "failed" in {r["Outcome"] for r in installation.rows("task", "history")},
            installation.read_log,
        )
        builds = len(
            installation.rows("task", "history", "check_instance_build_time", "--limit", "1000")
        )
        wait_until(
            lambda: (
                len(
                    installation.rows(
                        "task", "history", "check_instance_build_time", "--limit", "1000"
                    )
                )
                > builds
            )
        )
        assert installation.stop_agent() == 0
    finally:
        libvirtd.process.send_signal(signal.SIGCONT)
    assert states(installation) == dict.fromkeys(guests, ("active", "running"))


def test_an_agent_killed_in_the_middle_of_a_stop_finishes_it_when_it_is_back(
    libvirtd, guests, install
):
    installation = install()
    settings = installation.conf.read_text()
    installation.conf.write_text(settings.replace("shutdown_timeout = 2", "shutdown_timeout = 600"))
    connection = libvirtd.connect()
    domain = connection.lookupByUUIDString(guests[0])
    domain.destroy()
    installation.start_agent()
    wait_until(lambda: states(installation)[guests[0]] == ("stopped", "shut down"))
    domain.create()  # its BIOS listens to no request to shut down

    def task_state():
        (row,) = [r for r in installation.rows("instance", "list") if r["UUID"] == guests[0]]
        return row["Task state"]

    wait_until(lambda: task_state() == "powering-off", installation.read_log)
    installation.close()
    assert task_state() == "powering-off"
    installation.conf.write_text(settings)
    installation.start_agent()
    wait_until(lambda: not domain.isActive(), installation.read_log)
    wait_until(lambda: task_state() == "-", installation.read_log)
    assert states(installation) == {
        **dict.fromkeys(guests, ("active", "running")),
        guests[0]: ("stopped", "shut down"),
    }
    words = ("task", "history", "sync_power_states", "--changed", "--limit", "1000")
    history = installation.rows(*words)
    assert {row["Result"] for row in history if row["Change"] == "force_stop"} == {
        "unknown",
        "done",
    }
    connection.close()


def test_an_operator_stops_starts_and_reboots_a_guest(libvirtd, guests, install):
    installation = install()
    connection = libvirtd.connect()
    domain = connection.lookupByUUIDString(guests[0])
    installation.run("instance", "stop", guests[0])
    assert not domain.isActive()
    assert states(installation)[guests[0]] == ("stopped", "shut down")
    installation.run("instance", "start", guests[0])
    assert domain.isActive()
    before = libvirtd.guest_pid(guests[0])
    installation.run("instance", "reboot", "--yes", guests[0])
    assert libvirtd.guest_pid(guests[0]) != before
    assert states(installation) == dict.fromkeys(guests, ("active", "running"))
    connection.close()


def test_an_operation_killed_in_the_middle_is_released_by_the_agent(libvirtd, guests, install):
    installation = install()
    settings = installation.conf.read_text()
    installation.conf.write_text(settings.replace("shutdown_timeout = 2", "shutdown_timeout = 600"))
    command = installation.popen("instance", "stop", guests[0])

    def task_state():
        (row,) = [r for r in installation.rows("instance", "list") if r["UUID"] == guests[0]]
        return row["Task state"]

    wait_until(lambda: task_state() == "powering-off")
    installation.conf.write_text(settings)
    installation.start_agent()
    # The agent's passes see the claim of a command that goes on, and leave it alone.
    wait_until(lambda: len(installation.rows("task", "history", "sync_power_states")) >= 3)
    assert task_state() == "powering-off"
    command.kill()
    command.wait()
    wait_until(lambda: task_state() == "-", installation.read_log)
    assert states(installation)[guests[0]] == ("active", "running")
