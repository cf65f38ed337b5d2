# SPDX-License-Identifier: Apache-2.0
"""A vendor's package in clean environments: installed, seen, chosen, run, replaced, uninstalled.

The environments have wheels of cepheid and of examples/acme-bandwidth, and nothing of this one.
"""

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from tests.functional import environments
from tests.functional.agents import Installation
from tests.functional.environments import ROOT, Environment
from tests.functional.processes import require, wait_until
from tests.worlds import uuid_of

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

TASK = "poll_bandwidth_usage"
PACKAGE = ROOT / "examples" / "acme-bandwidth"

HEADING = (
    "Inter-|   Receive                            |  Transmit\n"
    " face |bytes    packets errs drop fifo frame |bytes    packets errs drop fifo colls\n"
)

PERIOD = 2  # seconds between two runs of a live agent


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheels of cepheid and of the package."""
    path = tmp_path_factory.mktemp("wheels")
    return str(environments.build(ROOT, path)), str(environments.build(PACKAGE, path))


@pytest.fixture(scope="module")
def core_alone(wheels, tmp_path_factory):
    """An environment with what 'pip install cepheid' brings."""
    return Environment(tmp_path_factory.mktemp("core-alone"), wheels[0])


@pytest.fixture(scope="module")
def with_database(wheels, tmp_path_factory):
    """The same for cepheid[database]: an inventory, and no libvirt."""
    return Environment(tmp_path_factory.mktemp("with-database"), f"{wheels[0]}[database]")


class Host(Installation):
    """An installation in an environment, with a file of devices."""

    def __init__(self, path, environment):
        super().__init__(path, "")
        self.python = environment.python
        self.environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.devices = path / "dev"
        self.count(0, 0)

    def configure(self, settings):
        """Write the configuration file."""
        self.conf.write_text(
            f"[DEFAULT]\nstate_path = {self.path}\nhost = host1\nperiodic_fuzzy_delay = 0\n"
            f"log_file = {self.log}\n{settings}"
        )

    def count(self, received, sent):
        """Let the tap device of the guest have counted this."""
        self.devices.write_text(
            f"{HEADING}   lo: {'1 ' * 16}\n tap1: {received} {'0 ' * 7}{sent} {'0 ' * 7}\n"
        )

    def tasks(self):
        """Return what is listed of the task: state and reason by distribution."""
        return {
            row["Distribution"]: (row["State"], row["Reason"])
            for row in self.rows("task", "list")
            if row["Name"] == TASK
        }

    def meters(self):
        """Return what is listed of the meters: distribution, chosen and state by name."""
        return {
            row["Name"]: (row["Distribution"], row["Chosen"], row["State"])
            for row in self.rows("driver", "list")
            if row["Kind"] == "bandwidth"
        }

    def query(self, file, query):
        """Return what is in a file of SQLite."""
        with contextlib.closing(sqlite3.connect(self.path / file)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def make_host(tmp_path, wheels):
    """Make a host in an environment, which has no package of a vendor's afterwards."""
    made = []

    def make(environment):
        made.append((Host(tmp_path, environment), environment))
        return made[0][0]

    yield make
    for host, environment in made:
        host.close()
        environment.uninstall("acme-bandwidth")


def test_the_wheels_have_what_they_are_to_have_and_need_the_core_alone(core_alone, wheels):
    core_alone.install(wheels[1])
    assert {"cepheid", "acme-bandwidth"} <= core_alone.installed()
    assert not core_alone.installed() & {"sqlalchemy", "libvirt-python", "lxml", "oslo.messaging"}
    script = "from importlib.metadata import requires; print(requires('acme-bandwidth'))"
    assert json_of(core_alone, script) == ["cepheid>=0.1"]
    core_alone.uninstall("acme-bandwidth")
    assert "acme-bandwidth" not in core_alone.installed()


def json_of(environment, script):
    printed = subprocess.check_output([environment.python, "-c", script], text=True)
    return json.loads(printed.replace("'", '"'))


def test_with_the_core_alone_every_task_is_listed_with_what_is_missing(make_host, core_alone):
    host = make_host(core_alone)
    rows = host.rows("task", "list")
    script = (
        "from importlib.metadata import entry_points\n"
        "print([p.name for p in entry_points(group='cepheid.tasks')])"
    )
    assert [row["Name"] for row in rows] == sorted(json_of(core_alone, script))
    assert {row["State"] for row in rows} == {"failed"}
    for row in rows:
        assert "is missing; pip install 'cepheid[" in row["Reason"]
        assert row["Summary"]
    for width in (80, 120):
        shown = host.run("task", "list", "--max-width", str(width)).stdout
        assert max(map(len, shown.splitlines())) <= width
        assert {row["Name"] for row in rows} <= set(shown.split())
        assert shown.count("pip install 'cepheid[database]'") == 1


