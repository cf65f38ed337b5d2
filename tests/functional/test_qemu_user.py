# SPDX-License-Identifier: Apache-2.0
"""QEMU as a user of its own, as Debian has it: what root's agent makes, guests can start from."""

import os
import re
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.functional.disk_hosts import NO_OFFLOAD, DiskHost, holds_pattern
from tests.functional.libvirtd import PROGRAMS
from tests.functional.privileged_libvirtd import PrivilegedLibvirtd
from tests.functional.processes import require

pytestmark = pytest.mark.functional

#: Of Debian's user libvirt-qemu, whom the namespaces have as well.
QEMU_UID = 64055


class Daemon(PrivilegedLibvirtd):
    """A daemon that gives QEMU the disks of each guest when it starts it, libvirt's default."""

    qemu_conf = """
user = "libvirt-qemu"
group = "libvirt-qemu"
security_driver = "none"
namespaces = []
stdio_handler = "file"
"""

    def __init__(self):
        super().__init__()
        for name in ("", "run", "data", "cache"):
            (self.path / name).chmod(0o711)


@pytest.fixture(scope="module")
def daemon():
    require(*PROGRAMS)
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def host(daemon, tmp_path):
    host = DiskHost(daemon, tmp_path, settings=NO_OFFLOAD)
    host.instances.chmod(0o711)
    yield host
    host.close()


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def uid_of(pid):
    """Return whom a process runs as."""
    return int(re.search(r"^Uid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def open_to_others(host):
    """Return the files of instances that users of the host could read or write."""
    files = [path for path in host.libvirtd.path.glob("*/*-*-*-*-*/*") if path.is_file()]
    assert files
    return [path.name for path in files if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)]


@pytest.mark.parametrize("mask", [0o022, 0o077], ids=["umask-022", "umask-077"])
def test_what_the_agent_makes_a_guest_can_start_from_and_others_cannot_read(host, mask):
    uuid = host.add("web-1")
    host.disk(uuid).chmod(0o600)
    assert uid_of(host.libvirtd.guest_pid(uuid)) == QEMU_UID
    with umask(mask):
        for words in (
            ["rescue", uuid, "--image", str(host.image)],
            ["unrescue", uuid],
            ["stop", uuid],
            ["start", uuid],
            ["resize", uuid, "--vcpus", "2", "--disk-gib", "1"],
            ["confirm-resize", "--yes", uuid],
            ["shelve", "--yes", uuid],
            ["offload", "--yes", uuid],
            ["unshelve", uuid],
        ):
            host.run(*words)
            assert open_to_others(host) == [], words
            if words[0] not in ("stop", "shelve", "offload"):
                assert uid_of(host.libvirtd.guest_pid(uuid)) == QEMU_UID, words
    assert holds_pattern(host.disk(uuid), "web-1")
