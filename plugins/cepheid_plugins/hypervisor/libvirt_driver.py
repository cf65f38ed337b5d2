# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver: each method is a libvirt call with a deadline, errors told by code.

A call is made on a native thread and is one libvirt call only, so that one which is given up can
do nothing more, should it ever return. Source: libvirt's API reference, libvirt-domain and
virterror.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import libvirt

from cepheid import concurrency, errors
from cepheid.call_record import CallRecord
from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor import capabilities, definition, driver, opts
from cepheid_plugins.hypervisor.definition import XmlHypervisor
from cepheid_plugins.hypervisor.interface_macs import Devices, InterfaceMacs

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: virDomainState to power_state. Source: libvirt-domain.h; Nova's table.
POWER_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: power_state.NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: power_state.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: power_state.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: power_state.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: power_state.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: power_state.SHUTDOWN,
    libvirt.VIR_DOMAIN_CRASHED: power_state.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: power_state.SUSPENDED,
}

#: The parts of libvirt that report trouble with the connection itself. Source: virterror.h.
CONNECTION_DOMAINS = (libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_STREAMS)
CONNECTION_CODES = (
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_RPC,
)

#: What is forgotten with a domain, besides its NVRAM; not every driver of libvirt has all of it.
UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)
FEWER_UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
)

#: Who is asked for addresses, in this order. Source: virDomainInterfaceAddressesSource.
ADDRESS_SOURCES = (
    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
)

#: The fields of a disk's statistics, in the order of :class:`~.driver.BlockCounters`.
BLOCK_FIELDS = ("rd.reqs", "rd.bytes", "wr.reqs", "wr.bytes")

#: What the guest received and sent. libvirt turns the counters of a tap device round, which
#: receives what the guest sends. Source: virNetDevTapInterfaceStats.
NETWORK_FIELDS = ("rx.bytes", "tx.bytes")

#: Seconds to tell libvirtd that the events of a connection are wanted no more.
UNWATCH_SECONDS = 5

_event_loop_lock = threading.Lock()
_event_loop_pid: int | None = None


