# SPDX-License-Identifier: Apache-2.0
"""Each task beside its floor: the least that any program has to ask to know as much.

That is the raw SELECTs, written by hand with the database's own module, and the raw bulk call of
libvirt-python; of the same columns and rows as the task reads. Nothing is decided there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import libvirt

from benchmarks.host import Host, marks
from cepheid.task import Task
from cepheid_plugins.compute import audit_periods
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.libvirt_driver import BLOCK_FIELDS
from cepheid_plugins.tasks import (
    check_instance_build_time,
    cleanup_incomplete_migrations,
    cleanup_running_deleted_instances,
    heal_instance_info_cache,
    instance_usage_audit,
    poll_bandwidth_usage,
    poll_rebooting_instances,
    poll_rescued_instances,
    poll_shelved_instances,
    poll_unconfirmed_resizes,
    poll_volume_usage,
    reclaim_queued_deletes,
    run_image_cache_manager_pass,
    run_pending_deletes,
    sync_power_states,
    sync_scheduler_instance_info,
    update_available_resource,
)
from tests.worlds import uuid_of

HOST = "host1"
DAY = 86400


@dataclass
class Case:
    """A task, what its instances are like, and its floor.

    :param state: the columns that the instances have, so that the task looks at all of them and
        finds nothing to do
    :param arrange: makes further rows before, and `tables` are emptied afterwards
    :param remark: what the floor is not, for whoever reads its ratio
    """

    factory: type[Task]
    floor: Callable[[Host], object]
    options: Mapping[str, Any] = field(default_factory=dict)
    state: Callable[[Host], Mapping[str, Any]] = lambda host: {}
    arrange: Callable[[Host], None] = lambda host: None
    tables: Sequence[Any] = ()
    remark: str = ""

    @property
    def name(self) -> str:
        """The task's name."""
        return self.factory.task_name()


#: What tasks read of instances.
INSTANCE = (
    "id, uuid, host, node, display_name, vm_state, task_state, power_state, created_at, "
    "updated_at, launched_at, terminated_at, deleted_at, deleted, cleaned, hidden, memory_mb, "
    "vcpus, root_gb, ephemeral_gb, user_id, project_id, availability_zone, shutdown_terminate"
)
ON_HOST = "FROM instances WHERE host = ? AND deleted = 0"
VISIBLE = f"{ON_HOST} AND (hidden IS NULL OR hidden = 0)"
NEWEST = "ORDER BY created_at DESC, id DESC"
ENDED = ("confirmed", "reverted", "failed", "completed", "cancelled", "done")
IS_MOVING = (
    "EXISTS (SELECT * FROM migrations AS other WHERE other.instance_uuid = instances.uuid "
    "AND other.deleted = 0 AND (other.status IS NULL OR other.status NOT IN "
    f"{marks((*ENDED, 'error'))})) AS is_moving"
)
OCCUPANT = (
    "instances.uuid, instances.host, node, vm_state, task_state, os_type, instances.project_id, "
    "instance_type_id, vcpus, memory_mb, root_gb, ephemeral_gb, flavor, migration_context, "
    "EXISTS (SELECT * FROM block_device_mapping AS disk WHERE disk.instance_uuid = instances.uuid "
    "AND disk.boot_index = 0 AND disk.destination_type = 'volume' AND disk.deleted = 0) "
    "AS root_on_volume"
)
EXTRA = "LEFT JOIN instance_extra ON instance_extra.instance_uuid = instances.uuid"
NODE = (
    "id, updated_at, host, hypervisor_hostname, hypervisor_type, hypervisor_version, host_ip, "
    "vcpus, vcpus_used, memory_mb, memory_mb_used, free_ram_mb, local_gb, local_gb_used, "
    "free_disk_gb, disk_available_least, cpu_allocation_ratio, ram_allocation_ratio, "
    "disk_allocation_ratio, running_vms, current_workload, cpu_info, supported_instances, stats"
)


def in_vm_state(vm_state: str) -> Callable[[Host], object]:
    """Return the floor of a task that looks at the instances in a state."""
    return lambda host: host.raw.select(
        f"SELECT {INSTANCE} {VISIBLE} AND vm_state = ? {NEWEST}", HOST, vm_state
    )


def rebooting(host: Host) -> object:
    states = ("reboot_pending", "rebooting", "reboot_started", "rebooting_hard")
    query = f"SELECT {INSTANCE} {VISIBLE} AND task_state IN {marks(states)} {NEWEST}"
    return host.raw.select(query, HOST, *states)


