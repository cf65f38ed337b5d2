# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of the tests' own, with real QEMU guests under software emulation.

It is a session daemon: with its own XDG directories it shares nothing with the machine's own, and
needs no root. Root's session is the system daemon, so a test that runs as root lets an
unprivileged user run it. Everything is ended by its process id.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import IO

import libvirt

from cepheid import concurrency
from tests.functional.processes import PATIENCE_SECONDS, as_user, unprivileged_user, wait_until

PROGRAMS = ("libvirtd", "qemu-system-x86_64", "qemu-img")

GUEST_XML = """
<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>{firmware}</os>
  <features><acpi/></features>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class Libvirtd:
    """The daemon and its guests; use it in a ``with`` statement.

    :param as_root: whether root runs it, where root runs the tests
    """

    def __init__(self, as_root: bool = False) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="cepheid-lv-"))
        self.process: subprocess.Popen[bytes] | None = None
        self._user = None if as_root else unprivileged_user()
        for name in ("run", "config", "cache", "data", "disks"):
            (self.path / name).mkdir(mode=0o700)
        if self._user is not None:
            for path in (self.path, *self.path.iterdir()):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.path / "run" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """How to connect to it."""
        return f"qemu:///session?socket={self.socket}"

    def __enter__(self) -> Libvirtd:
        _reap_guests()
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.end_guests()
        finally:
            self.stop()
            shutil.rmtree(self.path, ignore_errors=True)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with (self.path / "libvirtd.log").open("ab") as log:
            self.process = self._popen(log)
        wait_until(lambda: self._answers() or self.process.poll() is not None, self._read_log)
        assert self.process.poll() is None, self._read_log()

    def _popen(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.path),
            "XDG_RUNTIME_DIR": str(self.path / "run"),
            "XDG_CONFIG_HOME": str(self.path / "config"),
            "XDG_CACHE_HOME": str(self.path / "cache"),
            "XDG_DATA_HOME": str(self.path / "data"),
        }
        return subprocess.Popen(
            ["libvirtd", "--timeout", "600"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.path,
            **as_user(self._user),
        )

    def stop(self) -> None:
        """End the daemon; its guests go on."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Kill the daemon, as a crash would; its guests go on."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def connect(self) -> libvirt.virConnect:
        """Open a connection of the test's own."""
        libvirt.registerErrorHandler(lambda context, error: None, None)
        return libvirt.open(self.uri)

    def add_guest(
        self, name: str, start: bool = True, instances_path: Path | None = None, firmware: str = ""
    ) -> str:
        """Define a guest with an empty disk, and start it; return its uuid.

        :param instances_path: where it has its disk as Nova's have, in a directory of its own
        :param firmware: further elements of the domain's ``os``
        """
        guest_uuid = str(uuid.uuid4())
        disk = self.path / "disks" / f"{name}.qcow2"
        if instances_path is not None:
            disk = instances_path / guest_uuid / "disk"
            disk.parent.mkdir()
            self.give_away(disk.parent)
        self.make_disk(disk)
        connection = self.connect()
        domain = connection.defineXML(
            GUEST_XML.format(
                name=f"cepheid-test-{name}", uuid=guest_uuid, disk=disk, firmware=firmware
            )
        )
        if start:
            domain.create()
        connection.close()
        return guest_uuid

    def make_disk(self, path: Path) -> None:
        """Make an empty disk of 16 MiB that guests can use."""
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        self.give_away(path)

    def give_away(self, path: Path) -> None:
        """Let a file or directory belong to whom the guests run as."""
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def guest_pid(self, guest_uuid: str) -> int:
        """Return the process id of a guest's QEMU."""
        connection = self.connect()
        name = connection.lookupByUUIDString(guest_uuid).name()
        connection.close()
        return int((self._pid_directory() / f"{name}.pid").read_text())

    def _pid_directory(self) -> Path:
        return self.path / "run" / "libvirt" / "qemu" / "run"

    def _read_log(self) -> str:
        return (self.path / "libvirtd.log").read_text()[-2000:]

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            return False
        try:
            self.connect().close()
        except libvirt.libvirtError:
            return False
        return True

    def end_guests(self) -> None:
        connection = self.connect()
        for domain in connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            )
        connection.close()


def kill(pid: int) -> None:
    """Kill a process that the tests have started."""
    os.kill(pid, signal.SIGKILL)


def _reap_guests() -> None:
    """Take in the guests' processes when they end, once a process.

    libvirtd waits until the process of a guest is gone, and a container's init may take a second
    and more to notice.
    """
    threading = concurrency.original("threading")
    if any(thread.name == "reaper" for thread in threading.enumerate()):
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_reap, name="reaper", daemon=True).start()


def _reap() -> None:
    sleep = concurrency.original("time").sleep
    while True:
        for children in Path("/proc/self/task").glob("*/children"):
            # Threads and processes come and go while they are looked at.
            with contextlib.suppress(OSError):
                for pid in map(int, children.read_text().split()):
                    if Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
                        os.waitpid(pid, os.WNOHANG)
        sleep(0.02)
