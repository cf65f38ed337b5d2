# SPDX-License-Identifier: Apache-2.0
"""Operations on instances: real QEMU guests with real disks, by the real command line."""

import itertools
import os
import signal

import libvirt
import pytest

from cepheid.errors import CepheidError
from cepheid_plugins.compute import opts
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.compute.rescue import RescueOperations
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.compute.shelving import ShelvingOperations
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor import opts as hypervisor_opts
from cepheid_plugins.hypervisor.driver import DomainNotFound
from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor
from tests.functional import killed_operation
from tests.functional.disk_hosts import (
    NO_OFFLOAD,
    DiskHost,
    boot_disk,
    holds_pattern,
    virtual_size,
    write_pattern,
)
from tests.worlds import World

pytestmark = pytest.mark.functional

SIZE_BEFORE, SIZE_AFTER = 16 * 2**20, 2**30
RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def host(libvirtd, tmp_path):
    host = DiskHost(libvirtd, tmp_path, settings=NO_OFFLOAD)
    yield host
    host.close()


# What each leaves behind.


def test_a_rescued_guest_boots_the_rescue_disk_and_an_unrescued_one_its_own(host):
    uuid = host.add("web-1")
    before = host.domain(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    host.run("rescue", uuid, "--image", str(host.image))
    assert boot_disk(host.domain(uuid)) == f"{host.instances}/{uuid}/disk.rescue"
    assert f"{host.instances}/{uuid}/disk" in host.domain(uuid).XMLDesc()
    assert host.states(uuid) == ("rescued", None, RUNNING)
    host.run("unrescue", uuid)
    assert boot_disk(host.domain(uuid)) == f"{host.instances}/{uuid}/disk"
    assert host.domain(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
    assert host.files(uuid) == ["instances//disk"]
    assert holds_pattern(host.disk(uuid), "web-1")
    assert host.states(uuid) == ("active", None, RUNNING)


def test_a_confirmed_resize_leaves_the_new_size_and_no_resize_directory(host):
    uuid = host.add("web-1")
    host.run("resize", uuid, "--vcpus", "2", "--memory-mib", "48", "--disk-gib", "1")
    assert host.files(uuid) == ["instances//disk", "instances/_resize/disk"]
    assert virtual_size(host.instances / f"{uuid}_resize" / "disk") == SIZE_BEFORE
    assert host.states(uuid) == ("resized", None, RUNNING)
    host.run("confirm-resize", "--yes", uuid)
    assert host.files(uuid) == ["instances//disk"]
    assert virtual_size(host.disk(uuid)) == SIZE_AFTER
    assert holds_pattern(host.disk(uuid), "web-1")
    _, memory_kib, _, vcpus, _ = host.domain(uuid).info()
    assert (memory_kib, vcpus) == (48 * 1024, 2)
    assert host.states(uuid) == ("active", None, RUNNING)


def test_a_shelved_guest_leaves_the_host_and_comes_back_with_its_disk(host):
    uuid = host.add("web-1")
    host.run("shelve", "--yes", uuid)
    assert host.files(uuid) == ["instances//disk", "shelved//domain.xml", "shelved//vda.qcow2"]
    host.run("offload", "--yes", uuid)
    assert uuid not in host.domains()
    assert host.files(uuid) == ["shelved//domain.xml", "shelved//vda.qcow2"]
    # It is still to be found, by who does not remember what it was called.
    listed = host.installation.rows("instance", "list")
    assert [row["VM state"] for row in listed] == ["shelved_offloaded"]
    host.run("unshelve", uuid)
    assert host.domain(uuid).isActive()
    assert host.files(uuid) == ["instances//disk"]
    assert holds_pattern(host.disk(uuid), "web-1")
    assert host.states(uuid) == ("active", None, RUNNING)


def test_a_deleted_guest_leaves_neither_domain_nor_file_nor_live_row(host):
    neighbour, uuid = host.add("db-1"), host.add("web-1")
    (host.instances / "_base").mkdir()
    for left_over in ("_resize", "_del"):
        (host.instances / f"{uuid}{left_over}").mkdir()
        (host.instances / f"{uuid}{left_over}" / "disk").write_bytes(b"old")
    host.domain(uuid).managedSave()
    assert host.domain(uuid).hasManagedSaveImage()
    host.run("delete", "--yes", uuid)
    assert host.domains() == {neighbour}
    assert host.files(uuid) == []
    assert host.states(uuid) is None
    assert sorted(p.name for p in host.instances.iterdir()) == sorted(["_base", neighbour])
    assert host.domain(neighbour).isActive()
    assert holds_pattern(host.disk(neighbour), "db-1")
    assert not holds_pattern(host.disk(neighbour), "web-1")
    assert not list((host.libvirtd.path / "config").rglob("*web-1*.save"))


def test_a_deleted_guest_leaves_no_nvram(host):
    nvram, loader = (host.libvirtd.path / name for name in ("web-1_VARS.fd", "OVMF_CODE.fd"))
    for path in (nvram, loader):
        path.write_bytes(b"\0" * 4096)
        host.libvirtd.give_away(path)
    firmware = f"<loader readonly='yes' type='pflash'>{loader}</loader><nvram>{nvram}</nvram>"
    uuid = host.add("web-1", firmware=firmware)
    host.run("delete", "--yes", uuid)
    assert host.domains() == set()
    assert not nvram.exists()
    assert loader.exists()


def test_a_deleted_guest_leaves_no_copy_that_was_put_by(host):
    uuid = host.add("web-1")
    host.run("shelve", "--yes", uuid)
    host.run("delete", "--yes", uuid)
    assert host.files(uuid) == []


def test_a_shelved_guest_comes_back_with_its_nvram(host):
    nvram, loader = (host.libvirtd.path / name for name in ("web-2_VARS.fd", "OVMF_CODE.fd"))
    for path in (nvram, loader):
        path.write_bytes(b"\7" * 4096)
        host.libvirtd.give_away(path)
    firmware = f"<loader readonly='yes' type='pflash'>{loader}</loader><nvram>{nvram}</nvram>"
    uuid = host.add("web-2", firmware=firmware)
    for words in (["shelve", "--yes"], ["offload", "--yes"], ["unshelve"]):
        host.run(words[0], uuid, *words[1:])
    assert host.domain(uuid).isActive()
    assert nvram.read_bytes() == b"\7" * 4096
    host.run("delete", "--yes", uuid)
    assert not nvram.exists()


def test_a_soft_deleted_guest_comes_back_as_it_was(host):
    uuid = host.add("web-1")
    host.run("soft-delete", uuid)
    assert not host.domain(uuid).isActive()
    assert host.states(uuid) == ("soft-delete", None, SHUTDOWN)
    host.run("restore", uuid)
    assert host.domain(uuid).isActive()
    assert host.files(uuid) == ["instances//disk"]
    assert host.states(uuid) == ("active", None, RUNNING)


# Guests that do not do as they are told.


def test_a_guest_that_ignores_the_request_is_powered_off_in_time(libvirtd, tmp_path):
    host = DiskHost(libvirtd, tmp_path, shutdown_timeout=2)
    uuid = host.add("web-1")
    host.run("stop", uuid)
    assert not host.domain(uuid).isActive()
    assert host.states(uuid) == ("stopped", None, SHUTDOWN)
    host.close()


def test_a_guest_whose_process_hangs_is_stopped_all_the_same(host):
    uuid = host.add("web-1")
    os.kill(host.libvirtd.guest_pid(uuid), signal.SIGSTOP)
    host.run("stop", uuid)
    assert not host.domain(uuid).isActive()
    assert host.states(uuid) == ("stopped", None, SHUTDOWN)


@pytest.fixture
def world(libvirtd, tmp_path):
    """The same guests seen from within this process."""
    agent_path = tmp_path / "agent"
    agent_path.mkdir()
    world = World(agent_path, hypervisor=object())
    world.agent.conf.register_opts(hypervisor_opts.OPTIONS, group="hypervisor")
    world.agent.set("hypervisor", uri=libvirtd.uri)
    world.hypervisor = LibvirtHypervisor(world.agent)
    world.agent.drivers.use("hypervisor", world.hypervisor)
    world.agent.conf.register_opts(opts.OPTIONS, group="compute")
    yield world
    world.close()
    libvirtd.end_guests()


def add_stopped(world, uuids):
    """Take guests that are off into the inventory; return their instances."""
    with world.engine.begin() as connection:
        for uuid in uuids:
            connection.execute(
                models.instances.insert().values(
                    uuid=uuid,
                    host="host1",
                    vm_state="stopped",
                    power_state=4,
                    deleted=0,
                    launched_at=world.clock.utcnow(),
                    display_name="guest",
                )
            )
    return world.database.instances_by_uuid(uuids)


def lose(libvirtd, uuid):
    """Undefine a domain, as somebody else would."""
    other = libvirtd.connect()
    other.lookupByUUIDString(uuid).undefine()
    other.close()


def test_a_domain_that_vanishes_between_listing_and_acting_is_one_clear_failure(
    libvirtd, world, monkeypatch
):
    uuids = [libvirtd.add_guest(f"guest-{number}", start=False) for number in range(2)]
    rows = add_stopped(world, uuids)
    look = world.hypervisor.power_state

    def look_then_lose(uuid):
        state = look(uuid)
        if uuid == uuids[0]:
            lose(libvirtd, uuid)
        return state

    monkeypatch.setattr(world.hypervisor, "power_state", look_then_lose)
    results = PowerOperations(world.agent).start(rows, "req-1")
    assert isinstance(results[uuids[0]], CepheidError)
    assert uuids[0] in str(results[uuids[0]])
    assert results[uuids[1]] is None
    (lost,) = world.database.instances_by_uuid(uuids[:1])
    assert (lost.vm_state, lost.task_state, lost.deleted) == ("stopped", None, 0)


@pytest.mark.parametrize(
    "operate",
    [
        lambda agent, rows, image: RescueOperations(agent).rescue(rows, "req-1", image),
        lambda agent, rows, image: ResizeOperations(agent).resize(rows, "req-1", Size(2, 64, 1)),
        lambda agent, rows, image: ShelvingOperations(agent).shelve(rows, "req-1"),
    ],
    ids=["rescue", "resize", "shelve"],
)
def test_a_domain_that_vanishes_when_it_has_been_listed_is_one_clear_failure_and_its_disk_stays(
    libvirtd, world, monkeypatch, tmp_path, operate
):
    instances = tmp_path / "instances"
    instances.mkdir()
    world.agent.set("compute", instances_path=str(instances), shelved_path=f"{tmp_path}/shelved")
    uuids = [
        libvirtd.add_guest(f"guest-{number}", start=False, instances_path=instances)
        for number in range(2)
    ]
    libvirtd.make_disk(tmp_path / "rescue.img")
    rows = add_stopped(world, uuids)[:1]
    uuid, disk = rows[0].uuid, instances / rows[0].uuid / "disk"
    write_pattern(disk, "web-1")
    look = world.hypervisor.domains

    def look_then_lose():
        found = look()
        if uuid in found:
            lose(libvirtd, uuid)
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_then_lose)
    (failure,) = operate(world.agent, rows, str(tmp_path / "rescue.img")).values()
    assert isinstance(failure, DomainNotFound)
    (lost,) = world.database.instances_by_uuid([uuid])
    assert (lost.vm_state, lost.task_state, lost.deleted) == ("stopped", None, 0)
    assert len(world.rows(models.instance_faults)) == 1
    assert look().keys() == set(uuids) - {uuid}
    assert holds_pattern(disk, "web-1")


# Guests whose memory is saved, as libvirt-guests does when the host is shut down.


@pytest.mark.parametrize(
    "words",
    [["rescue", "--image", "{image}"], ["resize", "--vcpus", "2"], ["shelve", "--yes"]],
    ids=lambda words: words[0],
)
def test_a_guest_whose_memory_is_saved_keeps_it_rather_than_go_on_as_it_was(host, words):
    uuid = host.add("web-1")
    host.domain(uuid).managedSave()
    verb, *options = [word.format(image=host.image) for word in words]
    refused = host.installation.run("instance", verb, uuid, *options, check=False)
    assert refused.returncode == 1
    assert "its memory is saved" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert host.domain(uuid).hasManagedSaveImage()
    assert host.files(uuid) == ["instances//disk"]
    assert host.states(uuid) == ("active", None, RUNNING)


def test_an_unrescue_boots_the_guests_own_disk_though_the_rescue_system_was_saved(host):
    uuid = host.add("web-1")
    host.run("rescue", uuid, "--image", str(host.image))
    host.domain(uuid).managedSave()
    host.run("unrescue", uuid)
    assert host.domain(uuid).isActive()
    assert boot_disk(host.domain(uuid)) == f"{host.instances}/{uuid}/disk"
    assert host.files(uuid) == ["instances//disk"]
    assert holds_pattern(host.disk(uuid), "web-1")


# Killed at every step.

#: Each operation on a running guest, after those that lead to it.
LINES = [
    [["stop"]],
    [["stop"], ["start"]],
    [["reboot", "--yes"]],
    [["rescue", "--image", "{image}"]],
    [["rescue", "--image", "{image}"], ["unrescue"]],
    [["resize", "--memory-mib", "48", "--disk-gib", "1"]],
    [["resize", "--memory-mib", "48", "--disk-gib", "1"], ["confirm-resize", "--yes"]],
    [["shelve", "--yes"]],
    [["shelve", "--yes"], ["offload", "--yes"]],
    [["shelve", "--yes"], ["offload", "--yes"], ["unshelve"]],
    [["soft-delete"]],
    [["soft-delete"], ["restore"]],
    [["delete", "--yes"]],
]


def outcome(host, uuid):
    """Return all that an operation brings about."""
    is_there = uuid in host.domains()
    domain = host.domain(uuid) if is_there else None
    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if domain else ""
    name = domain.name() if domain else ""
    return {
        "states": host.states(uuid),
        "files": host.files(uuid),
        "disks": host.disks(uuid),
        "definition": definition.replace(uuid, "UUID").replace(name, "NAME") if name else "",
        "runs": bool(domain and domain.isActive()),
    }


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(words[0] for words in line))
def test_killed_before_each_of_its_steps_in_turn_it_ends_as_if_it_had_not_been(host, line):
    spared, killed = host.add("spared"), host.add("killed")

    def run(uuid, words, last=None):
        verb, *options = [word.format(image=host.image) for word in words]
        words = ["instance", verb, uuid, *options]
        return killed_operation.run(host.installation.conf, words, last)

    for words in line[:-1]:
        assert not run(spared, words)
        assert not run(killed, words)
    assert not run(spared, line[-1])
    expected, before = outcome(host, spared), outcome(host, killed)
    for last in itertools.count():
        was_killed = run(killed, line[-1], last)
        if outcome(host, killed) == expected and (expected != before or not was_killed):
            break
        assert was_killed, outcome(host, killed)
    assert last >= 2
    for kept in ("instances/*/disk", "shelved/*/vda.qcow2"):
        for path in host.libvirtd.path.glob(kept):
            assert holds_pattern(path, "killed" if killed in str(path) else "spared")
    assert outcome(host, spared) == expected