def shelved(host: Host) -> object:
    rows = in_vm_state("shelved")(host)
    query = (
        "SELECT instance_uuid, value FROM instance_system_metadata AS data "
        "JOIN instances ON instances.uuid = instance_uuid "
        "WHERE host = ? AND instances.deleted = 0 AND `key` = ? AND data.deleted = 0"
    )
    return rows, host.raw.select(query, HOST, "shelved_at")


def resizes(host: Host) -> object:
    columns = (
        "id, instance_uuid, status, migration_type, source_compute, dest_compute, source_node, "
        "dest_node, created_at, updated_at, deleted, cross_cell_move"
    )
    return host.raw.select(
        f"SELECT {columns} FROM migrations WHERE source_compute = ? AND status = 'confirming' "
        "AND deleted = 0 OR dest_compute = ? AND status = 'finished' AND updated_at <= ? "
        "ORDER BY id",
        HOST,
        HOST,
        host.raw.time(host.ago(days=1)),
    )


def broken_migrations(host: Host) -> object:
    query = (
        "SELECT migrations.id, status, source_compute, dest_compute, instances.uuid, "
        "display_name, instances.host, instances.deleted_at, "
        f"instances.deleted = instances.id AS is_deleted, {IS_MOVING} "
        "FROM migrations JOIN instances ON instances.uuid = migrations.instance_uuid "
        "WHERE (source_compute = ? OR dest_compute = ?) "
        "AND status IN ('error', 'failed') "
        "AND (cross_cell_move IS NULL OR cross_cell_move = 0) "
        "AND (instances.host IS NULL OR instances.host <> ?) "
        "AND (instances.deleted = instances.id OR instances.deleted = 0) "
        "AND (instances.hidden IS NULL OR instances.hidden = 0) ORDER BY migrations.id"
    )
    return host.raw.select(query, *ENDED, "error", HOST, HOST, HOST)


def dead_instances(host: Host) -> object:
    os.listdir(host.instances)
    query = (
        "SELECT uuid, host, display_name, instances.deleted_at, cleaned, value, "
        "coalesce(data.updated_at, data.created_at) AS attempted_at, "
        f"{IS_MOVING} FROM instances LEFT JOIN instance_system_metadata AS data "
        "ON data.instance_uuid = uuid AND data.`key` = 'clean_attempts' "
        "WHERE host = ? AND instances.deleted > 0 AND instances.deleted = instances.id "
        "AND (instances.hidden IS NULL OR instances.hidden = 0) "
        "AND (cleaned = 0 OR instances.deleted_at >= ?) "
        "ORDER BY instances.created_at DESC, instances.id DESC, data.id"
    )
    return host.raw.select(query, *ENDED, "error", HOST, host.raw.time(host.ago(minutes=5)))


def running_deleted(host: Host) -> object:
    return host.raw.select(f"SELECT uuid, deleted_at {ON_HOST}", HOST), host.raw.names()


def one_network(host: Host) -> object:
    """Look one instance up, as a pass does; all of them have their turn."""
    uuid = uuid_of(0)
    cache = host.raw.select(
        "SELECT uuid, host, display_name, task_state, instances.deleted, caches.id, network_info "
        "FROM instances LEFT JOIN instance_info_caches AS caches ON instance_uuid = uuid "
        "AND caches.deleted = 0 WHERE uuid IN (?)",
        uuid,
    )
    domain = host.raw.libvirt.lookupByUUIDString(uuid)
    agent = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    told = domain.XMLDesc(0), domain.state(0), domain.interfaceAddresses(agent)
    host.raw.calls["one by one"] += 4
    return cache, told


def bandwidth(host: Host) -> object:
    period = audit_periods.last_completed("month", host.clock.utcnow())
    uuids = host.raw.select(f"SELECT uuid {ON_HOST}", HOST)
    rows = host.raw.select(
        "SELECT bw.id, bw.uuid, mac, start_period, bw_in, bw_out, last_ctr_in, last_ctr_out "
        "FROM bw_usage_cache AS bw JOIN instances ON instances.uuid = bw.uuid "
        "WHERE host = ? AND instances.deleted = 0 AND start_period IN (?, ?) ORDER BY bw.id",
        HOST,
        *(host.raw.time(at) for at in period),
    )
    groups = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
    stats = host.raw.stats(groups, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE)
    counters = [
        (domain.UUIDString(), told["net.0.name"], told["net.0.rx.bytes"], told["net.0.tx.bytes"])
        for domain, told in stats
    ]
    return uuids, rows, counters


