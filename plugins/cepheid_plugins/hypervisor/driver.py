# SPDX-License-Identifier: Apache-2.0
"""The contract of a driver of kind ``hypervisor``: what tasks ask of a hypervisor."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cepheid import errors


class HypervisorError(errors.CepheidError):
    """The hypervisor refused a call; the text is its own."""


class HypervisorUnavailable(HypervisorError):
    """The hypervisor did not answer. Nothing is known of its domains."""


class DomainNotFound(HypervisorError):
    """The hypervisor answered that it has no such domain: the only proof that a domain is gone."""


class BadDefinition(HypervisorError):
    """A text is not the definition of the domain that it is taken for, or cannot be changed."""


class Domain(NamedTuple):
    """A domain in the list of all."""

    uuid: str
    name: str
    #: As in :mod:`cepheid_plugins.compute.power_state`; None for a state that has no number there.
    power_state: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a domain, as its definition says."""

    target: str
    #: The file or device behind it; None for a network disk or an empty drive.
    source: str | None


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A disk of a domain that is a file or block device."""

    target: str
    path: str
    #: ``raw``, ``qcow2``, ...: what the definition says, whatever the file holds.
    format: str
    #: Whether it is a CD-ROM or floppy drive.
    removable: bool = False


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """The files that a domain's definitions name, all of them.

    :param files: by absolute path, the formats that definitions say it has; empty for a file that
        is no disk, or of which no format is said
    :param unresolved: in words, the disks that are volumes of storage pools and that the hypervisor
        does not find
    """

    uuid: str
    name: str
    files: Mapping[str, frozenset[str]]
    unresolved: tuple[str, ...] = ()


class BlockCounters(NamedTuple):
    """What a running guest has read from and written to a disk since it was started."""

    reads: int
    read_bytes: int
    writes: int
    write_bytes: int


class NetworkCounters(NamedTuple):
    """What a running guest has received and sent through an interface since it was plugged in."""

    #: In lower case.
    mac: str
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of a domain."""

    mac: str
    #: ``network``, ``bridge``, ``user``, ... as in the definition.
    type: str
    #: The libvirt network that it is plugged into; empty where it is none.
    network: str
    #: The bridge that it is plugged into; empty where it is none.
    bridge: str
    #: The device on the host; empty while the domain is off.
    devname: str
    #: Whether its domain runs; false while that is paused.
    is_running: bool
    #: As in ``192.0.2.7/24``; empty where nothing tells them.
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DomainDetails:
    """What a domain is made of."""

    uuid: str
    name: str
    power_state: int | None
    vcpus: int
    memory_mib: int
    disks: tuple[Disk, ...]
    #: The sum of the virtual sizes of its disks; 0 where the hypervisor cannot tell.
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class HostResources:
    """What a host has, whatever its domains use of it."""

    hypervisor_hostname: str
    #: libvirt's name of the driver, such as ``QEMU``.
    hypervisor_type: str
    #: As libvirt numbers versions: 7002000 is 7.2.0.
    hypervisor_version: int
    #: The numbers of the CPUs that are online.
    cpus: frozenset[int]
    memory_mib: int
    #: ``arch``, ``model``, ``vendor``, ``topology`` and ``features``, as Nova records them.
    cpu_info: Mapping[str, Any]
    #: The kinds of domains that it can run: (architecture, domain type, operating system type).
    supported_instances: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class DiskCapacity:
    """The size of a domain's disk as the guest sees it, whatever the file takes."""

    uuid: str
    #: The file or block device behind it.
    path: str
    capacity_bytes: int


