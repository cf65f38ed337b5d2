# SPDX-License-Identifier: Apache-2.0
"""A hypervisor in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from cepheid import libraries
from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor.driver import (
    BlockCounters,
    DiskCapacity,
    DiskFile,
    Domain,
    DomainDetails,
    DomainNotFound,
    HostResources,
    Hypervisor,
    HypervisorError,
    HypervisorUnavailable,
    Interface,
    NamedFiles,
    NetworkCounters,
)
from cepheid_plugins.testing import names

#: The power states of domains that are made by their numbers.
STATES = (
    *[power_state.RUNNING] * 5,
    power_state.SHUTDOWN,
    power_state.PAUSED,
    power_state.CRASHED,
)


def definition_of(uuid: str, name: str) -> str:
    """Return the definition of a small domain without disks."""
    return (
        f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        "<devices/></domain>"
    )


#: What its host has.
RESOURCES = HostResources(
    hypervisor_hostname="node1",
    hypervisor_type="FAKE",
    hypervisor_version=7002000,
    cpus=frozenset(range(4)),
    memory_mib=512,
    cpu_info={
        "arch": "x86_64",
        "model": "Nehalem",
        "vendor": "Intel",
        "topology": {"cells": 1, "sockets": 1, "cores": 4, "threads": 1},
        "features": ["aes", "vmx"],
    },
    supported_instances=(("x86_64", "qemu", "hvm"),),
)


class MemoryHypervisor(Hypervisor):
    """Domains in memory.

    What is read from or written to definitions needs lxml: ``pip install 'cepheid[libvirt]'``.

    :param domains: (uuid, name, power state) of each
    """

    #: What a call that is not answered raises.
    unavailable = HypervisorUnavailable

    def __init__(self, domains: Iterable[tuple[str, str, int | None]] = ()) -> None:
        self.states = {uuid: state for uuid, _, state in domains}
        self.names = {uuid: name for uuid, name, _ in domains}
        self.calls: Counter[str] = Counter()
        self.system_uuid = "5e6bb1ee-6d5f-4b1c-8a1c-000000000001"
        #: False: it does not answer.
        self.available = True
        #: Domains left out of the list, though they are there.
        self.hidden: set[str] = set()
        #: Guests that do not listen to a request to shut down.
        self.deaf: set[str] = set()
        #: Guests that cannot be powered off.
        self.stubborn: set[str] = set()
        #: Guests whose memory is saved.
        self.saved: set[str] = set()
        #: Definitions by uuid; without one a domain has :func:`definition_of`.
        self.definitions: dict[str, str] = {}
        #: What a domain runs with, was saved with, or can be reverted to, where that differs.
        self.other_definitions: dict[str, list[str]] = {}
        #: Where volumes of storage pools are, by pool and name.
        self.volumes: dict[tuple[str, str], str] = {}
        self.resources = RESOURCES
        #: Its domains' disks.
        self.capacities: list[DiskCapacity] = []
        #: Counters of disks, by uuid and target.
        self.counters: dict[str, dict[str, BlockCounters]] = {}
        #: Counters of interfaces, by uuid.
        self.traffic: dict[str, list[NetworkCounters]] = {}
        #: Addresses with their prefixes, by MAC.
        self.addresses: dict[str, tuple[str, ...]] = {}
        #: Every call that changes something: (call, uuid).
        self.acts: list[tuple[str, str]] = []

    def populate(self, numbers: Iterable[int]) -> None:
        """Make domains of these numbers: five running, then one off, paused and crashed, ..."""
        for number in numbers:
            uuid = names.uuid_of(number)
            self.names[uuid] = names.name_of(number)
            self.states[uuid] = STATES[number % len(STATES)]

    @property
    def changes(self) -> int:
        """How often anything was changed."""
        return len(self.acts)

    @property
    def name(self) -> str:
        self._call("virConnectGetHostname")
        return "node1"

    @property
    def identity(self) -> str:
        self._call("virConnectGetCapabilities")
        return self.system_uuid

    def domains(self) -> dict[str, Domain]:
        self._call("virConnectGetAllDomainStats")
        return {
            uuid: Domain(uuid, self.names[uuid], state)
            for uuid, state in self.states.items()
            if uuid not in self.hidden
        }

    def domain_names(self) -> dict[str, str]:
        self._call("virConnectListAllDomains")
        return {uuid: self.names[uuid] for uuid in self.states if uuid not in self.hidden}

    def power_state(self, uuid: str) -> int | None:
        self._find(uuid)
        self._call("virDomainGetState")
        return self.states[uuid]

    def details(self) -> list[DomainDetails]:
        self._call("virConnectListAllDomains")
        found: list[DomainDetails] = []
        for uuid, state in self.states.items():
            text = self.definitions.get(uuid) or definition_of(uuid, self.names[uuid])
            root = ElementTree.fromstring(text)
            vcpus, memory_mib = int(root.findtext("vcpu") or 1), int(root.findtext("memory") or 0)
            found.append(DomainDetails(uuid, self.names[uuid], state, vcpus, memory_mib, (), 0))
        return found

    def block_counters(
        self, wanted: Mapping[str, Collection[str]]
    ) -> dict[str, dict[str, BlockCounters]]:
        self._call("virConnectGetAllDomainStats")
        return {
            uuid: {name: counters for name, counters in disks.items() if name in wanted[uuid]}
            for uuid, disks in self.counters.items()
            if uuid in wanted and self.states.get(uuid) == power_state.RUNNING
        }

    def network_counters(self, wanted: Collection[str]) -> dict[str, list[NetworkCounters]]:
        self._call("virConnectGetAllDomainStats")
        running = (power_state.RUNNING, power_state.PAUSED)
        return {
            uuid: list(counters)
            for uuid, counters in self.traffic.items()
            if uuid in set(wanted) and self.states.get(uuid) in running
        }

    def interfaces(self, uuid: str) -> list[Interface]:
        text = self.definition(uuid)
        self._call("virDomainInterfaceAddresses")
        interfaces: list[Interface] = _definitions().interfaces(text)
        if self.states[uuid] != power_state.RUNNING:
            return interfaces
        return [
            replace(found, is_running=True, addresses=self.addresses.get(found.mac, ()))
            for found in interfaces
        ]

    def shutdown(self, uuid: str) -> None:
        self._act("virDomainShutdown", uuid, (power_state.RUNNING, power_state.PAUSED))
        if uuid not in self.deaf:
            self.states[uuid] = power_state.SHUTDOWN

    def power_off(self, uuid: str) -> None:
        if uuid not in self.states:
            self._call("virDomainLookupByUUIDString")
            return
        self._act("virDomainDestroy", uuid)
        if uuid in self.stubborn:
            raise HypervisorError(f"{uuid}: the process does not end")
        self.states[uuid] = power_state.SHUTDOWN

    def start(self, uuid: str, fresh: bool = False) -> None:
        self._act("virDomainCreate", uuid, power_state.OFF)
        self.saved.discard(uuid)
        self.states[uuid] = power_state.RUNNING

    def has_saved_memory(self, uuid: str) -> bool:
        self._find(uuid)
        self._call("virDomainHasManagedSaveImage")
        return uuid in self.saved

    def pause(self, uuid: str) -> None:
        self._act("virDomainSuspend", uuid, (power_state.RUNNING,))
        self.states[uuid] = power_state.PAUSED

    def resume(self, uuid: str) -> None:
        self._act("virDomainResume", uuid, (power_state.PAUSED,))
        self.states[uuid] = power_state.RUNNING

    def definition(self, uuid: str) -> str:
        self._find(uuid)
        self._call("virDomainGetXMLDesc")
        return self.definitions.setdefault(uuid, definition_of(uuid, self.names[uuid]))

    def named_files(self) -> list[NamedFiles]:
        self._call("virConnectListAllDomains")
        found: list[NamedFiles] = []
        for uuid, name in self.names.items():
            if uuid in self.states and uuid not in self.hidden:
                texts = [self.definition(uuid), *self.other_definitions.get(uuid, ())]
                named = _definitions().named_files(texts, self._volume_path)
                found.append(NamedFiles(uuid, name, *named))
        return found

    def define(self, xml: str) -> None:
        self._call("virDomainDefineXML")
        root = ElementTree.fromstring(xml)
        uuid = root.findtext("uuid") or ""
        self.names[uuid] = root.findtext("name") or ""
        self.states.setdefault(uuid, power_state.SHUTDOWN)
        self.definitions[uuid] = xml
        self.acts.append(("virDomainDefineXML", uuid))

    def undefine(self, uuid: str, keep_nvram: bool = False) -> None:
        if uuid not in self.states:
            self._call("virDomainLookupByUUIDString")
            return
        self._act("virDomainUndefineFlags", uuid, (power_state.NOSTATE, power_state.SHUTDOWN))
        del self.states[uuid]
        self.saved.discard(uuid)
        self.definitions.pop(uuid, None)

    def disk_files(self, uuid: str) -> list[DiskFile]:
        found: list[DiskFile] = _definitions().disk_files(self.definition(uuid))
        return found

    def drives(self, xml: str) -> list[DiskFile]:
        found: list[DiskFile] = _definitions().drives(xml)
        return found

    def remote_disks(self, xml: str) -> list[str]:
        found: list[str] = _definitions().remote_disks(xml)
        return found

    def has_tpm_state(self, xml: str) -> bool:
        return bool(_definitions().has_tpm_state(xml))

    def is_rescue(self, uuid: str) -> bool:
        return bool(_definitions().is_rescue(self.definition(uuid)))

    def is_novas(self, uuid: str) -> bool:
        return bool(_definitions().is_novas(self.definition(uuid)))

    def define_rescue(self, uuid: str, path: str) -> None:
        self.define(_definitions().with_rescue_disk(self.definition(uuid), path))

    def define_resized(self, uuid: str, vcpus: int, memory_mib: int) -> None:
        self.define(_definitions().resized(self.definition(uuid), vcpus, memory_mib))

    def define_as(self, uuid: str, xml: str) -> None:
        _definitions().check(xml, uuid)
        self.define(xml)

    def host_resources(self) -> HostResources:
        self._call("virConnectGetCapabilities")
        return self.resources

    def disk_capacities(self) -> list[DiskCapacity]:
        self._call("virConnectGetAllDomainStats")
        return self.capacities

    def check(self) -> None:
        self._call("virConnectOpen")

    def close(self) -> None:
        pass

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if not self.available:
            raise HypervisorUnavailable("fake:/// does not answer")

    def _volume_path(self, pool: str, volume: str) -> str | None:
        return self.volumes.get((pool, volume))

    def _find(self, uuid: str) -> None:
        self._call("virDomainLookupByUUIDString")
        if uuid not in self.states:
            raise DomainNotFound(f"fake:/// has no domain {uuid}")

    def _act(self, name: str, uuid: str, allowed: Collection[int] | None = None) -> None:
        self._find(uuid)
        self._call(name)
        state = self.states[uuid]
        if allowed is not None and (state is None or state not in allowed):
            raise HypervisorError(f"{uuid}: the domain is in no state for {name}")
        self.acts.append((name, uuid))


def _definitions() -> Any:
    return libraries.load_part(
        "cepheid_plugins.hypervisor.definition",
        "Definitions cannot be read or written",
        "do without them",
    )