def volumes(host: Host) -> object:
    attached = host.raw.select(
        "SELECT volume_id, device_name, instances.uuid, project_id, user_id, availability_zone, "
        "disks.created_at FROM block_device_mapping AS disks "
        "JOIN instances ON instances.uuid = disks.instance_uuid "
        "WHERE host = ? AND instances.deleted = 0 AND disks.deleted = 0 "
        "AND destination_type = 'volume' ORDER BY disks.id",
        HOST,
    )
    ids = sorted({row[0] for row in attached})
    counts = host.raw.select(
        "SELECT volume_id, count(DISTINCT instance_uuid) FROM block_device_mapping "
        f"WHERE volume_id IN {marks(ids)} AND deleted = 0 AND destination_type = 'volume' "
        "GROUP BY volume_id",
        *ids,
    )
    counters = ", ".join(
        f"{what}_{name}"
        for what in ("tot", "curr")
        for name in ("reads", "read_bytes", "writes", "write_bytes")
    )
    usages = host.raw.select(
        f"SELECT id, volume_id, instance_uuid, {counters}, curr_last_refreshed, "
        f"tot_last_refreshed FROM volume_usage_cache WHERE volume_id IN {marks(ids)} ORDER BY id",
        *ids,
    )
    groups = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BLOCK
    stats = host.raw.stats(groups, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING)
    counters = [
        (domain.UUIDString(), *(told[f"block.1.{name}"] for name in BLOCK_FIELDS))
        for domain, told in stats
    ]
    return counts, usages, counters


def power_states(host: Host) -> object:
    return host.raw.select(f"SELECT {INSTANCE} {ON_HOST}", HOST), host.raw.domains()


def uuids_on_host(host: Host) -> object:
    return host.raw.select(f"SELECT uuid {ON_HOST}", HOST)


def audits(host: Host) -> object:
    periods = audit_periods.completed("month", host.clock.utcnow(), 4)
    return host.raw.select(
        "SELECT id, state, period_beginning, period_ending, message, created_at, updated_at "
        "FROM task_log WHERE task_name = 'instance_usage_audit' AND host = ? "
        "AND period_beginning >= ? ORDER BY period_ending",
        HOST,
        host.raw.time(periods[0].begin),
    )


def resources(host: Host) -> object:
    nodes = host.raw.select(
        f"SELECT {NODE} FROM compute_nodes WHERE host = ? AND deleted = 0 ORDER BY id", HOST
    )
    occupants = host.raw.select(
        f"SELECT {OCCUPANT} FROM instances {EXTRA} AND instance_extra.deleted = 0 "
        "WHERE host = ? AND instances.deleted = 0",
        HOST,
    )
    moves = host.raw.select(
        "SELECT migrations.id, status, migration_type, source_compute, dest_compute, "
        "old_instance_type_id, migrations.created_at, migrations.updated_at, "
        f"{OCCUPANT} FROM migrations JOIN instances ON instances.uuid = migrations.instance_uuid "
        f"AND instances.deleted = 0 {EXTRA} AND instance_extra.deleted = 0 "
        "WHERE migrations.deleted = 0 AND (source_compute = ? OR dest_compute = ?) "
        f"AND status NOT IN {marks(ENDED)} ORDER BY migrations.id",
        HOST,
        HOST,
        *ENDED,
    )
    raw = host.raw.libvirt
    node = (raw.getInfo(), raw.getCPUMap(), raw.getCapabilities(), raw.getType(), raw.getVersion())
    domains = host.raw.domains()
    host.raw.calls["one by one"] += len(node)
    disks = host.raw.stats(
        libvirt.VIR_DOMAIN_STATS_BLOCK, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    )
    return nodes, occupants, moves, node, domains, disks, os.statvfs(host.instances)


def images(host: Host) -> object:
    here = "instances.deleted = 0 AND host IN (?)"
    moving = (
        "instances.deleted = 0 AND instances.uuid IN (SELECT migrations.instance_uuid "
        "FROM migrations WHERE migrations.deleted = 0 AND (source_compute IN (?) "
        f"OR dest_compute IN (?)) AND (status IS NULL OR status NOT IN {marks(ENDED)}))"
    )
    found = []
    for condition, values in ((here, (HOST,)), (moving, (HOST, HOST, *ENDED))):
        found += host.raw.select(
            "SELECT disks.instance_uuid, guest_format, volume_size "
            "FROM block_device_mapping AS disks "
            f"JOIN instances ON instances.uuid = disks.instance_uuid WHERE {condition} "
            "AND disks.deleted = 0 AND source_type = 'blank' AND destination_type = 'local'",
            *values,
        )
        found += host.raw.select(
            "SELECT instances.uuid, display_name, host, image_ref, kernel_id, ramdisk_id, "
            f"ephemeral_gb, flavor FROM instances {EXTRA} WHERE {condition}",
            *values,
        )
    for directory, _, files in os.walk(host.instances):
        found += [os.stat(os.path.join(directory, file)) for file in files]
    return found


