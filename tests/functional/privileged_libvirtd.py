# SPDX-License-Identifier: Apache-2.0
"""A privileged libvirtd apart from the machine, for guests with tap devices on a bridge.

It has namespaces of its own for mounts, network and processes: it neither sees nor touches the
machine's own daemon, domains, networks and control groups. All of it hangs on one process. When
that ends, be it because the tests were killed, the kernel takes away whatever was in there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.functional.libvirtd import Libvirtd
from tests.functional.processes import PATIENCE_SECONDS, require
from tests.functional.tiny_guest import TinyGuest

PROGRAMS = ("ip", "mount", "nsenter", "setpriv", "unshare")

# The first process of the namespaces; $1 is the daemon's directory. It takes in what ends, as an
# init does. /dev/kvm is not there: where it exists and does not work, libvirt would probe QEMU anew
# at every define.
INIT = """
cd "$1"
mount -t tmpfs overlays overlays
for top in etc var; do
    upper=overlays/$top/upper work=overlays/$top/work
    mkdir -p $upper $work
    mount -t overlay $top -o lowerdir=/$top,upperdir=$upper,workdir=$work /$top
done
mount -t tmpfs run /run
mkdir -p "$1"
mount --no-canonicalize --bind . "$1"  # wherever temporary directories are
for pair in config:/etc/libvirt data:/var/lib/libvirt cache:/var/cache/libvirt \
    log:/var/log/libvirt run:/run/libvirt; do
    mkdir -p "${{pair#*:}}"
    mount --no-canonicalize --bind "${{pair%%:*}}" "${{pair#*:}}"
done
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/:/bin/false >> /etc/passwd
grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >> /etc/group
umount --recursive --lazy /sys  # the control groups as well
mount -t sysfs sys /sys
mount -t tmpfs dev /dev
mkdir /dev/net /dev/pts /dev/shm
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/full c 1 7
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=666 pts /dev/pts
ln -s pts/ptmx /dev/ptmx
mount -t tmpfs shm /dev/shm
for which in all default; do echo 1 > /proc/sys/net/ipv6/conf/$which/disable_ipv6; done
ip link set lo up
ip link add {bridge} address {mac} type bridge mcast_snooping 0
ip address add {address}/24 dev {bridge}
ip link set {bridge} up
echo ready
exec >/dev/null
sleep infinity &
wait
"""

# The guests are root in there, and nothing is relabelled.
QEMU_CONF = """
user = "+0"
group = "+0"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
stdio_handler = "file"
"""

LIBVIRTD_CONF = """
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
"""

# Frames of an EtherType for experiments (IEEE 802), which no guest answers. A tap device counts a
# frame when QEMU takes it, which is to have happened before this ends. Source: tun_put_user in
# Linux's drivers/net/tun.c.
SEND_FRAMES = """
import socket, sys, time
from pathlib import Path
bridge, mac, count, size, patience = sys.argv[1:]

def taken():
    net = Path("/sys/class/net")
    ports = [port.name for port in (net / bridge / "brif").iterdir()]
    return {port: int((net / port / "statistics/tx_bytes").read_text()) for port in ports}

sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((bridge, 0))
header = bytes.fromhex(mac) + sender.getsockname()[4] + bytes.fromhex("88b5")
before, wanted = taken(), int(count) * int(size)
for _ in range(int(count)):
    sender.send(header.ljust(int(size), b"."))
until = time.monotonic() + int(patience)
while all(now - before[port] < wanted for port, now in taken().items()):
    assert time.monotonic() < until, f"no guest has taken them: {before}, {taken()}"
    time.sleep(0.01)
"""


class PrivilegedLibvirtd(Libvirtd):
    """The daemon, a bridge and their guests; use it in a ``with`` statement."""

    #: The bridge, its address, of a net of 24 bits, and its MAC.
    bridge = "br0"
    address = "192.0.2.1"
    mac = "02:00:00:00:00:01"
    #: What ``qemu.conf`` has.
    qemu_conf = QEMU_CONF

    def __init__(self) -> None:
        super().__init__(as_root=True)
        for name in ("log", "overlays"):
            (self.path / name).mkdir()
        (self.path / "config" / "qemu.conf").write_text(self.qemu_conf)
        (self.path / "config" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
        self._holder: subprocess.Popen[str] | None = None
        self._init = 0

    @property
    def uri(self) -> str:
        """How to connect to it."""
        return f"qemu:///system?socket={self.path}/run/libvirt-sock"

    def __enter__(self) -> PrivilegedLibvirtd:
        self._make_namespaces()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        assert self._holder is not None
        os.kill(self._init, signal.SIGKILL)  # and with it all that is in there
        self._holder.wait(PATIENCE_SECONDS)
        if self.process is not None:
            self.process.wait(PATIENCE_SECONDS)
        shutil.rmtree(self.path, ignore_errors=True)

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        (pid,) = _children(self.process.pid)
        os.kill(pid, number)

    def guest_pid(self, guest_uuid: str) -> int:
        """Return the process id of a guest's QEMU, as it is out here."""
        inner = super().guest_pid(guest_uuid)
        namespace = _namespace(self._init)
        for directory in Path("/proc").glob("[0-9]*"):
            # Processes come and go while they are looked at.
            with contextlib.suppress(OSError):
                found = re.search(r"^NSpid:.*\b(\d+)$", (directory / "status").read_text(), re.M)
                if found and int(found[1]) == inner and _namespace(directory.name) == namespace:
                    return int(directory.name)
        raise AssertionError(f"no process {inner} in there")

    def run_inside(self, *command: str) -> str:
        """Run a command among the bridge and the tap devices; return what it printed."""
        done = subprocess.run(
            [*self._entering(), *command], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def introduce(self, guest: TinyGuest, address: str, mac: str) -> None:
        """Give a guest an address of the bridge's net; neither has to ask for the other's MAC."""
        guest.use_network(f"{address}/24", {self.address: self.mac})
        neighbour = (address, "lladdr", mac, "dev", self.bridge)
        self.run_inside("ip", "neighbour", "replace", *neighbour, "nud", "permanent")

    def send_frames(self, mac: str, count: int, size: int) -> int:
        """Send a guest frames that it does not answer, and wait until its QEMU has them.

        Return the number of bytes.

        :param size: of a frame, in bytes, with its header
        """
        words = (self.bridge, mac.replace(":", ""), str(count), str(size), str(PATIENCE_SECONDS))
        self.run_inside(sys.executable, "-c", SEND_FRAMES, *words)
        return count * size

    def _make_namespaces(self) -> None:
        require(*PROGRAMS)
        script = INIT.format(bridge=self.bridge, address=self.address, mac=self.mac)
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL",
             "unshare", "--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child",
             "sh", "-euc", script, "init", self.path],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "ready\n":
            self._holder.wait(PATIENCE_SECONDS)
            shutil.rmtree(self.path, ignore_errors=True)
            pytest.fail(
                "namespaces of mounts, network and processes cannot be made (only root can, and in"
                f" a container only with CAP_SYS_ADMIN): {self._holder.stderr.read().strip()}"
            )
        (self._init,) = _children(self._holder.pid)

    def _entering(self) -> list[str]:
        return ["nsenter", f"--target={self._init}", "--mount", "--net", "--pid", "--"]

    def _popen(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._entering(), "libvirtd"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def _pid_directory(self) -> Path:
        return self.path / "run" / "qemu"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _namespace(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")
