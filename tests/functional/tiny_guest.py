# SPDX-License-Identifier: Apache-2.0
"""Guests that do what a test orders: Debian's kernel and busybox, booted in two seconds.

Orders are lines of shell on the second serial port. Blocks are written and read with O_DIRECT, and
only what is ordered is sent, so what a hypervisor has to count is known to the byte.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import libvirt
import pytest

from tests.functional.libvirtd import Libvirtd
from tests.functional.processes import PATIENCE_SECONDS, wait_until

#: In the order in which they need each other; tools/guest-system.sh fetches them.
MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "virtio_blk", "failover", "net_failover", "virtio_net", "button", "evdev",
)  # fmt: skip

#: The least with which the kernel unpacks itself is 72; RSS is about 130 MiB.
MEMORY_MIB = 80

#: What a frame of a ping has beside its data: the headers of Ethernet, IPv4 and ICMP.
PING_HEADER_BYTES = 14 + 20 + 8

# Until the first order comes somebody may not be listening yet, so "ready" is said again.
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {modules}; do insmod /modules/$module.ko; done
acpid -d &
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
until read -t 1 -r order; do echo ready; done
while true; do
    eval "$order"
    printf '\\n= %s\\n' $?
    read -r order
done
"""

# What acpid runs when the power button is pressed.
POWER_BUTTON = "#!/bin/busybox sh\npoweroff -f\n"

DOMAIN_XML = """
<domain type='qemu'>
  <name>cepheid-test-{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{path}/guest-kernel</kernel><initrd>{path}/guest-initramfs</initrd>
    <cmdline>console=ttyS0 quiet ipv6.disable=1</cmdline>
  </os>
  <features><acpi/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='{path}/{name}.console'/><target port='0'/></serial>
    <serial type='unix'>
      <source mode='bind' path='{path}/{name}.orders'/><target port='1'/>
    </serial>
    <memballoon model='none'/>
    {devices}
  </devices>
</domain>
"""

DISK_XML = """
<disk type='file' device='disk'>
  <driver name='qemu' type='{kind}'/>
  <source file='{path}'/><target dev='{target}' bus='virtio'/>{shareable}
</disk>
"""

# Without a ROM the firmware does not try to boot from the network.
INTERFACE_XML = """
<interface type='bridge'>
  <mac address='{mac}'/><source bridge='{bridge}'/><model type='virtio'/><rom enabled='no'/>
</interface>
"""