class LibvirtHypervisor(XmlHypervisor):
    """The domains behind ``[hypervisor] uri``; connects when it is first asked, and again."""

    options = opts.OPTIONS

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._uri: str = agent.conf.hypervisor.uri
        self._lock = threading.Lock()
        self._connection: Any = None
        self._connection_pid: int | None = None
        self._name = ""
        self._identity = ""
        self.calls: Counter[str] = Counter()
        #: The same with their times, and whether libvirt answers.
        self.record = CallRecord(driver.HypervisorUnavailable)
        self._macs = InterfaceMacs()
        #: The connection that tells of plugged in interfaces, and the number of that request.
        self._watched: tuple[Any, int] | None = None
        self._watching = threading.Lock()

    @property
    def name(self) -> str:
        if not self._name:
            self._name = self._on_connection(
                "virConnectGetHostname", lambda conn: conn.getHostname()
            )
        return self._name

    @property
    def identity(self) -> str:
        if not self._identity:
            text = self._on_connection(
                "virConnectGetCapabilities", lambda conn: conn.getCapabilities()
            )
            # Not every driver of libvirt has one.
            self._identity = capabilities.parse(text).findtext("./host/uuid") or self.name
        return self._identity

    def domains(self) -> dict[str, driver.Domain]:
        stats = self._on_connection(
            "virConnectGetAllDomainStats",
            lambda conn: conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0),
        )
        found = {}
        for domain, values in stats:
            uuid = domain.UUIDString()
            state = POWER_STATES.get(values.get("state.state"))
            found[uuid] = driver.Domain(uuid, domain.name(), state)
        return found

    def domain_names(self) -> dict[str, str]:
        return {domain.UUIDString(): domain.name() for domain in self._list()}

    def power_state(self, uuid: str) -> int | None:
        return self._state(self._find(uuid))

    def details(self) -> list[driver.DomainDetails]:
        found = []
        for domain in self._list():
            try:
                found.append(self._details_of(domain))
            except driver.DomainNotFound:
                LOG.info("Domain %s vanished while it was described", domain.name())
        return found

    def block_counters(
        self, wanted: Mapping[str, Collection[str]]
    ) -> dict[str, dict[str, driver.BlockCounters]]:
        groups = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BLOCK
        stats = self._on_connection(
            "virConnectGetAllDomainStats",
            lambda conn: conn.getAllDomainStats(
                groups, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING
            ),
        )
        found: dict[str, dict[str, driver.BlockCounters]] = {}
        for domain, values in stats:
            uuid = domain.UUIDString()
            if uuid not in wanted:
                continue
            if "block.count" in values:
                told = _block_counters(values)
                found[uuid] = {name: told[name] for name in wanted[uuid] if name in told}
            else:
                # The test driver has no bulk.
                found[uuid] = self._counters_one_by_one(domain, wanted[uuid])
        return found

    def network_counters(self, wanted: Collection[str]) -> dict[str, list[driver.NetworkCounters]]:
        wanted = set(wanted)
        domains: dict[str, Any] = {}
        without_bulk: list[Any] = []

        def bulk() -> list[Devices]:
            connection, stats = self._interface_stats()
            with self._watching:
                self._watch_interfaces(connection)
            told = {domain.UUIDString(): (domain, values) for domain, values in stats}
            told = {uuid: of_one for uuid, of_one in told.items() if uuid in wanted}
            domains.update({uuid: domain for uuid, (domain, _) in told.items()})
            without_bulk[:] = [d for d, values in told.values() if "net.count" not in values]
            return [
                Devices(uuid, domain.ID(), _network_counters(values))
                for uuid, (domain, values) in told.items()
                if "net.count" in values
            ]

        found = self._macs.counters(bulk, lambda uuid: self._macs_of(domains[uuid]))
        for domain in without_bulk:
            # The test driver has no bulk.
            found[domain.UUIDString()] = self._traffic_one_by_one(domain)
        return found

    def interfaces(self, uuid: str) -> list[driver.Interface]:
        domain = self._find(uuid)
        text = self._on_domain("virDomainGetXMLDesc", domain, lambda: domain.XMLDesc(0))
        found = definition.interfaces(text)
        if not found or self._state(domain) != power_state.RUNNING:
            return found
        addresses: dict[str, tuple[str, ...]] = {}
        for source in ADDRESS_SOURCES:
            # The first that knows an interface has the say.
            addresses = {**self._addresses(domain, source), **addresses}
            if all(interface.mac in addresses for interface in found):
                break
        return [
            replace(interface, is_running=True, addresses=addresses.get(interface.mac, ()))
            for interface in found
        ]

    def shutdown(self, uuid: str) -> None:
        domain = self._find(uuid)
        self._on_domain("virDomainShutdown", domain, domain.shutdown)

    def power_off(self, uuid: str) -> None:
        try:
            domain = self._find(uuid)
            self._on_domain("virDomainDestroy", domain, domain.destroy)
        except driver.DomainNotFound:
            return
        except driver.HypervisorUnavailable:
            raise
        except driver.HypervisorError:
            # libvirt refuses to destroy a domain that is not running.
            if self.power_state(uuid) != power_state.SHUTDOWN:
                raise

    def start(self, uuid: str, fresh: bool = False) -> None:
        domain = self._find(uuid)
        if fresh:
            try:
                self._on_domain(
                    "virDomainCreateWithFlags",
                    domain,
                    lambda: domain.createWithFlags(libvirt.VIR_DOMAIN_START_FORCE_BOOT),
                )
                return
            except driver.HypervisorError as err:
                # The test driver has no such flag; without saved memory it makes no difference.
                if not _is_invalid_argument(err) or self.has_saved_memory(uuid):
                    raise
        self._on_domain("virDomainCreate", domain, domain.create)

    def has_saved_memory(self, uuid: str) -> bool:
        domain = self._find(uuid)
        found = self._on_domain(
            "virDomainHasManagedSaveImage", domain, lambda: domain.hasManagedSaveImage(0)
        )
        return bool(found)

    def pause(self, uuid: str) -> None:
        domain = self._find(uuid)
        self._on_domain("virDomainSuspend", domain, domain.suspend)

    def resume(self, uuid: str) -> None:
        domain = self._find(uuid)
        self._on_domain("virDomainResume", domain, domain.resume)

    def definition(self, uuid: str) -> str:
        domain = self._find(uuid)
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        xml: str = self._on_domain("virDomainGetXMLDesc", domain, lambda: domain.XMLDesc(flags))
        return xml

    def named_files(self) -> list[driver.NamedFiles]:
        volume_path = functools.cache(self._volume_path)
        found = []
        for domain in self._list():
            try:
                files, unresolved = definition.named_files(self._definitions(domain), volume_path)
            except driver.DomainNotFound:
                LOG.info("Domain %s vanished while its files were asked for", domain.name())
                continue
            found.append(driver.NamedFiles(domain.UUIDString(), domain.name(), files, unresolved))
        return found

    def define(self, xml: str) -> None:
        connection = self._connect()
        self._call("virDomainDefineXML", lambda: connection.defineXML(xml), connection)

    def undefine(self, uuid: str, keep_nvram: bool = False) -> None:
        try:
            domain = self._find(uuid)
            # libvirt would keep a running domain, as one that is not persistent.
            if self._on_domain("virDomainIsActive", domain, domain.isActive):
                raise driver.HypervisorError(f"{uuid}: the domain is not off, so it is kept")
            self._undefine(domain, keep_nvram)
        except driver.DomainNotFound:
            return

    def host_resources(self) -> driver.HostResources:
        def ask(name: str, call: Callable[[Any], Any]) -> Any:
            return self._on_connection(name, call)

        _, memory_mib, *_ = ask("virNodeGetInfo", lambda conn: conn.getInfo())
        _, online, _ = ask("virNodeGetCPUMap", lambda conn: conn.getCPUMap())
        text = ask("virConnectGetCapabilities", lambda conn: conn.getCapabilities())
        host = capabilities.parse(text)
        return driver.HostResources(
            hypervisor_hostname=self.name,
            hypervisor_type=ask("virConnectGetType", lambda conn: conn.getType()),
            hypervisor_version=ask("virConnectGetVersion", lambda conn: conn.getVersion()),
            cpus=frozenset(number for number, is_online in enumerate(online) if is_online),
            memory_mib=memory_mib,
            cpu_info=capabilities.cpu_info(host),
            supported_instances=capabilities.supported_instances(host),
        )

    def disk_capacities(self) -> list[driver.DiskCapacity]:
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        stats = self._on_connection(
            "virConnectGetAllDomainStats",
            lambda conn: conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BLOCK, flags),
        )
        found = []
        for domain, values in stats:
            for number in range(values.get("block.count", 0)):
                path = values.get(f"block.{number}.path", "")
                capacity = values.get(f"block.{number}.capacity")
                if os.path.isabs(path) and capacity is not None:
                    found.append(driver.DiskCapacity(domain.UUIDString(), path, capacity))
        return found

    def check(self) -> None:
        self._connect()

    def probe(self) -> None:
        """Make a call that costs libvirt nothing, to see that it answers."""
        self._on_connection("virConnectGetLibVersion", lambda conn: conn.getLibVersion())

    def close(self) -> None:
        self._unwatch_interfaces()
        connection = self._connection
        if connection is None:
            return
        self._drop(connection)
        try:
            self._agent.run_native(connection.close, deadline=5, name="virConnectClose")
        except (libvirt.libvirtError, errors.CallTimeout) as err:
            LOG.debug("Closing %s: %s", self._uri, err)

    def _counters_one_by_one(
        self, domain: Any, targets: Collection[str]
    ) -> dict[str, driver.BlockCounters]:
        found = {}
        for target in targets:
            try:
                reads, read_bytes, writes, write_bytes, _ = self._on_domain(
                    "virDomainBlockStats", domain, functools.partial(domain.blockStats, target)
                )
            except driver.HypervisorUnavailable:
                raise
            except driver.HypervisorError as err:
                LOG.debug("No counters of %s of %s: %s", target, domain.name(), err)
                continue
            found[target] = driver.BlockCounters(reads, read_bytes, writes, write_bytes)
        return found

    def _interface_stats(self) -> tuple[Any, list[tuple[Any, dict[str, Any]]]]:
        """Return the statistics of all running domains' interfaces, and the connection used."""
        groups = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        connection, stats = self._on_connection(
            "virConnectGetAllDomainStats",
            lambda conn: (conn, conn.getAllDomainStats(groups, flags)),
        )
        return connection, stats

    def _watch_interfaces(self, connection: Any) -> None:
        """See that libvirt tells when an interface is plugged into a domain."""
        if self._watched is not None and self._watched[0] is connection:
            return
        self._unwatch_interfaces()
        number = self._call(
            "virConnectDomainEventRegisterAny",
            lambda: connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._plugged_in, None
            ),
            connection,
        )
        self._macs.forget_all()
        self._watched = connection, number

    def _unwatch_interfaces(self) -> None:
        """Let go of the connection that told; until then it is kept, lost or not."""
        if self._watched is None:
            return
        (connection, number), self._watched = self._watched, None
        name = "virConnectDomainEventDeregisterAny"
        try:
            self._agent.run_native(
                connection.domainEventDeregisterAny, number, deadline=UNWATCH_SECONDS, name=name
            )
        except (libvirt.libvirtError, errors.CallTimeout) as err:
            LOG.debug("Events of %s: %s", self._uri, err)

    def _plugged_in(self, connection: Any, domain: Any, alias: str, opaque: Any) -> None:
        """Take an event, on libvirt's event thread."""
        self._macs.forget(domain.UUIDString())

    def _macs_of(self, domain: Any) -> dict[str, str] | None:
        """Return the MACs of a running domain by device; None where it cannot be described."""
        try:
            text = self._on_domain("virDomainGetXMLDesc", domain, lambda: domain.XMLDesc(0))
            found = definition.interfaces(text)
        except driver.HypervisorUnavailable:
            raise
        except driver.HypervisorError as err:
            LOG.debug("The interfaces of %s are not known: %s", domain.name(), err)
            return None
        return {interface.devname: interface.mac for interface in found if interface.devname}

    def _traffic_one_by_one(self, domain: Any) -> list[driver.NetworkCounters]:
        found = []
        for device, mac in (self._macs_of(domain) or {}).items():
            ask = functools.partial(domain.interfaceStats, device)
            try:
                received, _, _, _, sent, *_ = self._on_domain(
                    "virDomainInterfaceStats", domain, ask
                )
            except driver.HypervisorUnavailable:
                raise
            except driver.HypervisorError as err:
                LOG.debug("No counters of %s of %s: %s", device, domain.name(), err)
                continue
            found.append(driver.NetworkCounters(mac, received, sent))
        return found

    def _addresses(self, domain: Any, source: int) -> dict[str, tuple[str, ...]]:
        """Return what one source tells of a running domain's addresses, by MAC."""
        try:
            told = self._on_domain(
                "virDomainInterfaceAddresses", domain, lambda: domain.interfaceAddresses(source)
            )
        except (driver.DomainNotFound, driver.HypervisorUnavailable):
            raise
        except driver.HypervisorError as err:
            LOG.debug("No addresses of %s from source %s: %s", domain.name(), source, err)
            return {}
        found = {}
        for interface in told.values():
            mac = (interface.get("hwaddr") or "").lower()
            addresses = tuple(
                f"{one['addr']}/{one['prefix']}"
                for one in interface.get("addrs") or ()
                if not ipaddress.ip_address(one["addr"]).is_link_local
            )
            if mac and addresses:
                found[mac] = addresses
        return found

    def _undefine(self, domain: Any, keep_nvram: bool) -> None:
        name = "virDomainUndefineFlags"
        flags = UNDEFINE_FLAGS | (
            libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
            if keep_nvram
            else libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )
        try:
            self._on_domain(name, domain, lambda: domain.undefineFlags(flags))
        except driver.HypervisorError as err:
            if not _is_invalid_argument(err):
                raise
            self._on_domain(name, domain, lambda: domain.undefineFlags(FEWER_UNDEFINE_FLAGS))

    def _definitions(self, domain: Any) -> list[str]:
        """Return all that a domain runs with, or may be started or reverted to."""

        def ask(name: str, call: Callable[[], Any]) -> Any:
            return self._on_domain(name, domain, call)

        inactive = libvirt.VIR_DOMAIN_XML_INACTIVE
        texts = [
            ask("virDomainGetXMLDesc", functools.partial(domain.XMLDesc, flags))
            for flags in (0, inactive)
        ]
        if ask("virDomainHasManagedSaveImage", lambda: domain.hasManagedSaveImage(0)):
            texts.append(
                ask("virDomainManagedSaveGetXMLDesc", lambda: domain.managedSaveGetXMLDesc(0))
            )
        for snapshot in ask("virDomainListAllSnapshots", lambda: domain.listAllSnapshots(0)):
            texts.append(
                ask("virDomainSnapshotGetXMLDesc", functools.partial(snapshot.getXMLDesc, 0))
            )
        return texts

    def _volume_path(self, pool: str, volume: str) -> str | None:
        """Return where a volume of a storage pool is; None where libvirt does not find it."""
        try:
            in_pool = self._on_connection(
                "virStoragePoolLookupByName", lambda conn: conn.storagePoolLookupByName(pool)
            )
            found = self._call(
                "virStorageVolLookupByName",
                lambda: in_pool.storageVolLookupByName(volume),
                in_pool.connect(),
            )
            path: str = self._call("virStorageVolGetPath", found.path, found.connect())
        except driver.HypervisorUnavailable:
            raise
        except driver.HypervisorError as err:
            LOG.debug("Volume %s of the pool %s is not found: %s", volume, pool, err)
            return None
        return path

    def _details_of(self, domain: Any) -> driver.DomainDetails:
        info = self._on_domain("virDomainGetInfo", domain, lambda: domain.info())
        text = self._on_domain("virDomainGetXMLDesc", domain, lambda: domain.XMLDesc(0))
        disks = definition.disks(text)
        return driver.DomainDetails(
            uuid=domain.UUIDString(),
            name=domain.name(),
            power_state=POWER_STATES.get(info[0]),
            vcpus=info[3],
            memory_mib=info[1] // 1024,
            disks=disks,
            disk_bytes=sum(self._capacity(domain, disk) for disk in disks),
        )

    def _capacity(self, domain: Any, disk: driver.Disk) -> int:
        if disk.source is None:
            return 0
        try:
            info = self._on_domain(
                "virDomainGetBlockInfo", domain, lambda: domain.blockInfo(disk.target)
            )
        except (driver.DomainNotFound, driver.HypervisorUnavailable):
            raise
        except driver.HypervisorError as err:
            LOG.debug("The size of %s of %s is not known: %s", disk.target, domain.name(), err)
            return 0
        return int(info[0])

    def _list(self) -> list[Any]:
        """Return all domains, running or not, as libvirt's objects."""
        domains: list[Any] = self._on_connection(
            "virConnectListAllDomains", lambda conn: conn.listAllDomains(0)
        )
        return domains

    def _state(self, domain: Any) -> int | None:
        state, _ = self._on_domain("virDomainGetState", domain, lambda: domain.state(0))
        return POWER_STATES.get(state)

    def _find(self, uuid: str) -> Any:
        return self._on_connection(
            "virDomainLookupByUUIDString", lambda conn: conn.lookupByUUIDString(uuid), uuid
        )

    def _on_connection(self, name: str, call: Callable[[Any], Any], uuid: str = "") -> Any:
        """Make a call that only reads; if the connection turns out lost, once more on another."""
        connection = self._connect()
        try:
            return self._call(name, lambda: call(connection), connection, uuid)
        except driver.HypervisorUnavailable as err:
            if isinstance(err.__cause__, errors.CallTimeout):
                raise
        connection = self._connect()
        return self._call(name, lambda: call(connection), connection, uuid)

    def _on_domain(self, name: str, domain: Any, call: Callable[[], Any]) -> Any:
        """Make a call on a domain object, which stays with the connection it came from."""
        return self._call(name, call, domain.connect(), domain.UUIDString())

    def _call(self, name: str, call: Callable[[], Any], connection: Any, uuid: str = "") -> Any:
        """Make one libvirt call with a deadline, and tell its errors apart."""
        self.calls[name] += 1
        deadline = self._agent.conf.hypervisor.call_timeout
        with self.record.call(name):
            try:
                return self._agent.run_native(call, deadline=deadline, name=name)
            except errors.CallTimeout as err:
                self._drop(connection)
                raise driver.HypervisorUnavailable(
                    f"{self._uri} does not answer: {err} Look at libvirtd and its log."
                ) from err
            except libvirt.libvirtError as err:
                if _is_lost(err):
                    self._drop(connection)
                raise self._translate(err, name, uuid) from err

    def _translate(self, err: libvirt.libvirtError, name: str, uuid: str) -> driver.HypervisorError:
        text = f"{err.get_error_message()} ({name}, libvirt error {err.get_error_code()})"
        if err.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return driver.DomainNotFound(f"{self._uri} has no domain {uuid}: {text}")
        if _is_lost(err) or name == "virConnectOpen":
            return driver.HypervisorUnavailable(
                f"{self._uri} does not answer: {text}. Is libvirtd running, and "
                "[hypervisor] uri right?"
            )
        return driver.HypervisorError(f"{uuid}: {text}" if uuid else text)

    def _connect(self) -> Any:
        with self._lock:
            if self._connection is not None and self._connection_pid == os.getpid():
                return self._connection
            _start_event_loop()
            connection = self._call("virConnectOpen", lambda: libvirt.open(self._uri), None)
            self._keep_alive(connection)
            self._connection, self._connection_pid = connection, os.getpid()
            return connection

    def _keep_alive(self, connection: Any) -> None:
        options = self._agent.conf.hypervisor
        if not options.keepalive_interval:
            return
        interval, count = options.keepalive_interval, options.keepalive_count
        try:
            self._call(
                "virConnectSetKeepAlive",
                lambda: connection.setKeepAlive(interval, count),
                connection,
            )
        except driver.HypervisorUnavailable:
            raise
        except driver.HypervisorError:
            LOG.debug("%s has no keep-alive", self._uri)

    def _drop(self, connection: Any) -> None:
        """Forget `connection`, if it is still the one in use; the next call makes another."""
        if self._connection is connection:
            self._connection = None


