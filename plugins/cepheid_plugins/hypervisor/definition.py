# SPDX-License-Identifier: Apache-2.0
"""Definitions of domains: what is read from them, and how they are changed.

Source: libvirt's domain XML format.
"""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Callable, Iterable
from typing import Any

from lxml import etree

from cepheid_plugins.hypervisor.driver import BadDefinition, Disk, DiskFile, Hypervisor, Interface

#: What the files of a rescue are called. Source: Nova's libvirt driver.
RESCUE_SUFFIX = ".rescue"

#: What a device of a disk is called; libvirt's default is the first.
DISKS, REMOVABLE = ("disk", "lun"), ("cdrom", "floppy")

#: The elements whose ``source`` is a disk, or what one stands on, is copied to or mirrored to.
DISK_SOURCES = ("disk", "backingStore", "mirror", "dataStore")

#: A path in an argument for QEMU itself, as in ``file=/disk,if=virtio``.
_IN_ARGUMENT = re.compile(r"[=,:](/[^,]+)")

#: The beginning of what Nova's metadata elements are called. Source: Nova's libvirt driver.
NOVA_NAMESPACE = "{http://openstack.org/xmlns/libvirt/nova/"


def check(text: str, uuid: str) -> None:
    """See that a definition is that of the domain `uuid`.

    :raises BadDefinition: it is another's, or no definition
    """
    found = (_parse(text).findtext("uuid") or "").strip()
    if found != uuid:
        raise BadDefinition(f"This is the definition of domain {found or '(none)'}, not of {uuid}.")


def disks(text: str) -> tuple[Disk, ...]:
    """Return the disks, in the order of the definition.

    :raises BadDefinition: it cannot be read
    """
    found = []
    for disk in _disks(_parse(text)):
        source = disk.find("source")
        where = None if source is None else source.get("file") or source.get("dev")
        found.append(Disk(disk.find("target").get("dev", ""), where))
    return tuple(found)


def disk_files(text: str) -> list[DiskFile]:
    """Return the disks that are files or block devices, in the order of the definition.

    :raises BadDefinition: it cannot be read
    """
    return [drive for drive in drives(text) if not drive.removable]


def drives(text: str) -> list[DiskFile]:
    """Return the disks that are files or block devices, CD-ROMs and floppies too, in the order of
    the definition.

    :raises BadDefinition: it cannot be read
    """
    found = []
    for disk in _parse(text).iterfind("./devices/disk"):
        kind, target = disk.get("device", "disk"), disk.find("target")
        if kind not in (*DISKS, *REMOVABLE) or target is None:
            continue
        source, driver = disk.find("source"), disk.find("driver")
        path = None if source is None else source.get("file") or source.get("dev")
        if path:
            image_format = "raw" if driver is None else driver.get("type", "raw")
            found.append(DiskFile(target.get("dev"), path, image_format, kind in REMOVABLE))
    return found


def remote_disks(text: str) -> list[str]:
    """Return the disks that are neither files nor devices of this host, in words.

    :raises BadDefinition: it cannot be read
    """
    found = []
    for disk in _disks(_parse(text)):
        source = disk.find("source")
        if source is None or source.get("file") or source.get("dev"):
            continue
        if source.get("pool"):
            found.append(f"{source.get('volume', '')} in the storage pool {source.get('pool')}")
        elif source.get("protocol"):
            found.append(f"{source.get('protocol')}:{source.get('name', '')}")
        else:
            found.append(f"{disk.find('target').get('dev', '')} ({disk.get('type', '')})")
    return found


def has_tpm_state(text: str) -> bool:
    """Tell whether a domain has a TPM that is emulated.

    :raises BadDefinition: it cannot be read
    """
    return _parse(text).find("./devices/tpm/backend[@type='emulator']") is not None


def named_files(
    texts: Iterable[str], volume_path: Callable[[str, str], str | None]
) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
    """Return the files that definitions of a domain name, as :class:`~.driver.NamedFiles` does.

    :param texts: definitions, or those of snapshots, in which one of the domain may be
    :param volume_path: tells of a storage pool and a volume in it where that is; None for unknown
    :raises BadDefinition: one cannot be read
    """
    files: dict[str, set[str]] = {}
    unresolved: set[str] = set()
    for text in texts:
        for element in _root(text).iter(etree.Element):
            for value in (*element.attrib.values(), (element.text or "").strip()):
                # Whatever it is for: too many files are no harm.
                for path in (value, *_IN_ARGUMENT.findall(value)):
                    if path.startswith("/"):
                        files.setdefault(path, set())
            if element.tag in DISK_SOURCES:
                _add_disk(element, files, unresolved, volume_path)
    return {path: frozenset(formats) for path, formats in files.items()}, tuple(sorted(unresolved))


def _add_disk(
    element: Any,
    files: dict[str, set[str]],
    unresolved: set[str],
    volume_path: Callable[[str, str], str | None],
) -> None:
    source = element.find("source")
    if source is None:
        return
    path = source.get("file") or source.get("dev")
    pool, volume = source.get("pool"), source.get("volume", "")
    if pool:
        path = volume_path(pool, volume)
        if path is None:
            unresolved.add(f"{volume} in the storage pool {pool}")
    # A volume on the network has a path that is none here.
    if path and path.startswith("/"):
        kind, driver = element.find("format"), element.find("driver")
        said = driver if kind is None else kind
        # libvirt does not look into a disk of which nothing is said.
        files.setdefault(path, set()).add("raw" if said is None else said.get("type", "raw"))


