# SPDX-License-Identifier: Apache-2.0
"""Small real classes that keep the drivers' contracts, for decisions and faults.

The contract tests run on them and on the real drivers alike.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from defusedxml import ElementTree

from cepheid_plugins.bandwidth.driver import BandwidthMeter, InterfaceCounters, MeteredInstance
from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor import definition
from cepheid_plugins.hypervisor.definition import XmlHypervisor
from cepheid_plugins.hypervisor.driver import (
    BlockCounters,
    DiskCapacity,
    Domain,
    DomainDetails,
    DomainNotFound,
    HostResources,
    HypervisorError,
    HypervisorUnavailable,
    Interface,
    NamedFiles,
    NetworkCounters,
)
from cepheid_plugins.network.driver import LookUp, Network, Vif
from cepheid_plugins.notifications.driver import (
    Notification,
    NotificationsRefused,
    Notifier,
)
from cepheid_plugins.notifications.outbox import Message
from cepheid_plugins.scheduler.driver import Scheduler, SchedulerUnavailable


def definition_of(uuid: str, name: str) -> str:
    """Return the definition of a small domain without disks."""
    return (
        f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        "<devices/></domain>"
    )


#: What a fake's host has.
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


class FakeHypervisor(XmlHypervisor):
    """Domains in memory.

    :param domains: (uuid, name, power state) of each
    """

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

    def power_state(self, uuid: str) -> int | None:
        self._find(uuid)
        self._call("virDomainGetState")
        return self.states[uuid]

    def details(self) -> list[DomainDetails]:
        self._call("virConnectListAllDomains")
        found = []
        for uuid, state in self.states.items():
            text = self.definitions.get(uuid) or definition_of(uuid, self.names[uuid])
            root = ElementTree.fromstring(text)
            vcpus, memory_mib = int(root.findtext("vcpu")), int(root.findtext("memory"))
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
        return definition.interfaces(text, self.addresses)

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
        found = []
        for uuid, name in self.names.items():
            if uuid in self.states and uuid not in self.hidden:
                texts = [self.definition(uuid), *self.other_definitions.get(uuid, ())]
                found.append(NamedFiles(uuid, name, *definition.named_files(texts)))
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

    def _find(self, uuid: str) -> None:
        self._call("virDomainLookupByUUIDString")
        if uuid not in self.states:
            raise DomainNotFound(f"fake:/// has no domain {uuid}")

    def _act(self, name: str, uuid: str, allowed: Iterable[int] | None = None) -> None:
        self._find(uuid)
        self._call(name)
        if allowed is not None and self.states[uuid] not in allowed:
            raise HypervisorError(f"{uuid}: the domain is in no state for {name}")
        self.acts.append((name, uuid))


class FakeMeter(BandwidthMeter):
    """Tells what it is given to tell."""

    def __init__(self, agent: Any) -> None:
        super().__init__(agent)
        #: What it tells, right or wrong, and what it fails with after that.
        self.told: list[object] = []
        self.error: Exception | None = None
        #: Called before it tells.
        self.meanwhile: Callable[[], object] = lambda: None
        #: What it was asked for, each time.
        self.asked: list[list[MeteredInstance]] = []

    def read(self, instances: Sequence[MeteredInstance]) -> Iterable[InterfaceCounters]:
        self.asked.append(list(instances))
        self.meanwhile()
        yield from self.told
        if self.error is not None:
            raise self.error


class FakeNetwork(Network):
    """Networks in memory."""

    is_of_cloud = True

    def __init__(self) -> None:
        self.calls = 0
        #: By instance: its interfaces; one without any has none.
        self.vifs: dict[str, list[Vif]] = {}
        #: By instance: its ports that are bound elsewhere, and why.
        self.misbound: dict[str, dict[str, str]] = {}
        #: By instance: what its look-up fails with.
        self.failures: dict[str, Exception] = {}
        #: Who was looked up, and whose ports were bound, in order.
        self.looked_up: list[str] = []
        self.bound: list[str] = []

    def look_up(self, uuid: str, cached: Sequence[Vif], order: Sequence[str]) -> LookUp:
        self.calls += 1
        self.looked_up.append(uuid)
        if uuid in self.failures:
            raise self.failures[uuid]
        return LookUp(self.vifs.get(uuid, []), self.misbound.get(uuid, {}))

    def rebind(self, uuid: str) -> None:
        self.calls += 1
        self.bound.append(uuid)
        self.misbound.pop(uuid, None)


class FakeNotifier(Notifier):
    """Keeps what it takes, and in a file where one is given, so that it survives its process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        #: By message id, in the order in which they were taken.
        self.taken: dict[str, Notification] = {}
        #: How often any was passed over.
        self.repeated = 0
        #: How many more it can take; None for any number.
        self.room: int | None = None
        if path is not None and path.exists():
            # Each line is a batch; one without its end was not taken.
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    self._keep([Notification(**one) for one in json.loads(line)])

    def send(self, notifications: Sequence[Notification]) -> None:
        wanted: dict[str, Any] = {one.message_id or str(uuid4()): one for one in notifications}
        try:
            json.dumps([one.payload for one in notifications])
        except (TypeError, ValueError) as err:
            raise NotificationsRefused(f"A payload is not for JSON: {err}") from err
        new = {name: one for name, one in wanted.items() if name not in self.taken}
        if self.room is not None and len(new) > self.room:
            raise NotificationsRefused("The fake's outbox is full.")
        self.repeated += len(notifications) - len(new)
        batch = [dataclasses.replace(one, message_id=name) for name, one in new.items()]
        if self._path is not None and batch:
            line = json.dumps([dataclasses.asdict(one) for one in batch])
            with self._path.open("a") as file:
                file.write(f"{line}\n")
        self._keep(batch)
        if self.room is not None:
            self.room -= len(batch)

    def _keep(self, batch: Iterable[Notification]) -> None:
        self.taken.update({one.message_id: one for one in batch})


class FakeScheduler(Scheduler):
    """Keeps what it is told: (host, uuids, request)."""

    enabled = True

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], str]] = []
        #: What sending raises.
        self.error: SchedulerUnavailable | None = None

    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        if self.error is not None:
            raise self.error
        self.messages.append((host, list(uuids), request_id))


class FakePublisher:
    """Keeps the ids of the messages it is given; fails and hangs when it is told to."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.attempts = 0
        #: How often it was closed.
        self.closed = 0
        #: What publishing raises.
        self.error: Exception | None = None
        #: While this is not set, publishing hangs.
        self.answers = threading.Event()
        self.answers.set()

    def publish(self, message: Message) -> None:
        self.attempts += 1
        self.answers.wait()
        if self.error is not None:
            raise self.error
        self.published.append(message.message_id)

    def close(self) -> None:
        self.closed += 1