def test_a_vendors_package_takes_the_place_of_a_bundled_task_and_leaves_it(
    make_host, core_alone, wheels
):
    host = make_host(core_alone)
    bundled = host.tasks()
    assert set(bundled) == {"cepheid"}

    core_alone.install(wheels[1])
    assert {state for state, _ in host.tasks().values()} == {"in conflict"}
    for _, reason in host.tasks().values():
        assert reason == (
            "offered by acme-bandwidth 1.0 and cepheid 0.1.0; choose one with "
            f"[task_providers] {TASK}"
        )
    refused = host.run("task", "run", TASK, check=False)
    assert refused.returncode == 1
    assert "offered by acme-bandwidth 1.0 and cepheid 0.1.0; choose one" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    host.configure(
        f"[task_providers]\n{TASK} = acme-bandwidth\n[{TASK}]\ndevice_file = {host.devices}\n"
    )
    assert host.tasks() == {
        "acme-bandwidth": ("enabled", ""),
        "cepheid": ("replaced", f"by acme-bandwidth 1.0, as [task_providers] {TASK} says"),
    }
    host.count(1000, 50)
    assert host.rows("task", "run", TASK, "--dry-run")[0]["Outcome"] == "planned"
    assert not (host.path / "acme-traffic.sqlite").exists()
    host.rows("task", "run", TASK)
    host.count(1600, 70)
    (row,) = host.rows("task", "run", TASK)
    assert (row["Change"], row["After"], row["Outcome"]) == ("traffic", "620 bytes", "done")
    assert host.rows("task", "run", TASK) == []
    traffic = "SELECT device, sum(in_bytes), sum(out_bytes) FROM traffic GROUP BY device"
    assert host.query("acme-traffic.sqlite", traffic) == [("tap1", 20, 600)]

    core_alone.uninstall("acme-bandwidth")
    (reason,) = [reason for _, reason in host.tasks().values()]
    assert reason.startswith(f"[task_providers] {TASK} names acme-bandwidth, which does not offer")
    host.configure("")
    assert host.tasks() == bundled


def test_a_vendors_meter_is_seen_chosen_checked_and_gone_again(make_host, core_alone, wheels):
    host = make_host(core_alone)
    before = host.meters()
    assert list(before) == ["libvirt"]
    core_alone.install(wheels[1])
    assert host.meters() == {"acme": ("acme-bandwidth", "", "installed"), **before}

    settings = f"[bandwidth]\ndriver = acme\ndevice_file = {host.devices}\n"
    host.configure(settings)
    assert host.meters()["acme"] == ("acme-bandwidth", "yes", "installed")
    checked = host.run("driver", "check", "bandwidth").stdout
    assert checked == "The bandwidth driver acme of acme-bandwidth 1.0 works.\n"
    host.devices.unlink()
    refused = host.run("driver", "check", "bandwidth", check=False)
    assert f"{host.devices} cannot be read: No such file" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    core_alone.uninstall("acme-bandwidth")
    assert host.meters()["acme"] == ("", "yes", "missing")
    host.configure("")
    assert host.meters() == before


def take_in(host):
    """Make the inventory, with one instance whose interface is tap1."""
    host.run("db", "sync")
    vifs = json.dumps([{"address": "52:54:00:00:00:01", "devname": "tap1"}])
    with contextlib.closing(sqlite3.connect(host.path / "cepheid.sqlite")) as db, db:
        db.execute(
            "INSERT INTO instances (uuid, host, vm_state, power_state, display_name, deleted,"
            " created_at, launched_at) VALUES (?, 'host1', 'active', 1, 'guest-1', 0,"
            " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')",
            [uuid_of(1)],
        )
        db.execute(
            "INSERT INTO instance_info_caches (instance_uuid, network_info, deleted)"
            " VALUES (?, ?, 0)",
            [uuid_of(1), vifs],
        )


def settings(host, provider):
    """Return what lets both, the bundled task with the vendor's meter, and the vendor's, work."""
    return (
        f"enabled_tasks = {TASK}\n[task_providers]\n{TASK} = {provider}\n"
        f"[bandwidth]\ndriver = acme\ndevice_file = {host.devices}\n"
        f"[{TASK}]\nspacing = {PERIOD}\nrun_immediately = true\ndevice_file = {host.devices}\n"
    )


