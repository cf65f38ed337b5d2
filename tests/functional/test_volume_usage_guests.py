# SPDX-License-Identifier: Apache-2.0
"""poll_volume_usage on guests that write and read blocks: what they did is what is on record."""

import contextlib
import datetime
import itertools
import json
import sqlite3

import libvirt
import pytest
import sqlalchemy as sa

from cepheid import admin
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor import opts
from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor
from cepheid_plugins.tasks.poll_volume_usage import PollVolumeUsage
from tests.fake_agent import FakeAgent
from tests.functional.agents import Installation
from tests.functional.inventories import rows
from tests.functional.libvirtd import kill
from tests.functional.processes import wait_until
from tests.functional.tiny_guest import TinyGuest, disk, make_volume

pytestmark = pytest.mark.functional

SETTINGS = """
enabled_tasks = poll_volume_usage
[hypervisor]
uri = {uri}
[poll_volume_usage]
spacing = 100000
[oslo_messaging_notifications]
driver = log
"""

NAMES = ("reads", "read_bytes", "writes", "write_bytes")

LOG_NAME = "oslo.messaging.notification.volume.usage"

SNAPSHOT_XML = """
<domainsnapshot><disks>
  <disk name='vda' snapshot='external'><source file='{path}'/></disk>
  <disk name='vdb' snapshot='no'/>
</disks></domainsnapshot>
"""

COPY_XML = "<disk type='file'><source file='{path}'/><driver type='qcow2'/></disk>"

EXTERNAL = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)


class MeteredHost:
    """A real agent beside guests whose disks are volumes."""

    _numbers = itertools.count(1)

    def __init__(self, libvirtd, path):
        self.installation = Installation(path, SETTINGS.format(uri=libvirtd.uri))
        self.installation.run("db", "sync")
        self.installation.start_agent()

    def adopt(self, guest):
        self.installation.run("instance", "adopt", f"cepheid-test-{guest.name}")

    def attach(self, guest, device, volume=None):
        """Let a disk of a guest be a volume; return its id."""
        volume = volume or f"volume-{next(self._numbers)}"
        now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S.%f}"
        self.execute(
            "INSERT INTO block_device_mapping (instance_uuid, volume_id, device_name,"
            " destination_type, deleted, created_at) VALUES (?, ?, ?, 'volume', 0, ?)",
            *(guest.uuid, volume, f"/dev/{device}", now),
        )
        return volume

    def detach(self, volume):
        self.execute(
            "UPDATE block_device_mapping SET deleted = id WHERE volume_id = ? AND deleted = 0",
            volume,
        )

    def detach_all(self):
        self.execute("UPDATE block_device_mapping SET deleted = id WHERE deleted = 0")

    def poll(self):
        """Let the agent make a pass; return what it counted."""
        run = admin.call(self.installation.path, "run", task="poll_volume_usage", dry_run=None)
        assert run["outcome"] == "ok", run
        return run["counters"]

    def used(self, volume):
        """Return what is on record of a volume: what it read and wrote since it was made."""
        both = zip(self.row(volume, "tot"), self.row(volume, "curr"), strict=True)
        return tuple(tot + curr for tot, curr in both)

    def row(self, volume, kind):
        columns = ", ".join(f"{kind}_{name}" for name in NAMES)
        (found,) = self.execute(
            f"SELECT {columns} FROM volume_usage_cache WHERE volume_id = ?", volume
        )
        return found

    def told(self, volume):
        """Return the sums of the notifications on a volume so far."""
        found = []
        for line in self.installation.read_log().splitlines():
            if LOG_NAME in line:
                payload = json.loads(line[line.index("{") :])["payload"]
                if payload["volume_id"] == volume:
                    found.append(tuple(payload[name] for name in NAMES))
        return found

    def execute(self, statement, *values):
        path = self.installation.path / "cepheid.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as base, base:
            return base.execute(statement, values).fetchall()

    def close(self):
        assert self.installation.stop_agent() == 0
        self.installation.close()