def _is_lost(err: libvirt.libvirtError) -> bool:
    """Tell whether an error is about the connection rather than the call."""
    return err.get_error_code() in CONNECTION_CODES or err.get_error_domain() in CONNECTION_DOMAINS


def _is_invalid_argument(err: driver.HypervisorError) -> bool:
    """Tell whether libvirt refused an argument, such as a flag that its driver does not have."""
    cause = err.__cause__
    return (
        isinstance(cause, libvirt.libvirtError)
        and cause.get_error_code() == libvirt.VIR_ERR_INVALID_ARG
    )


def _block_counters(values: Mapping[str, Any]) -> dict[str, driver.BlockCounters]:
    """Return the counters of a domain's disks, by target. Source: virConnectGetAllDomainStats."""
    found = {}
    for number in range(values["block.count"]):
        prefix = f"block.{number}."
        counters = [values.get(prefix + name) for name in BLOCK_FIELDS]
        if None not in counters:
            found[values[f"{prefix}name"]] = driver.BlockCounters._make(counters)
    return found


def _network_counters(values: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the counters of a domain's interfaces, by device. Source: as above."""
    found: dict[Any, Any] = {}
    for number in range(values["net.count"]):
        prefix = f"net.{number}."
        name, received, sent = (values.get(prefix + field) for field in ("name", *NETWORK_FIELDS))
        if None not in (name, received, sent):
            found[name] = received, sent
    return found


def _start_event_loop() -> None:
    """Run libvirt's event loop, which keep-alive needs, on a native thread, once a process."""
    global _event_loop_pid
    with _event_loop_lock:
        if _event_loop_pid == os.getpid():
            return
        libvirt.registerErrorHandler(lambda context, error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        thread = concurrency.original("threading").Thread(
            target=_run_event_loop, name="libvirt-events", daemon=True
        )
        thread.start()
        _event_loop_pid = os.getpid()


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