class TinyGuest:
    """A guest under a test's orders; it ends with its daemon's other guests.

    :param devices: elements of the domain's ``devices``; see :func:`disk`, :func:`interface`
    """

    def __init__(self, libvirtd: Libvirtd, name: str, devices: Iterable[str] = ()) -> None:
        _provide_system(libvirtd)
        self.libvirtd = libvirtd
        self.name = name
        self.uuid = str(uuid.uuid4())
        self._orders: IO[str] | None = None
        connection = libvirtd.connect()
        self.domain: libvirt.virDomain = connection.defineXML(
            DOMAIN_XML.format(
                name=name,
                uuid=self.uuid,
                memory_mib=MEMORY_MIB,
                path=libvirtd.path,
                devices="".join(devices),
            )
        )

    def start(self) -> TinyGuest:
        """Power it on and wait until it takes orders."""
        self.domain.create()
        self.wait_for_boot()
        return self

    def wait_for_boot(self) -> None:
        """Wait until a guest that was just powered on takes orders."""
        if self._orders is not None:
            self._orders.close()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(f"{self.libvirtd.path}/{self.name}.orders")
            self._orders = connection.makefile("rw")
        self._read_until("ready")
        self.run(":")

    def run(self, order: str) -> str:
        """Let the guest's shell carry out a line; return what it printed."""
        self.begin(order)
        return self.finish()

    def begin(self, order: str) -> None:
        """Let the guest's shell begin with a line; :meth:`finish` is to follow."""
        assert self._orders is not None, f"{self.name} was not started"
        self._orders.write(f"{order}\n")
        self._orders.flush()

    def finish(self) -> str:
        """Wait until the guest is done with its order; return what it printed."""
        *lines, last = self._read_until("= ")
        assert last == "= 0\n", f"{self.name}: {last}{''.join(lines)}"
        return "".join(lines).removesuffix("\n")

    def write(self, device: str, blocks: int, block_bytes: int = 4096, seek: int = 0) -> int:
        """Write blocks to a disk, past the guest's cache; return the number of bytes.

        Each block is one request to the disk.

        :param block_bytes: of a page or several; of less, busybox writes through the cache
        :param seek: the number of the first block
        """
        assert block_bytes % 4096 == 0
        self.run(
            f"dd if=/dev/zero of=/dev/{device} bs={block_bytes} count={blocks} seek={seek}"
            f" oflag=direct conv=notrunc"
        )
        return blocks * block_bytes

    def read(self, device: str, blocks: int, block_bytes: int = 4096, skip: int = 0) -> int:
        """Read blocks of a disk, past the guest's cache; return the number of bytes.

        Each block is one request to the disk.

        :param block_bytes: of a page or several; of less, busybox reads through the cache
        :param skip: the number of the first block
        """
        assert block_bytes % 4096 == 0
        self.run(
            f"dd if=/dev/{device} of=/dev/null bs={block_bytes} count={blocks} skip={skip}"
            f" iflag=direct"
        )
        return blocks * block_bytes

    def use_network(
        self, address: str, neighbours: dict[str, str], interface: str = "eth0"
    ) -> None:
        """Give the guest an address, with a prefix length.

        :param neighbours: the MACs of those it is to talk to by address, so that it asks nobody
        """
        orders = [f"ip address add {address} dev {interface}", f"ip link set {interface} up"]
        orders += [f"arp -s {other} {mac}" for other, mac in neighbours.items()]
        self.run(" && ".join(orders))

    def ping(self, address: str, count: int, data_bytes: int = 1000) -> int:
        """Send packets that are answered; return the bytes that went each way.

        Nothing is sent twice: without an answer this fails.
        """
        self.run(f"ping -A -q -c {count} -s {data_bytes} -W {PATIENCE_SECONDS} {address}")
        return count * (data_bytes + PING_HEADER_BYTES)

    def press_power_button(self) -> None:
        """Ask it by ACPI to power off, and wait until it did."""
        self.domain.shutdown()
        wait_until(lambda: not self.domain.isActive(), self.read_console)

    def power_off(self) -> None:
        """Power it off at once."""
        self.domain.destroy()

    def stats(self) -> dict[str, int | str]:
        """Return all that libvirt tells of it in one call."""
        connection = self.domain.connect()
        ((_domain, stats),) = connection.domainListGetStats([self.domain])
        return stats

    def read_console(self) -> str:
        """Return the end of what its kernel has printed."""
        return (self.libvirtd.path / f"{self.name}.console").read_text(errors="replace")[-2000:]

    def _read_until(self, start: str) -> list[str]:
        assert self._orders is not None, f"{self.name} was not started"
        lines = []
        try:
            for line in self._orders:
                lines.append(line)
                if line.startswith(start):
                    return lines
        except TimeoutError:
            pass
        pytest.fail(f"{self.name} did not answer; it printed {lines}, {self.read_console()}")


def disk(path: Path, target: str, kind: str = "raw", shareable: bool = False) -> str:
    """Return the element of a disk."""
    return DISK_XML.format(
        path=path, target=target, kind=kind, shareable="<shareable/>" if shareable else ""
    )


def interface(mac: str, bridge: str) -> str:
    """Return the element of an interface on a bridge; only a privileged libvirtd has these."""
    return INTERFACE_XML.format(mac=mac, bridge=bridge)


def make_volume(libvirtd: Libvirtd, name: str, kind: str = "raw", size: str = "16M") -> Path:
    """Make an empty disk that guests can use; return its path."""
    path = libvirtd.path / "disks" / f"{name}.{kind}"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", kind, path, size], check=True, stdin=subprocess.DEVNULL
    )
    libvirtd.give_away(path)
    return path


def _system() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "cepheid-tests" / "guest-system"
    if not (path / "complete").exists():
        pytest.fail(f"the guests' kernel is not in {path}; tools/guest-system.sh fetches it")
    return path


def _provide_system(libvirtd: Libvirtd) -> None:
    """Put kernel and initramfs where the daemon's guests may read them, once a daemon."""
    kernel = libvirtd.path / "guest-kernel"
    if kernel.exists():
        return
    system = _system()
    root = libvirtd.path / "guest-root"
    for directory in ("bin", "dev", "etc/acpi/PWRF", "modules", "proc", "sys"):
        (root / directory).mkdir(parents=True)
    shutil.copy2(system / "busybox", root / "bin")
    for module in MODULES:
        shutil.copy(system / f"{module}.ko", root / "modules")
    for path, text in (
        (root / "init", INIT.format(modules=" ".join(MODULES))),
        (root / "etc/acpi/PWRF/00000080", POWER_BUTTON),
    ):
        path.write_text(text)
        path.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    initramfs = libvirtd.path / "guest-initramfs"
    with initramfs.open("wb") as output:
        words: Sequence[str | Path] = [system / "busybox", "cpio", "--quiet", "-o", "-H", "newc"]
        subprocess.run(words, input=names.encode(), stdout=output, cwd=root, check=True)
    shutil.copy(system / "vmlinuz", kernel)
    for path in (initramfs, kernel):
        libvirtd.give_away(path)