class Hypervisor(abc.ABC):
    """A hypervisor and its domains, which are found by UUID.

    Every method may raise :class:`HypervisorUnavailable`, and those for one domain
    :class:`DomainNotFound`. Usable by several threads.
    """

    #: How many calls reached the hypervisor, by the name of libvirt's function.
    calls: Counter[str]

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The hypervisor's own host name."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """A text that no other hypervisor has, and that stays when this one's name changes."""

    @abc.abstractmethod
    def domains(self) -> dict[str, Domain]:
        """Return all domains, running or not, by UUID, in one call; never only some of them."""

    def domain_names(self) -> dict[str, str]:
        """Return the names of :meth:`domains` by UUID, which may cost less than their states."""
        return {uuid: domain.name for uuid, domain in self.domains().items()}

    @abc.abstractmethod
    def power_state(self, uuid: str) -> int | None:
        """Return the power state of one domain."""

    @abc.abstractmethod
    def details(self) -> list[DomainDetails]:
        """Describe all domains; a domain that vanishes meanwhile is left out."""

    @abc.abstractmethod
    def block_counters(
        self, wanted: Mapping[str, Collection[str]]
    ) -> dict[str, dict[str, BlockCounters]]:
        """Return the counters of disks of running domains: by uuid, by the disk's target.

        It takes one call where libvirt has a bulk call for it. What is not running, not there or
        not a disk is left out.

        :param wanted: by uuid, the targets of disks (``vda``)
        """

    @abc.abstractmethod
    def network_counters(self, wanted: Collection[str]) -> dict[str, list[NetworkCounters]]:
        """Return, by uuid, the counters of all interfaces of running and paused domains.

        It takes one call where libvirt has a bulk call for it and no interface has been plugged in
        since the last time. Left out is what is off or not there, and an interface that has no
        device on the host: of a user-mode network, or passed through.

        :param wanted: the uuids of the domains
        """

    @abc.abstractmethod
    def interfaces(self, uuid: str) -> list[Interface]:
        """Return the network interfaces of a domain.

        Those of a running one have the addresses that its guest agent, libvirt's DHCP leases or the
        host's ARP table tell, without link-local ones.
        """

    @abc.abstractmethod
    def shutdown(self, uuid: str) -> None:
        """Ask the guest to shut down (ACPI), and return at once; the guest may ignore it."""

    @abc.abstractmethod
    def power_off(self, uuid: str) -> None:
        """Stop the guest at once; one that is off or gone already is fine."""

    @abc.abstractmethod
    def start(self, uuid: str, fresh: bool = False) -> None:
        """Start the guest; if its memory is saved it goes on from there, as it was defined then.

        :param fresh: discard its saved memory, and boot
        """

    @abc.abstractmethod
    def has_saved_memory(self, uuid: str) -> bool:
        """Tell whether the memory of a guest that is off is saved (managed save)."""

    def require_no_saved_memory(self, uuid: str) -> None:
        """Refuse to go on with a guest whose next start would not follow its present definition.

        :raises HypervisorError: its memory is saved
        """
        if self.has_saved_memory(uuid):
            raise HypervisorError(
                f"{uuid}: its memory is saved, and it would go on from there as it was. Start it "
                "first, or give the memory up with 'virsh managedsave-remove'."
            )

    @abc.abstractmethod
    def pause(self, uuid: str) -> None:
        """Halt the guest's virtual CPUs."""

    @abc.abstractmethod
    def resume(self, uuid: str) -> None:
        """Let a paused guest go on."""

    @abc.abstractmethod
    def definition(self, uuid: str) -> str:
        """Return the XML that a domain is started from next: the persistent one, with secrets."""

    @abc.abstractmethod
    def define(self, xml: str) -> None:
        """Define a domain, or replace its definition; a running guest goes on as it is."""

    @abc.abstractmethod
    def undefine(self, uuid: str, keep_nvram: bool = False) -> None:
        """Forget a domain that is off, with its managed save, NVRAM, snapshots' and checkpoints'
        metadata; one that is gone already is fine.

        :param keep_nvram: leave the file of its firmware's variables where it is
        :raises HypervisorError: it is not off
        """

    @abc.abstractmethod
    def disk_files(self, uuid: str) -> list[DiskFile]:
        """Return the disks of the definition that are files, in its order."""

    @abc.abstractmethod
    def drives(self, xml: str) -> list[DiskFile]:
        """Return the disks of a definition that are files, CD-ROMs and floppies too, in its order.

        :raises BadDefinition: it is no definition
        """

    @abc.abstractmethod
    def remote_disks(self, xml: str) -> list[str]:
        """Return the disks of a definition that are neither files nor devices of this host, as the
        operator knows them: ``rbd:POOL/IMAGE``, a volume of a storage pool, ...

        :raises BadDefinition: it is no definition
        """

    @abc.abstractmethod
    def has_tpm_state(self, xml: str) -> bool:
        """Tell whether a definition has an emulated TPM: to undefine it would lose the TPM's state.

        :raises BadDefinition: it is no definition
        """

    @abc.abstractmethod
    def named_files(self) -> list[NamedFiles]:
        """Return, for each domain, the files that any of its definitions names.

        These are what runs, what is started next, saved memory and snapshots. It takes some calls
        for each domain, and for each volume of a storage pool.

        :raises BadDefinition: one cannot be read, so not all are known
        """

    @abc.abstractmethod
    def is_rescue(self, uuid: str) -> bool:
        """Tell whether the definition boots from the files of a rescue."""

    @abc.abstractmethod
    def is_novas(self, uuid: str) -> bool:
        """Tell whether the definition carries Nova's metadata."""

    @abc.abstractmethod
    def define_rescue(self, uuid: str, path: str) -> None:
        """Let a domain boot from a qcow2 file next; its own disks stay attached."""

    @abc.abstractmethod
    def define_resized(self, uuid: str, vcpus: int, memory_mib: int) -> None:
        """Give a domain another number of virtual CPUs and another memory at its next start.

        :raises BadDefinition: its CPUs are laid out in a topology
        """

    @abc.abstractmethod
    def define_as(self, uuid: str, xml: str) -> None:
        """Define the domain `uuid` by the XML of an earlier definition that was kept.

        :raises BadDefinition: it is another domain's, or no definition
        """

    @abc.abstractmethod
    def host_resources(self) -> HostResources:
        """Describe the host, in a fixed number of calls.

        :raises BadDefinition: the hypervisor's description of it cannot be read
        """

    @abc.abstractmethod
    def disk_capacities(self) -> list[DiskCapacity]:
        """Return the disks of all domains, running or not, in one call.

        Left out are those on the network and those whose size the hypervisor cannot tell, as of a
        domain that is busy: it is not waited for.
        """

    @abc.abstractmethod
    def check(self) -> None:
        """Connect, so that a mistake in the configuration shows when the agent starts."""

    @abc.abstractmethod
    def close(self) -> None:
        """Disconnect."""
