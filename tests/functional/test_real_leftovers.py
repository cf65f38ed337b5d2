# SPDX-License-Identifier: Apache-2.0
"""Both tasks that remove files beside real QEMU guests, by the real command, and killed in it."""

import contextlib
import datetime
import itertools
import uuid

import libvirt
import pytest

from tests.functional import killed_operation
from tests.functional.disk_hosts import DiskHost, holds_pattern
from tests.functional.libvirtd import GUEST_XML
from tests.functional.processes import wait_until
from tests.images import disk_xml, qemu_img

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

PENDING, INCOMPLETE = "run_pending_deletes", "cleanup_incomplete_migrations"


@pytest.fixture
def host(libvirtd, tmp_path):
    """A host with a guest that nobody has deleted."""
    host = DiskHost(libvirtd, tmp_path)
    host.alive = host.add("alive")
    yield host
    assert host.domain(host.alive).isActive()
    assert holds_pattern(host.disk(host.alive), "alive")
    host.close()


def long_ago(hours=1):
    then = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return (then - datetime.timedelta(hours=hours)).isoformat(sep=" ")


def delete_row(host, uuid):
    """Delete an instance in the inventory, and there only, as an API does without its host."""
    host.execute(
        "UPDATE instances SET deleted = id, deleted_at = ?, vm_state = 'deleted' WHERE uuid = ?",
        long_ago(), uuid,
    )  # fmt: skip


def add_dead(host, suffixes=("",), owner="host1"):
    """Insert a deleted instance whose directories are left here; return its uuid."""
    dead = str(uuid.uuid4())
    host.execute(
        "INSERT INTO instances (uuid, display_name, host, vm_state, cleaned, hidden, deleted,"
        " deleted_at) VALUES (?, 'dead', ?, 'deleted', 0, 0, 0, ?)",
        dead, owner, long_ago(),
    )  # fmt: skip
    host.execute("UPDATE instances SET deleted = id WHERE uuid = ?", dead)
    for suffix in suffixes:
        directory = host.instances / f"{dead}{suffix}"
        (directory / "inner").mkdir(parents=True)
        for name in ("disk", "inner/disk"):
            (directory / name).write_bytes(b"disk")
    return dead


def run(host, task):
    """Run a task by hand; return what it changed."""
    rows = host.installation.rows("task", "run", task)
    return [(row["Change"], row["Target"], row["Outcome"]) for row in rows]


def is_there(host, uuid):
    return bool(list(host.instances.glob(f"{uuid}*")))


def cleaned(host, uuid):
    ((value,),) = host.execute("SELECT cleaned FROM instances WHERE uuid = ?", uuid)
    return value


def test_a_guest_whose_row_is_deleted_keeps_its_disk_as_long_as_its_domain_is_there(host):
    left = host.add("left")
    delete_row(host, left)
    assert run(host, PENDING) == []
    assert host.domain(left).isActive()
    host.domain(left).destroy()
    assert run(host, PENDING) == []
    assert holds_pattern(host.disk(left), "left")
    host.domain(left).undefine()
    assert run(host, PENDING) == [("delete_files", left, "done")]
    assert not is_there(host, left)
    assert cleaned(host, left) == 1


def test_a_domain_of_a_stopped_libvirtd_is_not_a_domain_that_is_gone(host):
    left = host.add("left")
    delete_row(host, left)
    host.libvirtd.kill()
    done = host.installation.run("task", "run", PENDING, check=False)
    assert done.returncode != 0
    assert "does not answer" in done.stdout + done.stderr
    assert host.disk(left).exists()
    host.connection.close()
    host.libvirtd.start()
    host.connection = host.libvirtd.connect()
    assert host.domain(left).isActive()
    assert run(host, PENDING) == []


def test_a_disk_that_a_helper_guest_has_been_given_stays_running_or_not(host):
    dead = add_dead(host)
    disk = host.disk(dead)
    disk.unlink()
    host.libvirtd.make_disk(disk)
    helper = str(uuid.uuid4())
    text = GUEST_XML.format(name="cepheid-test-helper", uuid=helper, disk=disk, firmware="")
    domain = host.connection.defineXML(text)
    domain.create()
    assert run(host, PENDING) == []
    # QEMU has its disk open, and libvirt does not tell of it.
    domain.undefine()
    assert domain.isActive()
    assert run(host, PENDING) == []
    domain.destroy()
    domain = host.connection.defineXML(text)
    assert not domain.isActive()
    assert run(host, PENDING) == []
    assert disk.exists()
    domain.undefine()
    assert run(host, PENDING) == [("delete_files", dead, "done")]
    assert not is_there(host, dead)


@contextlib.contextmanager
def volume_of(host, disk):
    """Name a disk by a volume of a storage pool."""
    pool = host.connection.storagePoolCreateXML(
        f"<pool type='dir'><name>left</name><target><path>{disk.parent}</path></target></pool>"
    )
    source = f"<source pool='left' volume='{disk.name}'/>"
    yield f"<disk type='volume'>{source}<target dev='vdb'/></disk>"
    pool.destroy()


@contextlib.contextmanager
def overlay_on(host, disk):
    """Name a disk by what stands on it."""
    overlay = host.libvirtd.path / "disks" / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay)
    host.libvirtd.give_away(overlay)
    yield disk_xml(overlay).replace("vda", "vdb")
    overlay.unlink()


