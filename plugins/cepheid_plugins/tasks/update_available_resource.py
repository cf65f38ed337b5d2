# SPDX-License-Identifier: Apache-2.0
"""Keep the record of what this host has and what is taken of it.

Reads instances, migrations and compute_nodes; the hypervisor's host, its domains and their disks;
the file system of instances_path. Writes compute_nodes, and migrations.status of stale ones.
Source: Nova's update_available_resource and its resource tracker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

import cepheid
from cepheid import errors
from cepheid.metric import Metric
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, Raced, RunContext
from cepheid_plugins.compute import host_metrics, opts, resources
from cepheid_plugins.database.records import ComputeNode, Move, Occupant
from cepheid_plugins.hypervisor.driver import Domain, HostResources
from cepheid_plugins.storage import filesystem

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: Seconds after which storage that does not answer is given up.
MEASURE_SECONDS = 60

#: Orphans that a notice names.
NAMED = 5


def _of_nova(name: str, group: str = "DEFAULT") -> list[cfg.DeprecatedOpt]:
    return [cfg.DeprecatedOpt(name, group=group)]


def _reserved(name: str, default: int, what: str) -> cfg.Opt:
    return cfg.IntOpt(
        name, default=default, min=0, deprecated_opts=_of_nova(name),
        help=f"{what} of this host that instances do not get.",
    )  # fmt: skip


def _ratios(kind: str, initial: float, what: str) -> list[cfg.Opt]:
    return [
        cfg.FloatOpt(
            f"{kind}_allocation_ratio", min=0, deprecated_opts=_of_nova(f"{kind}_allocation_ratio"),
            help=f"How many times over {what} may be given to instances. Unset or 0 leaves the "
            "ratio that is on record.",
        ),
        cfg.FloatOpt(
            f"initial_{kind}_allocation_ratio", default=initial, min=0,
            deprecated_opts=_of_nova(f"initial_{kind}_allocation_ratio"),
            help=f"The same, where {kind}_allocation_ratio is unset and none is on record.",
        ),
    ]  # fmt: skip


class UpdateAvailableResource(cepheid.Task):
    """Record what this host has, and what instances take of it."""

    options = [
        _reserved("reserved_host_cpus", 0, "CPUs"),
        _reserved("reserved_host_memory_mb", 512, "MiB of memory"),
        _reserved("reserved_host_disk_mb", 0, "MiB of disk"),
        *_ratios("cpu", 4.0, "CPUs"),
        *_ratios("ram", 1.0, "memory"),
        *_ratios("disk", 1.0, "disk"),
        cfg.Opt(
            "cpu_shared_set",
            type=resources.CpuSet(),
            deprecated_opts=_of_nova("vcpu_pin_set") + _of_nova("cpu_shared_set", "compute"),
            help="The CPUs that instances may run on, as in 4-12,^8,15. Unset means all that are "
            "online.",
        ),
        cfg.Opt(
            "cpu_dedicated_set",
            type=resources.CpuSet(),
            deprecated_opts=_of_nova("cpu_dedicated_set", "compute"),
            help="The CPUs that are pinned, as in 4-12,^8,15. Where they are given and "
            "cpu_shared_set is not, vcpus is 0.",
        ),
        cfg.IntOpt(
            "file_backed_memory",
            default=0,
            min=0,
            deprecated_opts=_of_nova("file_backed_memory", "libvirt"),
            help="MiB of memory that files give to instances, to be recorded in place of the "
            "host's own. 0 means that it is its own.",
        ),
        cfg.StrOpt(
            "my_ip",
            deprecated_opts=_of_nova("my_ip"),
            help="The address of this host to be recorded. Unset leaves the one on record.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    nova_spacing = "update_resources_interval"
    time_limit = 300
    explains = {"instance": "instances of this host, those on their way to or from it, and domains"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self._seen = host_metrics.Seen()

    def metrics(self) -> Iterable[Metric]:
        return host_metrics.of_host(self._seen)

    @periodic_task(run_immediately=True)
    def update_available_resource(self, context: RunContext) -> None:
        # The record first: what others write to it from here on makes our write a lost race.
        records, occupants, moves = self.database.use_of_host(self.agent.host)
        host = self.hypervisor.host_resources()
        domains = self.hypervisor.domains()
        room = self._measure(context)
        counted = resources.count(self.agent.host, self._reserved(), occupants, moves)
        context.count("instances", len(counted.instances))
        seen = host_metrics.count(counted.instances, domains)
        self._seen = host_metrics.Seen(seen, self._seen.host)
        resources.explain(context, counted, occupants, moves)
        for row in counted.sizeless:
            context.skip(row.uuid, "neither its flavor nor its row says what it takes")
        self._report_orphans(context, domains, occupants)
        self._report_strangers(context, counted.instances, host.hypervisor_hostname)
        self._end_stale(context, counted.stale)
        self._record(context, records, host, room, counted)

    def _reserved(self) -> resources.Use:
        return resources.Use(
            self.conf.reserved_host_cpus,
            self.conf.reserved_host_memory_mb,
            self.conf.reserved_host_disk_mb // resources.MIB_OF_GIB,
        )

    def _measure(self, context: RunContext) -> filesystem.Room:
        disks = [(disk.path, disk.capacity_bytes) for disk in self.hypervisor.disk_capacities()]
        room: filesystem.Room = self.agent.run_native(
            filesystem.measure,
            self.agent.conf.compute.instances_path,
            disks,
            deadline=MEASURE_SECONDS,
            name="statvfs of instances_path",
        )
        for path, reason in room.unreadable:
            context.notice(("disk", path), f"{path} is left out of disk_available_least: {reason}")
        return room

    def _report_orphans(
        self, context: RunContext, domains: Mapping[str, Domain], occupants: Sequence[Occupant]
    ) -> None:
        """Name the domains that no row knows, on whatever host and deleted or not."""
        unknown = set(domains) - {row.uuid for row in occupants}
        if unknown:
            unknown -= {row.uuid for row in self.database.instances_by_uuid(sorted(unknown))}
        context.count("orphans", len(unknown))
        resources.explain_orphans(context, unknown)
        if unknown:
            named = sorted(f"{domains[uuid].name} ({uuid})" for uuid in unknown)
            more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
            context.notice(
                "orphans",
                f"{len(named)} domains are on the hypervisor and in no row, so nothing is counted "
                f"for them: {', '.join(named[:NAMED])}{more}",
            )

    def _report_strangers(
        self, context: RunContext, instances: Sequence[Occupant], hostname: str
    ) -> None:
        nodes = {row.node for row in instances if row.node is not None} - {hostname}
        for node in sorted(nodes):
            context.notice(
                ("node", node),
                f"instances of this host are on record at node {node}; its hypervisor is called "
                f"{hostname}. They are counted",
            )

    def _end_stale(self, context: RunContext, stale: Sequence[Move]) -> None:
        statuses = {str(move.id): move.status for move in stale if move.status != "error"}

        def end(changes: list[Change]) -> set[str]:
            ended: set[int] = set()
            for status in sorted({statuses[change.target] or "" for change in changes}):
                ids = [int(c.target) for c in changes if statuses[c.target] == status]
                ended |= self.database.set_migration_status(ids, status, "error")
            return {str(number) for number in ended}

        context.change_many(
            "migration_status",
            [
                Change(
                    str(move.id),
                    move.status,
                    "error",
                    f"instance {move.instance.uuid} is in migration "
                    f"{move.instance.context_migration_id}, not in this one",
                    about=move.instance.uuid,
                )
                for move in stale
                if move.status != "error"
            ],
            end,
        )

    def _record(
        self,
        context: RunContext,
        records: Sequence[ComputeNode],
        host: HostResources,
        room: filesystem.Room,
        counted: resources.Counted,
    ) -> None:
        name = host.hypervisor_hostname
        before = next((row for row in records if row.hypervisor_hostname == name), None)
        if before is None and self.database.is_novas():
            known = ", ".join(str(row.hypervisor_hostname) for row in records) or "none"
            context.notice(
                "record",
                f"Nova's database has no record of host {self.agent.host} with the hypervisor "
                f"{name} (it has: {known}), and nothing is written. nova-compute makes it when it "
                "starts; is [DEFAULT] host the same as there?",
            )
            return
        # Outside of a cloud a host has one hypervisor, so another name is its former one.
        before = before or next(iter(records), None)
        wanted = self._wanted(host, room, counted, before)
        self._seen = host_metrics.Seen(self._seen.instances, wanted)
        if before is None:
            context.change(
                "compute_node", name, None, wanted, "there is no record of this host",
                do=lambda: self.database.create_compute_node(self.agent.host, wanted),
            )  # fmt: skip
            return
        values = resources.differences(before, wanted)
        if not values:
            return
        recorded = before

        def write() -> None:
            if not self.database.update_compute_node(recorded, values):
                raise Raced

        old = {column: getattr(before, column) for column in values}
        context.change("compute_node", name, old, values, "the record differs", do=write)

    def _wanted(
        self,
        host: HostResources,
        room: filesystem.Room,
        counted: resources.Counted,
        before: ComputeNode | None,
    ) -> dict[str, Any]:
        """Return the columns of the record."""
        try:
            vcpus = resources.usable_cpus(
                host.cpus, self.conf.cpu_shared_set, self.conf.cpu_dedicated_set
            )
        except ValueError as err:
            raise errors.ConfigError(f"[{self.name}] {err}.") from err
        use = counted.use
        memory_mb = self.conf.file_backed_memory or host.memory_mib
        local_gb = room.total_bytes // resources.GIB
        stats = resources.statistics(counted.instances, before.stats if before else None)
        wanted: dict[str, Any] = {
            "hypervisor_hostname": host.hypervisor_hostname,
            "hypervisor_type": host.hypervisor_type,
            "hypervisor_version": host.hypervisor_version,
            "vcpus": vcpus,
            "vcpus_used": use.vcpus,
            "memory_mb": memory_mb,
            "memory_mb_used": use.memory_mb,
            "free_ram_mb": memory_mb - use.memory_mb,
            "local_gb": local_gb,
            "local_gb_used": use.disk_gb,
            "free_disk_gb": local_gb - use.disk_gb,
            "disk_available_least": int((room.free_bytes - room.growth_bytes) / resources.GIB),
            "running_vms": len(counted.instances),
            "current_workload": resources.workload(counted.instances),
            "cpu_info": json.dumps(host.cpu_info),
            "supported_instances": json.dumps(host.supported_instances),
            "stats": json.dumps(stats),
        }
        for kind in ("cpu", "ram", "disk"):
            column = f"{kind}_allocation_ratio"
            wanted[column] = resources.ratio(
                self.conf[column],
                getattr(before, column) if before else None,
                self.conf[f"initial_{column}"],
            )
        if self.conf.my_ip:
            wanted["host_ip"] = self.conf.my_ip
        return wanted