def test_the_bundled_task_books_what_the_vendors_meter_reads(make_host, with_database, wheels):
    host = make_host(with_database)
    with_database.install(wheels[1])
    host.configure(settings(host, "cepheid"))
    take_in(host)
    host.count(1000, 50)
    host.rows("task", "run", TASK)
    host.count(1600, 70)
    (row,) = host.rows("task", "run", TASK)
    assert (row["Change"], row["Outcome"]) == ("bandwidth_usage", "done")
    assert host.query(
        "cepheid.sqlite",
        "SELECT uuid, mac, bw_in, bw_out, last_ctr_in, last_ctr_out FROM bw_usage_cache",
    ) == [(uuid_of(1), "52:54:00:00:00:01", 20, 600, 70, 1600)]


@pytest.mark.parametrize("mode", ["eventlet", "threading"])
def test_a_live_agent_replaces_a_task_and_goes_back_without_losing_or_doubling_a_run(
    make_host, with_database, wheels, mode
):
    host = make_host(with_database)
    with_database.install(wheels[1])
    host.configure(f"concurrency = {mode}\n{settings(host, 'cepheid')}")
    take_in(host)
    host.start_agent()
    wait_until(lambda: len(runs(host)) >= 2, host.read_log)

    for provider in ("acme-bandwidth", "cepheid"):
        count = len(runs(host))
        host.configure(f"concurrency = {mode}\n{settings(host, provider)}")
        host.signal_agent(signal.SIGHUP)
        wait_until(lambda p=provider: [r[0] for r in runs(host)][-2:] == [p, p], host.read_log)
        assert len(runs(host)) >= count + 2
        assert host.tasks()[provider][0] in ("enabled", "running")

    # Uninstalled under the agent, which goes on with what it has loaded of the meter.
    with_database.uninstall("acme-bandwidth")
    host.configure(f"concurrency = {mode}\nenabled_tasks = {TASK}\n[{TASK}]\nspacing = {PERIOD}\n")
    host.signal_agent(signal.SIGHUP)
    wait_until(lambda: "restart the agent for: [bandwidth] driver" in host.read_log())
    count = len(runs(host))
    wait_until(lambda: len(runs(host)) >= count + 2, host.read_log)
    assert host.stop_agent() == 0

    made = runs(host)
    assert {outcome for _, outcome, *_ in made} == {"ok"}
    for (_, _, due, late), (_, _, next_due, _) in itertools.pairwise(made):
        # A run that comes late is booked to the time that it belongs to, however late it is.
        assert next_due - due == pytest.approx((late // PERIOD + 1) * PERIOD, abs=PERIOD / 4)


def runs(host):
    """Return the runs that have ended: distribution, outcome, when due, and how late."""
    return host.query(
        "cepheid-journal.sqlite",
        "SELECT distribution, outcome,"
        " (julianday(started_at) - 2460000.5) * 86400 - lateness_seconds, lateness_seconds"
        " FROM runs WHERE duration_seconds IS NOT NULL ORDER BY id",
    )


#: Makes a real tap device in a network namespace, sends frames both ways, and prints the file.
TAP = """
import fcntl, os, socket, struct
guest = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(guest, 0x400454CA, struct.pack("16sH22x", b"tap1", 0x1002))  # TUNSETIFF: TAP, NO_PI
with open("/proc/sys/net/ipv6/conf/tap1/disable_ipv6", "w") as file:
    file.write("1")  # it would send by itself
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"tap1", 1))  # SIOCSIFFLAGS: UP
frame = bytes(6) + b"\\x02\\0\\0\\0\\0\\1" + b"\\x88\\xb5" + bytes(86)
for _ in range(3):
    os.write(guest, frame)
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
    host.bind(("tap1", 0))
    host.send(frame + bytes(50))
    os.read(guest, 65536)
print(open("/proc/net/dev").read())
"""


def test_a_real_tap_device_counts_what_its_guest_sends_as_received(tmp_path):
    require("unshare")
    if not os.access("/dev/net/tun", os.W_OK) and not os.environ.get("CI"):
        pytest.skip("/dev/net/tun cannot be written")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", TAP],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "dev").write_text(done.stdout)
    script = (
        "import pathlib, sys; from acme_bandwidth import tap_devices\n"
        "print(*tap_devices.read(pathlib.Path(sys.argv[1])).counters['tap1'])"
    )
    read = subprocess.check_output(
        [sys.executable, "-c", script, tmp_path / "dev"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        text=True,
    )
    assert read.split() == ["150", "300"]  # in, out