#: The tasks in the order of the documentation, each with all its instances in the state that it
#: is about, and none of them due.
CASES = (
    Case(
        check_instance_build_time.CheckInstanceBuildTime,
        in_vm_state("building"),
        {"instance_build_timeout": DAY},
        lambda host: {"vm_state": "building"},
    ),
    Case(
        cleanup_incomplete_migrations.CleanupIncompleteMigrations,
        broken_migrations,
        remark="that the directories can be opened is seen besides, on a native thread",
    ),
    Case(
        cleanup_running_deleted_instances.CleanupRunningDeletedInstances,
        running_deleted,
        remark="what was seen is kept in a file, which the floor has not",
    ),
    Case(
        heal_instance_info_cache.HealInstanceInfoCache,
        one_network,
        {"calls_per_minute": 1_000_000},
        arrange=Host.cache_networks,
        remark="one instance a pass; each of its four libvirt calls is handed to a native thread "
        "with a deadline, which takes longer than the test driver's answer",
    ),
    Case(
        instance_usage_audit.InstanceUsageAudit,
        audits,
        tables=(models.task_log,),
        remark="the period has been audited",
    ),
    Case(
        poll_bandwidth_usage.PollBandwidthUsage,
        bandwidth,
        tables=(models.bw_usage_cache,),
        remark="the test driver's answer is filled up with counters, as QEMU's driver gives them",
    ),
    Case(
        poll_rebooting_instances.PollRebootingInstances,
        rebooting,
        {"reboot_timeout": DAY},
        lambda host: {"task_state": "rebooting"},
    ),
    Case(
        poll_rescued_instances.PollRescuedInstances,
        in_vm_state("rescued"),
        {"rescue_timeout": DAY},
        lambda host: {"vm_state": "rescued"},
    ),
    Case(
        poll_shelved_instances.PollShelvedInstances,
        shelved,
        {"shelved_offload_time": DAY},
        lambda host: {"vm_state": "shelved"},
        lambda host: host.insert(
            models.instance_system_metadata,
            lambda n: {
                "instance_uuid": uuid_of(n),
                "key": "shelved_at",
                "value": host.ago(minutes=5).isoformat(),
                "deleted": 0,
            },
        ),
        (models.instance_system_metadata,),
    ),
    Case(
        poll_unconfirmed_resizes.PollUnconfirmedResizes,
        resizes,
        {"resize_confirm_window": DAY},
        lambda host: {"vm_state": "resized"},
        lambda host: host.insert(
            models.migrations,
            lambda n: {
                "instance_uuid": uuid_of(n),
                "status": "finished",
                "migration_type": "resize",
                "source_compute": "host2",
                "dest_compute": HOST,
                "updated_at": host.ago(minutes=5),
                "deleted": 0,
            },
        ),
        (models.migrations,),
        remark="no row is due, so none is read",
    ),
    Case(
        poll_volume_usage.PollVolumeUsage,
        volumes,
        {"spacing": 60},
        tables=(models.volume_usage_cache,),
        remark="the test driver's answer is filled up with counters, as QEMU's driver gives them",
    ),
    Case(
        reclaim_queued_deletes.ReclaimQueuedDeletes,
        in_vm_state("soft-delete"),
        {"reclaim_instance_interval": DAY},
        lambda host: {"vm_state": "soft-delete", "deleted_at": host.ago(minutes=5)},
    ),
    Case(
        run_image_cache_manager_pass.RunImageCacheManagerPass,
        images,
        remark="files are looked at as well",
    ),
    Case(
        run_pending_deletes.RunPendingDeletes,
        dead_instances,
        remark="names of files are read as well; the pass that is made once an hour, which asks of "
        "all files, is not measured",
    ),
    Case(sync_power_states.SyncPowerStates, power_states),
    Case(
        sync_scheduler_instance_info.SyncSchedulerInstanceInfo,
        uuids_on_host,
        remark="without sending the message",
    ),
    Case(update_available_resource.UpdateAvailableResource, resources),
)