def interfaces(text: str) -> list[Interface]:
    """Return the network interfaces of a domain that is off, in the order of the definition.

    :raises BadDefinition: it cannot be read
    """
    found = []
    for element in _parse(text).iterfind("./devices/interface"):
        mac, source, target = (element.find(name) for name in ("mac", "source", "target"))
        if mac is None or not mac.get("address"):
            continue
        plugged = {} if source is None else source.attrib
        found.append(
            Interface(
                mac=mac.get("address").lower(),
                type=element.get("type", ""),
                network=plugged.get("network", ""),
                bridge=plugged.get("bridge", ""),
                devname="" if target is None else target.get("dev", ""),
                is_running=False,
                addresses=(),
            )
        )
    return found


def is_rescue(text: str) -> bool:
    """Tell whether a domain boots from the files of a rescue.

    :raises BadDefinition: it cannot be read
    """
    root = _parse(text)
    sources = [
        source.get(attribute)
        for source in root.iterfind("./devices/disk/source")
        for attribute in ("file", "dev", "name")
    ]
    kernel = [root.findtext(f"./os/{name}") for name in ("kernel", "initrd")]
    return any(name and name.strip().endswith(RESCUE_SUFFIX) for name in sources + kernel)


def is_novas(text: str) -> bool:
    """Tell whether a definition carries Nova's metadata.

    :raises BadDefinition: it cannot be read
    """
    elements = _parse(text).iterfind("./metadata/*")
    return any(str(element.tag).startswith(NOVA_NAMESPACE) for element in elements)


def with_rescue_disk(text: str, path: str) -> str:
    """Return the definition that boots from a qcow2 file; the guest's own disks stay attached.

    :raises BadDefinition: it cannot be read
    """
    root = _parse(text)
    disks = _disks(root)
    first = disks[0].find("target") if disks else None
    bus = "virtio" if first is None else first.get("bus", "virtio")
    prefix = "vd" if first is None else first.get("dev", "vda")[:2]
    taken = {target.get("dev") for target in root.iterfind("./devices/disk/target")}
    target = next(
        name for name in (prefix + chr(letter) for letter in range(97, 123)) if name not in taken
    )
    # Boot order is either of the whole machine or of each device.
    for boot in [*root.iterfind("./os/boot"), *root.iterfind("./devices/*/boot")]:
        boot.getparent().remove(boot)
    for direct in ("kernel", "initrd", "cmdline"):
        for element in root.findall(f"./os/{direct}"):
            element.getparent().remove(element)
    disk = etree.Element("disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type="qcow2")
    etree.SubElement(disk, "source", file=path)
    etree.SubElement(disk, "target", dev=target, bus=bus)
    etree.SubElement(disk, "boot", order="1")
    root.find("devices").append(disk)
    return _text(root)


def resized(text: str, vcpus: int, memory_mib: int) -> str:
    """Return the definition with another number of virtual CPUs and another memory.

    :raises BadDefinition: it cannot be read, or its CPUs are laid out in a topology
    """
    root = _parse(text)
    vcpu = root.find("vcpu")
    if vcpu is None:
        vcpu = etree.SubElement(root, "vcpu")
    if int(vcpu.text or 1) != vcpus and (
        root.find("./cpu/topology") is not None or root.find("./cpu/numa") is not None
    ):
        raise BadDefinition(
            "The domain's CPUs are laid out (cpu/topology or cpu/numa); change it with virsh edit."
        )
    vcpu.text = str(vcpus)
    vcpu.attrib.pop("current", None)
    for name in ("memory", "currentMemory"):
        element = root.find(name)
        if element is None:
            element = etree.SubElement(root, name)
        element.text = str(memory_mib)
        element.set("unit", "MiB")
    return _text(root)


class XmlHypervisor(Hypervisor):
    """What the contract says of definitions, for drivers that have them as libvirt's XML."""

    def disk_files(self, uuid: str) -> list[DiskFile]:
        return disk_files(self.definition(uuid))

    def drives(self, xml: str) -> list[DiskFile]:
        return drives(xml)

    def remote_disks(self, xml: str) -> list[str]:
        return remote_disks(xml)

    def has_tpm_state(self, xml: str) -> bool:
        return has_tpm_state(xml)

    def is_rescue(self, uuid: str) -> bool:
        return is_rescue(self.definition(uuid))

    def is_novas(self, uuid: str) -> bool:
        return is_novas(self.definition(uuid))

    def define_rescue(self, uuid: str, path: str) -> None:
        self.define(with_rescue_disk(self.definition(uuid), path))

    def define_resized(self, uuid: str, vcpus: int, memory_mib: int) -> None:
        self.define(resized(self.definition(uuid), vcpus, memory_mib))

    def define_as(self, uuid: str, xml: str) -> None:
        check(xml, uuid)
        self.define(xml)


def _disks(root: Any) -> list[Any]:
    return [
        disk
        for disk in root.iterfind("./devices/disk")
        if disk.get("device", "disk") in DISKS and disk.find("target") is not None
    ]


def _root(text: str) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        return etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as err:
        raise BadDefinition(f"A definition cannot be read: {err}.") from err


def _parse(text: str) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)
    try:
        root = etree.fromstring(text.encode(), parser)
        uuids.UUID(root.findtext("uuid"))
    except (etree.XMLSyntaxError, ValueError, TypeError, AttributeError) as err:
        raise BadDefinition(f"This is not the definition of a domain: {err}.") from err
    if root.tag != "domain":
        raise BadDefinition(f"This is not the definition of a domain, but a {root.tag}.")
    return root


def _text(root: Any) -> str:
    text: str = etree.tostring(root, pretty_print=True, encoding="unicode")
    return text
