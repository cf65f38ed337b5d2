# SPDX-License-Identifier: Apache-2.0
"""The image cache under real QEMU guests, running and shut off, by the real program."""

import json
import os
import subprocess
import sys
import time

import libvirt
import pytest

from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import ASIDE
from tests.functional.disk_hosts import DiskHost
from tests.functional.processes import require
from tests.images import DAY, disk_xml, qemu_img

pytestmark = pytest.mark.functional

GARBAGE = image_names.fingerprint("garbage")
SETTINGS = """
[run_image_cache_manager_pass]
remove_unused_original_minimum_age_seconds = 3600
removed_retention_seconds = {retention}
"""


#: Runs a program in a mount namespace of its own, in which process 1 has no file open. A
#: container's may have more privileges than the container's root, who is then refused the look.
NAMESPACE = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /proc/1/fd && exec "$@"']


class CacheHost(DiskHost):
    """A host whose guests' disks stand on files of an image cache."""

    def __init__(self, libvirtd, path, retention=DAY):
        super().__init__(libvirtd, path, settings=SETTINGS.format(retention=retention))
        self.base = self.instances / "_base"
        self.base.mkdir()
        libvirtd.give_away(self.base)
        self._empty = path / "empty"
        self._empty.mkdir()

    def cepheid(self, *words, check=True):
        """Run the program as root of the host; return how it ended."""
        program = [sys.executable, "-m", "cepheid", "--config-file", self.installation.conf]
        done = subprocess.run(
            [*NAMESPACE, self._empty, *program, *words],
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == 0 or not check, done.stderr
        return done

    def file(self, name, size="8M", backing=None, backing_format="raw"):
        """Make a file of the cache that was last used two days ago."""
        path = self.base / name
        if backing is None:
            qemu_img("create", "-q", "-f", "raw", path, size)
        else:
            words = ["-b", backing, "-F", backing_format]
            qemu_img("create", "-q", "-f", "qcow2", *words, path, size)
        self.libvirtd.give_away(path)
        self.make_old(name)
        return path

    def make_old(self, *names):
        for name in names:
            os.utime(self.base / name, (time.time() - 2 * DAY,) * 2)

    def guest(self, name, backing, backing_format="raw", running=True, disk="disk", outside=False):
        """Make a guest whose disk stands on a file; return its uuid."""
        where = None if outside else self.instances
        uuid = self.libvirtd.add_guest(name, start=False, instances_path=where)
        path = self.instances / uuid / disk
        if outside:
            path = self.libvirtd.path / "disks" / f"{name}.qcow2"
        words = ["-b", backing, "-F", backing_format]
        qemu_img("create", "-q", "-f", "qcow2", *words, path, "16M")
        self.libvirtd.give_away(path)
        if running:
            self.domain(uuid).create()
        return uuid

    def run_pass(self, *words):
        """Run the task; return what it prints."""
        done = self.cepheid(*words, "task", "run", "run_image_cache_manager_pass")
        return done.stdout + done.stderr

    def listed(self):
        """Return what ``cepheid image list`` says, by name."""
        rows = json.loads(self.cepheid("image", "list", "-f", "json").stdout)
        return {row["Name"]: row for row in rows}

    def names(self):
        return sorted(path.name for path in self.base.iterdir() if path.name != ASIDE)

    def aside(self):
        directory = self.base / ASIDE
        names = directory.iterdir() if directory.exists() else ()
        return sorted(path.name.partition("@")[0] for path in names)


@pytest.fixture
def host(libvirtd, tmp_path):
    require("unshare")
    if os.geteuid() != 0:
        pytest.fail("who has files open is root's to know; run this as root")
    host = CacheHost(libvirtd, tmp_path)
    # A host whose inventory is empty is not trusted.
    host.add("adopted")
    yield host
    host.close()


def name(number, suffix=""):
    return image_names.fingerprint(str(number)) + suffix


def test_what_real_guests_stand_on_is_kept_and_the_rest_goes_aside(host):
    """Running and shut off; on two and three levels, on a resized base, from elsewhere."""
    kept = {}
    for running in (True, False):
        state = "running" if running else "off"
        two = host.file(name(f"two {state}"))
        kept[two.name] = host.guest(f"two-{state}", two, running=running)
        bottom = host.file(name(f"bottom {state}"))
        middle = host.file(name(f"middle {state}"), "12M", bottom)
        kept[bottom.name] = kept[middle.name] = host.guest(
            f"three-{state}", middle, "qcow2", running=running
        )
        resized = host.file(name(f"resized {state}", "_10"))
        kept[resized.name] = host.guest(f"resized-{state}", resized, running=running)
        far = host.file(name(f"far {state}"))
        kept[far.name] = host.guest(f"far-{state}", far, running=running, outside=True)
        rescue = host.file(name(f"rescue {state}"))
        host.guest(f"rescue-{state}", two, running=running)
        qemu_img("create", "-q", "-f", "qcow2", "-b", rescue, "-F", "raw",
                 host.instances / kept[two.name] / "disk.rescue", "16M")  # fmt: skip
        kept[rescue.name] = kept[two.name]
    unused = [host.file(GARBAGE), host.file(name("garbage", "_20")), host.file("swap_64"),
              host.file("ephemeral_1_abcdefg")]  # fmt: skip
    listed = host.listed()
    assert {n for n, row in listed.items() if row["Verdict"] == "used"} == set(kept)
    assert {n for n, row in listed.items() if row["Verdict"] == "set aside"} == {
        path.name for path in unused
    }
    for base, uuid in kept.items():
        owners = " ".join(listed[base]["Owners"])
        assert f"{uuid}/disk" in owners or "disks/far-" in owners
    assert any("process " in owner for owner in listed[name("two running")]["Owners"])
    host.run_pass()
    assert host.names() == sorted(kept)
    assert host.aside() == sorted(path.name for path in unused)
    # They go on as if nothing had been, and start anew.
    for uuid in set(kept.values()):
        domain = host.domain(uuid)
        if domain.isActive():
            domain.destroy()
        domain.create()


def test_a_guest_with_a_snapshot_keeps_what_it_stood_on_before(host):
    base = host.file(name("snapshot"))
    uuid = host.guest("snapshot", base)
    domain = host.domain(uuid)
    overlay = host.instances / uuid / "disk.snapshot"
    domain.snapshotCreateXML(
        "<domainsnapshot><name>before</name><disks><disk name='vda' snapshot='external'>"
        f"<source file='{overlay}'/></disk></disks></domainsnapshot>",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
    )
    # Inside a disk as well.
    other = host.file(name("inside"))
    inside = host.guest("inside", other, running=False)
    host.domain(inside).snapshotCreateXML("<domainsnapshot><name>inside</name></domainsnapshot>")
    host.file(GARBAGE)
    host.run_pass()
    assert host.names() == sorted([base.name, other.name])
    domain.destroy()
    host.make_old(base.name, other.name)
    host.run_pass()
    assert host.names() == sorted([base.name, other.name])


def test_only_a_definition_and_only_a_snapshot_of_another_disk_keep_a_file(host):
    """Nothing on the disk and nothing open says so: it is what the guest starts with next."""
    uuid = host.guest("next", host.file(name("now")))
    later = host.file(name("later"))
    domain = host.domain(uuid)
    text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    disk = disk_xml(later, "raw").replace("vda", "vdb")
    host.connection.defineXML(text.replace("</disk>", f"</disk>{disk}", 1))
    host.file(GARBAGE)
    host.run_pass()
    assert host.names() == sorted([name("now"), later.name])


def test_a_file_that_a_process_has_open_is_kept_and_goes_once_it_is_closed(host):
    path = host.file(GARBAGE)
    with path.open("rb"):
        assert any(owner == f"process {os.getpid()}" for owner in host.listed()[GARBAGE]["Owners"])
        host.run_pass()
        assert host.names() == [GARBAGE]
    host.make_old(GARBAGE)
    host.run_pass()
    assert host.names() == []


def test_a_guest_that_was_started_from_a_file_set_aside_gets_it_back(host):
    """Its disk appears after the look: as root, with an old file, without Nova's lock."""
    path = host.file(name("late"))
    host.run_pass()
    assert host.aside() == [path.name]
    uuid = host.libvirtd.add_guest("late", start=False, instances_path=host.instances)
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", path, "-F", "raw", host.disk(uuid), "16M")
    host.libvirtd.give_away(host.disk(uuid))
    host.run_pass()
    assert (host.names(), host.aside()) == ([path.name], [])
    host.domain(uuid).create()


def test_a_dry_run_and_the_list_change_nothing(host):
    host.file(GARBAGE)
    before = subprocess.run(["ls", "-laR", "--time-style=full-iso", host.instances],
                            check=True, capture_output=True).stdout  # fmt: skip
    host.listed()
    done = host.cepheid("task", "run", "run_image_cache_manager_pass", "--dry-run")
    assert GARBAGE in done.stdout
    after = subprocess.run(["ls", "-laR", "--time-style=full-iso", host.instances],
                           check=True, capture_output=True).stdout  # fmt: skip
    assert after == before


def test_an_unreadable_disk_is_named_by_the_list_and_the_task(host):
    host.file(GARBAGE)
    uuid = host.guest("broken", host.file(name("broken")), running=False)
    content = host.disk(uuid).read_bytes()
    host.disk(uuid).write_bytes(content[:200])
    done = host.cepheid("image", "list")
    assert f"Nothing would be removed: {host.disk(uuid)} cannot be read: it is cut short" in (
        done.stderr
    )
    assert "nothing is removed in this pass" in host.run_pass("-v")
    assert GARBAGE in host.names()
    host.disk(uuid).write_bytes(content)
    host.run_pass()
    assert host.names() == [name("broken")]


def test_a_host_is_forgotten_at_an_operators_word(host):
    (host.instances / "compute_nodes").write_text(json.dumps({"gone": time.time() - 30 * DAY}))
    host.run_pass()
    done = host.cepheid("image", "forget-host", "nobody", check=False)
    assert done.returncode == 1
    assert "'nobody' is not among those that share this storage: gone, host1." in done.stderr
    host.cepheid("image", "forget-host", "gone")
    assert set(json.loads((host.instances / "compute_nodes").read_text())) == {"host1"}
    assert "gone" not in (host.instances / "cepheid_compute_nodes").read_text()


def test_a_host_with_instances_is_not_forgotten_by_mistake(host):
    host.run_pass()
    done = host.cepheid("image", "forget-host", "host1", check=False)
    assert done.returncode == 1
    assert "1 live instances on host1 are on record. Give --yes" in done.stderr


def test_a_file_is_deleted_when_its_time_aside_is_over(libvirtd, tmp_path):
    host = CacheHost(libvirtd, tmp_path, retention=0)
    host.add("adopted")
    host.file(GARBAGE)
    host.run_pass()
    assert (host.names(), host.aside()) == ([], [GARBAGE])
    host.run_pass()
    assert host.aside() == []
    host.close()