@pytest.fixture(scope="module")
def host(libvirtd, tmp_path_factory):
    host = MeteredHost(libvirtd, tmp_path_factory.mktemp("metered"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def booted(libvirtd, host):
    """A guest with two disks."""
    return boot(libvirtd, host, "metered")


@pytest.fixture
def guest(booted):
    """The same, running."""
    return booted if booted.domain.isActive() else booted.start()


@pytest.fixture
def volumes(host, guest):
    """Both of its disks are new volumes."""
    yield {device: host.attach(guest, device) for device in ("vda", "vdb")}
    host.detach_all()


@pytest.fixture(scope="module")
def other(libvirtd, host):
    """Another guest; its disks are no volumes."""
    return boot(libvirtd, host, "other")


@pytest.fixture(scope="module")
def crowd(libvirtd):
    """Eighteen guests whose firmware reads their disks."""
    return [libvirtd.add_guest(f"crowd-{number}") for number in range(18)]


@pytest.fixture
def spare(libvirtd, host, guest, other):
    """A disk that both can be given."""
    spare = disk(make_volume(libvirtd, "spare"), "vdc", shareable=True)
    yield spare
    for one in (guest, other):
        if one.has("vdc"):
            one.unplug(spare, "vdc")
    host.detach_all()


@pytest.fixture
def task(tmp_path, database, libvirtd):
    """The task on a database of each kind, with the real hypervisor's driver."""
    agent = FakeAgent(tmp_path, {"database": database})
    agent.conf.register_opts(opts.OPTIONS, group="hypervisor")
    agent.set("hypervisor", uri=libvirtd.uri)
    hypervisor = LibvirtHypervisor(agent)
    agent.drivers.use("hypervisor", hypervisor)
    task = agent.build(PollVolumeUsage)
    agent.set(task.name, spacing=60)
    hypervisor.domains()  # so that it is connected
    yield task
    hypervisor.close()
    agent.close()


@pytest.fixture
def volume(volumes):
    """The volume of its second disk."""
    return volumes["vdb"]


def boot(libvirtd, host, name):
    devices = [
        disk(make_volume(libvirtd, f"{name}-root", "qcow2"), "vda", "qcow2"),
        disk(make_volume(libvirtd, f"{name}-data"), "vdb"),
    ]
    guest = TinyGuest(libvirtd, name, devices).start()
    host.adopt(guest)
    return guest


def counted(guest, device):
    """Return libvirt's counters of a guest's disk."""
    stats = guest.stats()
    (number,) = [n for n in range(stats["block.count"]) if stats[f"block.{n}.name"] == device]
    return tuple(
        stats[f"block.{number}.{name}"] for name in ("rd.reqs", "rd.bytes", "wr.reqs", "wr.bytes")
    )


def is_ready(domain):
    """Tell whether a job has copied what there was, and only follows from now on."""
    return "ready='yes'" in domain.XMLDesc()


def insert_volumes(engine, uuids):
    """Let the first disk of guests be a volume."""
    volume = {"device_name": "/dev/vda", "destination_type": "volume", "deleted": 0}
    with engine.begin() as connection:
        for uuid in uuids:
            row = {"instance_uuid": uuid, "volume_id": f"volume-{uuid[:8]}", **volume}
            connection.execute(
                sa.insert(models.instances).values(uuid=uuid, host="host1", deleted=0)
            )
            connection.execute(sa.insert(models.block_device_mapping).values(row))


def added(before, after):
    return tuple(new - old for old, new in zip(before, after, strict=True))


def test_what_a_guest_did_is_on_record_and_told_to_the_byte(host, guest, volumes):
    assert host.poll() == {"volumes": 2, "read": 2, "done": 1}
    before = {device: host.used(volume) for device, volume in volumes.items()}
    assert before == {device: counted(guest, device) for device in volumes}
    guest.write("vda", blocks=10)
    guest.write("vdb", blocks=100)
    guest.read("vdb", blocks=40, block_bytes=65536)
    host.poll()
    after = {device: host.used(volume) for device, volume in volumes.items()}
    assert added(before["vda"], after["vda"]) == (0, 0, 10, 40960)
    assert added(before["vdb"], after["vdb"]) == (40, 2621440, 100, 409600)
    wait_until(lambda: all(len(host.told(one)) == 2 for one in volumes.values()))
    for device, volume in volumes.items():
        assert host.told(volume) == [before[device], after[device]]


def test_an_idle_guest_costs_no_change_and_is_told_of_all_the_same(host, guest, volume):
    host.poll()
    assert host.poll() == {"volumes": 2, "read": 2}
    wait_until(lambda: len(host.told(volume)) == 2)
    assert len(set(host.told(volume))) == 1


def test_a_restart_between_two_passes_carries_what_was_counted_over(host, guest, volume):
    guest.write("vdb", blocks=200)
    guest.read("vdb", blocks=50)
    host.poll()
    before = host.used(volume)
    guest.power_off()
    guest.start()
    at_boot = counted(guest, "vdb")
    guest.write("vdb", blocks=7)
    host.poll()
    # What a kernel looks for on a disk when it boots, and the order.
    assert added(before, host.used(volume)) == added((0, 0, -7, -7 * 4096), at_boot)
    assert host.row(volume, "tot") == before
    guest.write("vdb", blocks=3)
    host.poll()
    assert host.row(volume, "tot") == before
    assert host.row(volume, "curr") == counted(guest, "vdb")


def test_a_reboot_from_within_starts_nothing_anew(host, guest, volume):
    guest.write("vdb", blocks=20)
    host.poll()
    before = host.used(volume)
    guest.reboot()
    guest.write("vdb", blocks=1)
    host.poll()
    assert host.row(volume, "tot") == (0, 0, 0, 0)
    assert host.used(volume) == counted(guest, "vdb")
    assert added(before, host.used(volume))[2:] == (1, 4096)


def test_a_guest_that_is_shut_off_keeps_its_row_and_is_not_told_of(host, guest, volume):
    guest.write("vdb", blocks=20)
    host.poll()
    before = host.used(volume)
    guest.press_power_button()
    assert host.poll() == {"volumes": 2}
    assert host.used(volume) == before
    guest.start()
    host.poll()
    wait_until(lambda: len(host.told(volume)) == 2)
    assert added(before, host.used(volume)) == counted(guest, "vdb")


def test_a_guest_that_is_killed_between_two_passes_costs_the_others_nothing(
    host, guest, volume, other
):
    others = host.attach(other, "vda")
    guest.write("vdb", blocks=20)
    host.poll()
    before, others_before = host.used(volume), host.used(others)
    guest.write("vdb", blocks=30)
    kill(guest.libvirtd.guest_pid(guest.uuid))
    other.write("vda", blocks=5)
    host.poll()  # whether libvirtd has noticed or not
    assert added(others_before, host.used(others)) == (0, 0, 5, 20480)
    wait_until(lambda: not guest.domain.isActive())
    assert host.poll() == {"volumes": 3, "read": 1}
    # What it wrote since the last pass died with it.
    assert host.used(volume) == before
    guest.start()
    guest.write("vdb", blocks=1)
    host.poll()
    assert added(before, host.used(volume)) == counted(guest, "vdb")


@pytest.mark.parametrize("blocks", [1, 50], ids=["less_used", "more_used"])
@pytest.mark.parametrize("passes", [0, 1], ids=["at_once", "later"])
def test_a_volume_that_is_detached_and_attached_again_goes_on(host, guest, spare, blocks, passes):
    guest.plug(spare, "vdc")
    volume = host.attach(guest, "vdc")
    guest.write("vdc", blocks=20)
    host.poll()
    before = host.used(volume)
    assert before == counted(guest, "vdc")
    guest.unplug(spare, "vdc")
    host.detach(volume)
    for _ in range(passes):
        assert host.poll() == {}
        assert host.used(volume) == before
    guest.plug(spare, "vdc")
    host.attach(guest, "vdc", volume)
    guest.write("vdc", blocks=blocks)
    for _ in range(2):
        host.poll()
        assert host.row(volume, "tot") == before
        assert host.row(volume, "curr") == counted(guest, "vdc")


def test_a_volume_that_moves_to_another_guest_takes_its_sums_along(host, guest, other, spare):
    guest.plug(spare, "vdc")
    volume = host.attach(guest, "vdc")
    guest.write("vdc", blocks=20)
    host.poll()
    before = host.used(volume)
    guest.unplug(spare, "vdc")
    host.detach(volume)
    other.plug(spare, "vdc")
    host.attach(other, "vdc", volume)
    other.write("vdc", blocks=30)
    host.poll()
    assert (host.row(volume, "tot"), host.row(volume, "curr")) == (before, counted(other, "vdc"))
    wait_until(lambda: len(host.told(volume)) == 2)
    assert host.told(volume) == [before, host.used(volume)]


def test_a_volume_that_is_unplugged_but_still_on_record_is_left_out(host, guest, volumes, spare):
    guest.plug(spare, "vdc")
    volume = host.attach(guest, "vdc")
    host.poll()
    before = host.used(volume)
    guest.unplug(spare, "vdc")
    assert host.poll() == {"volumes": 3, "read": 2}
    assert host.used(volume) == before


def test_d14_two_guests_that_share_a_volume_are_counted_each_for_itself(host, guest, other, spare):
    volume = "volume-shared"
    for one, blocks in ((guest, 10), (other, 25)):
        one.plug(spare, "vdc")
        host.attach(one, "vdc", volume)
        one.write("vdc", blocks=blocks)
    for _ in range(3):
        host.poll()
        guest.write("vdc", blocks=1)
    host.poll()
    found = host.execute(
        "SELECT instance_uuid, tot_writes, curr_writes FROM volume_usage_cache WHERE volume_id = ?",
        volume,
    )
    assert sorted(found) == sorted([(guest.uuid, 0, 13), (other.uuid, 0, 25)])


def test_a_commit_and_a_copy_meanwhile_neither_add_nor_rename_anything(
    host, guest, volumes, libvirtd
):
    volume = volumes["vda"]
    host.poll()
    used = [host.used(volume)]

    def write_and_poll():
        guest.write("vda", blocks=10)
        guest.read("vda", blocks=4)
        host.poll()
        used.append(host.used(volume))

    def finish_job():
        wait_until(lambda: is_ready(guest.domain))
        guest.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        write_and_poll()

    overlay, copy = (libvirtd.path / "disks" / f"{name}.qcow2" for name in ("overlay", "copy"))
    guest.domain.snapshotCreateXML(SNAPSHOT_XML.format(path=overlay), EXTERNAL)
    write_and_poll()
    guest.domain.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    write_and_poll()
    finish_job()
    guest.domain.blockCopy(
        "vda", COPY_XML.format(path=copy), {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    )
    write_and_poll()
    finish_job()
    assert [added(*pair) for pair in itertools.pairwise(used)] == [(4, 16384, 10, 40960)] * 5
    assert host.row(volume, "tot") == (0, 0, 0, 0)


def test_twenty_guests_cost_what_two_do_on_each_database(
    task, database, engine, guest, other, crowd
):
    uuids = [guest.uuid, other.uuid, *crowd]
    hypervisor = task.agent.driver("hypervisor")
    costs = []
    for new_uuids, blocks in ((uuids[:2], 0), (uuids[2:], 0), ([], 5), ([], 0)):
        insert_volumes(engine, new_uuids)
        guest.write("vda", blocks)
        database.statements.clear()
        hypervisor.calls.clear()
        assert task.agent.run(task).outcome == "ok"
        assert hypervisor.calls == {"virConnectGetAllDomainStats": 1}
        costs.append([database.statements[word] for word in ("SELECT", "INSERT", "UPDATE")])
    assert costs == [[3, 1, 0], [3, 1, 0], [3, 0, 1], [3, 0, 0]]
    found = {row.instance_uuid: row for row in rows(engine, models.volume_usage_cache)}
    assert set(found) == set(uuids)
    assert all(row.curr_read_bytes >= 512 for row in found.values())
    for one in (guest, other):
        row = found[one.uuid]
        assert tuple(getattr(row, f"curr_{name}") for name in NAMES) == counted(one, "vda")