@contextlib.contextmanager
def empty_file(host, disk):
    """Let it be one of which libvirt knows no size."""
    disk.write_bytes(b"")
    yield disk_xml(disk, "raw").replace("vda", "vdb")


@contextlib.contextmanager
def kernel(host, disk):
    """Name it, but not by a disk."""
    yield f"<kernel>{disk}</kernel>"


@pytest.mark.parametrize("named_by", [volume_of, overlay_on, empty_file, kernel])
def test_what_a_domain_that_is_off_names_otherwise_stays(host, named_by):
    dead = add_dead(host)
    disk = host.disk(dead)
    disk.unlink()
    host.libvirtd.make_disk(disk)
    host.libvirtd.give_away(disk.parent)
    helper = str(uuid.uuid4())
    own = host.libvirtd.path / "disks" / "helper.qcow2"
    host.libvirtd.make_disk(own)
    with named_by(host, disk) as element:
        firmware, device = (element, "") if element.startswith("<kernel") else ("", element)
        text = GUEST_XML.format(
            name="cepheid-test-helper", uuid=helper, disk=own, firmware=firmware
        )
        text = text.replace("</devices>", f"{device}</devices>")
        domain = host.connection.defineXML(text)
        assert run(host, PENDING) == []
        assert disk.exists()
        domain.undefine()
        assert run(host, PENDING) == [("delete_files", dead, "done")]
    own.unlink()


def test_a_volume_of_a_pool_that_is_not_active_may_be_any_file(host):
    dead = add_dead(host)
    with volume_of(host, host.libvirtd.path / "disks" / "volume") as element:
        helper = str(uuid.uuid4())
        own = host.libvirtd.path / "disks" / "helper.qcow2"
        host.libvirtd.make_disk(own)
        text = GUEST_XML.format(name="cepheid-test-helper", uuid=helper, disk=own, firmware="")
        domain = host.connection.defineXML(text.replace("</devices>", f"{element}</devices>"))
    done = host.installation.run("task", "run", PENDING, check=False)
    assert "Is the pool active?" in done.stdout + done.stderr
    assert is_there(host, dead)
    domain.undefine()
    assert run(host, PENDING) == [("delete_files", dead, "done")]
    own.unlink()


def test_what_a_failed_migration_has_left_goes_when_its_domain_has_gone(host):
    """The instance was on host2 when it was deleted, and its domain has stayed here."""
    left = host.add("left")
    host.execute("UPDATE instances SET host = 'host2' WHERE uuid = ?", left)
    add_migration(host, left)
    assert run(host, INCOMPLETE) == []
    delete_row(host, left)
    assert run(host, INCOMPLETE) == []
    host.domain(left).destroy()
    host.domain(left).undefine()
    assert run(host, INCOMPLETE) == [
        ("delete_files", left, "done"), ("migration_status", left, "done")
    ]  # fmt: skip
    assert not is_there(host, left)
    assert statuses(host, left) == {"failed"}


def add_migration(host, uuid):
    host.execute(
        "INSERT INTO migrations (instance_uuid, status, source_compute, dest_compute, deleted)"
        " VALUES (?, 'error', 'host1', 'host2', 7)",
        uuid,
    )


def statuses(host, uuid):
    rows = host.execute("SELECT status FROM migrations WHERE instance_uuid = ?", uuid)
    return {status for (status,) in rows}


@pytest.mark.parametrize("task", [PENDING, INCOMPLETE])
@pytest.mark.parametrize("fine", [False, True], ids=["steps", "calls"])
def test_killed_before_each_of_its_steps_in_turn_it_ends_as_if_it_had_not_been(host, task, fine):
    conf, words = host.installation.conf, ["task", "run", task]
    for last in itertools.count():
        dead = add_dead(host, ["", "_resize"], "host1" if task == PENDING else "host2")
        add_migration(host, dead)
        was_killed = killed_operation.run(conf, words, last, fine)
        # It is not said to be done before it is.
        if is_there(host, dead):
            assert cleaned(host, dead) == 0
            assert statuses(host, dead) == {"error"}
        killed_operation.run(conf, words)
        assert not is_there(host, dead)
        if task == PENDING:
            assert cleaned(host, dead) == 1
        else:
            assert statuses(host, dead) == {"failed"}
        if not was_killed:
            break
    # Two directories are set aside, four files and four directories removed, one row written.
    assert last >= (11 if fine else 3)


def test_an_agent_that_runs_removes_them_by_itself(host):
    dead = add_dead(host)
    moved = add_dead(host, ["_resize"], "host2")
    add_migration(host, moved)
    with host.installation.conf.open("a") as stream:
        stream.write(f"[{PENDING}]\nspacing = 1\n[{INCOMPLETE}]\nspacing = 1\n")
    host.installation.start_agent()
    wait_until(lambda: cleaned(host, dead) == 1, host.installation.read_log)
    wait_until(lambda: statuses(host, moved) == {"failed"}, host.installation.read_log)
    assert host.installation.stop_agent() == 0
    assert not is_there(host, dead)
    assert not is_there(host, moved)
    assert host.connection.lookupByUUIDString(host.alive).state()[0] == libvirt.VIR_DOMAIN_RUNNING
