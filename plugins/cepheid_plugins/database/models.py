# SPDX-License-Identifier: Apache-2.0
"""The tables, named, typed, constrained and indexed as in Nova's cell database.

Those that tasks touch; the columns are today's, a superset of all since Pike. Source: the schema
that Nova 34.0.0's own migrations make.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData()


class _IpAddress(sa.types.TypeDecorator[str]):
    """PostgreSQL's ``inet``, a string elsewhere.

    The dialect has it, and is large: it is loaded where the database is PostgreSQL.
    """

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        if dialect.name != "postgresql":
            return super().load_dialect_impl(dialect)
        from sqlalchemy.dialects import postgresql

        return dialect.type_descriptor(postgresql.INET())


def _medium_text() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def _string(name: str, length: int = 255, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), **options)


def _strings(*names: str) -> list[sa.Column[Any]]:
    return [_string(name) for name in names]


def _integers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Integer) for name in names]


def _booleans(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Boolean) for name in names]


def _instance_uuid(name: str = "instance_uuid", nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.String(36), sa.ForeignKey("instances.uuid"), nullable=nullable)


def _table(name: str, *parts: Any) -> sa.Table:
    """Make a table with the columns that all have in common."""
    return sa.Table(
        name,
        metadata,
        sa.Column("created_at", sa.DateTime),
        sa.Column("updated_at", sa.DateTime),
        sa.Column("deleted_at", sa.DateTime),
        sa.Column("deleted", sa.Integer),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        *parts,
        mysql_engine="InnoDB",
        mysql_charset="utf8",
    )


instances = _table(
    "instances",
    *_strings("user_id", "project_id", "image_ref", "kernel_id", "ramdisk_id", "hostname"),
    sa.Column("launch_index", sa.Integer),
    _string("key_name"),
    sa.Column("key_data", _medium_text()),
    sa.Column("power_state", sa.Integer),
    *_strings("vm_state", "task_state"),
    *_integers("memory_mb", "vcpus", "root_gb", "ephemeral_gb"),
    _string("ephemeral_key_uuid", 36),
    *_strings("host", "node"),
    sa.Column("compute_id", sa.BigInteger),
    sa.Column("instance_type_id", sa.Integer),
    sa.Column("user_data", _medium_text()),
    _string("reservation_id"),
    sa.Column("launched_at", sa.DateTime),
    sa.Column("terminated_at", sa.DateTime),
    *_strings("availability_zone", "display_name", "display_description"),
    sa.Column("launched_on", _medium_text()),
    sa.Column("locked", sa.Boolean),
    sa.Column("locked_by", sa.Enum("owner", "admin", name="instances0locked_by")),
    *_strings("os_type", "architecture", "vm_mode"),
    _string("uuid", 36, nullable=False),
    *_strings("root_device_name", "default_ephemeral_device", "default_swap_device"),
    _string("config_drive"),
    sa.Column("access_ip_v4", _IpAddress(39)),
    sa.Column("access_ip_v6", _IpAddress(39)),
    sa.Column("auto_disk_config", sa.Boolean),
    sa.Column("progress", sa.Integer),
    *_booleans("shutdown_terminate", "disable_terminate"),
    _string("cell_name"),
    *_integers("internal_id", "cleaned"),
    sa.Column("hidden", sa.Boolean),
    sa.UniqueConstraint("uuid", name="uniq_instances0uuid"),
    sa.Index("instances_project_id_idx", "project_id"),
    sa.Index("instances_project_id_deleted_idx", "project_id", "deleted"),
    sa.Index("instances_reservation_id_idx", "reservation_id"),
    sa.Index("instances_terminated_at_launched_at_idx", "terminated_at", "launched_at"),
    sa.Index("instances_uuid_deleted_idx", "uuid", "deleted"),
    sa.Index("instances_task_state_updated_at_idx", "task_state", "updated_at"),
    sa.Index("instances_host_node_deleted_idx", "host", "node", "deleted"),
    sa.Index("instances_host_deleted_cleaned_idx", "host", "deleted", "cleaned"),
    sa.Index("instances_deleted_created_at_idx", "deleted", "created_at"),
    sa.Index("instances_updated_at_project_id_idx", "updated_at", "project_id"),
    sa.Index("instances_compute_id_deleted_idx", "compute_id", "deleted"),
)

instance_info_caches = _table(
    "instance_info_caches",
    sa.Column("network_info", _medium_text()),
    _instance_uuid(nullable=False),
    sa.UniqueConstraint("instance_uuid", name="uniq_instance_info_caches0instance_uuid"),
)

instance_extra = _table(
    "instance_extra",
    _instance_uuid(nullable=False),
    *(
        sa.Column(name, sa.Text)
        for name in (
            "device_metadata",
            "numa_topology",
            "pci_requests",
            "flavor",
            "vcpu_model",
            "migration_context",
            "keypairs",
            "trusted_certs",
            "vpmems",
            "resources",
        )
    ),
    sa.Index("instance_extra_idx", "instance_uuid"),
)

instance_system_metadata = _table(
    "instance_system_metadata",
    _instance_uuid(nullable=False),
    _string("key", nullable=False),
    _string("value"),
    sa.Index("instance_uuid", "instance_uuid"),
)

instance_metadata = _table(
    "instance_metadata",
    *_strings("key", "value"),
    _instance_uuid(),
    sa.Index("instance_metadata_instance_uuid_idx", "instance_uuid"),
)

instance_actions = _table(
    "instance_actions",
    _string("action"),
    _instance_uuid(),
    *_strings("request_id", "user_id", "project_id"),
    sa.Column("start_time", sa.DateTime),
    sa.Column("finish_time", sa.DateTime),
    _string("message"),
    sa.Index("instance_uuid_idx", "instance_uuid"),
    sa.Index("request_id_idx", "request_id"),
    sa.Index("instance_actions_instance_uuid_updated_at_idx", "instance_uuid", "updated_at"),
)

instance_actions_events = _table(
    "instance_actions_events",
    _string("event"),
    sa.Column("action_id", sa.Integer, sa.ForeignKey("instance_actions.id")),
    sa.Column("start_time", sa.DateTime),
    sa.Column("finish_time", sa.DateTime),
    _string("result"),
    sa.Column("traceback", sa.Text),
    _string("host"),
    sa.Column("details", sa.Text),
)

instance_faults = _table(
    "instance_faults",
    _instance_uuid(),
    sa.Column("code", sa.Integer, nullable=False),
    _string("message"),
    sa.Column("details", _medium_text()),
    _string("host"),
    sa.Index("instance_faults_host_idx", "host"),
    sa.Index(
        "instance_faults_instance_uuid_deleted_created_at_idx",
        "instance_uuid",
        "deleted",
        "created_at",
    ),
)

_MYSQL_PREFIXES = dict.fromkeys(("source_compute", "dest_compute", "source_node", "dest_node"), 100)

migrations = _table(
    "migrations",
    *_strings("source_compute", "dest_compute", "dest_host", "status"),
    _instance_uuid(),
    *_integers("old_instance_type_id", "new_instance_type_id"),
    *_strings("source_node", "dest_node"),
    sa.Column(
        "migration_type",
        sa.Enum("migration", "resize", "live-migration", "evacuation", name="migration_type"),
    ),
    sa.Column("hidden", sa.Boolean),
    *(
        sa.Column(name, sa.BigInteger)
        for name in (
            "memory_total",
            "memory_processed",
            "memory_remaining",
            "disk_total",
            "disk_processed",
            "disk_remaining",
        )
    ),
    _string("uuid", 36),
    sa.Column("cross_cell_move", sa.Boolean),
    *_strings("user_id", "project_id"),
    sa.Column("dest_compute_id", sa.BigInteger),
    sa.Index("migrations_uuid", "uuid", unique=True),
    sa.Index("migrations_instance_uuid_and_status_idx", "deleted", "instance_uuid", "status"),
    sa.Index("migrations_updated_at_idx", "updated_at"),
    sa.Index("migrations_dest_compute_id_deleted_idx", "dest_compute_id", "deleted"),
    sa.Index(
        "migrations_by_host_nodes_and_status_idx",
        "deleted",
        "source_compute",
        "dest_compute",
        "source_node",
        "dest_node",
        "status",
        mysql_length=_MYSQL_PREFIXES,
        mariadb_length=_MYSQL_PREFIXES,
    ),
    sa.Index(
        "migrations_by_src_host_nodes_and_status_idx",
        "deleted",
        "source_compute",
        "source_node",
        "status",
        mysql_length={"source_compute": 100, "source_node": 100},
        mariadb_length={"source_compute": 100, "source_node": 100},
    ),
    sa.Index(
        "migrations_by_dest_host_nodes_and_status_idx",
        "deleted",
        "dest_compute",
        "dest_node",
        "status",
        mysql_length={"dest_compute": 100, "dest_node": 100},
        mariadb_length={"dest_compute": 100, "dest_node": 100},
    ),
)

task_log = _table(
    "task_log",
    _string("task_name", nullable=False),
    _string("state", nullable=False),
    _string("host", nullable=False),
    sa.Column("period_beginning", sa.DateTime, nullable=False),
    sa.Column("period_ending", sa.DateTime, nullable=False),
    _string("message", nullable=False),
    *_integers("task_items", "errors"),
    sa.UniqueConstraint(
        "task_name",
        "host",
        "period_beginning",
        "period_ending",
        name="uniq_task_log0task_name0host0period_beginning0period_ending",
    ),
    sa.Index("ix_task_log_period_beginning", "period_beginning"),
    sa.Index("ix_task_log_host", "host"),
    sa.Index("ix_task_log_period_ending", "period_ending"),
)

bw_usage_cache = _table(
    "bw_usage_cache",
    sa.Column("start_period", sa.DateTime, nullable=False),
    sa.Column("last_refreshed", sa.DateTime),
    *(sa.Column(name, sa.BigInteger) for name in ("bw_in", "bw_out")),
    _string("mac"),
    _string("uuid", 36),
    *(sa.Column(name, sa.BigInteger) for name in ("last_ctr_in", "last_ctr_out")),
    sa.Index("bw_usage_cache_uuid_start_period_idx", "uuid", "start_period"),
)

volume_usage_cache = _table(
    "volume_usage_cache",
    _string("volume_id", 36, nullable=False),
    sa.Column("tot_last_refreshed", sa.DateTime),
    *(
        sa.Column(name, sa.BigInteger)
        for name in ("tot_reads", "tot_read_bytes", "tot_writes", "tot_write_bytes")
    ),
    sa.Column("curr_last_refreshed", sa.DateTime),
    *(
        sa.Column(name, sa.BigInteger)
        for name in ("curr_reads", "curr_read_bytes", "curr_writes", "curr_write_bytes")
    ),
    _string("instance_uuid", 36),
    _string("project_id", 36),
    _string("user_id", 64),
    _string("availability_zone"),
)

block_device_mapping = _table(
    "block_device_mapping",
    _string("device_name"),
    sa.Column("delete_on_termination", sa.Boolean),
    _string("snapshot_id", 36),
    _string("volume_id", 36),
    sa.Column("volume_size", sa.Integer),
    sa.Column("no_device", sa.Boolean),
    sa.Column("connection_info", _medium_text()),
    _instance_uuid(),
    *_strings("source_type", "destination_type", "guest_format", "device_type", "disk_bus"),
    sa.Column("boot_index", sa.Integer),
    _string("image_id", 36),
    _string("tag"),
    _string("attachment_id", 36),
    _string("uuid", 36),
    _string("volume_type"),
    sa.Column("encrypted", sa.Boolean),
    _string("encryption_secret_uuid", 36),
    _string("encryption_format", 128),
    _string("encryption_options", 4096),
    sa.UniqueConstraint("uuid", name="uniq_block_device_mapping0uuid"),
    sa.Index("snapshot_id", "snapshot_id"),
    sa.Index("volume_id", "volume_id"),
    sa.Index("block_device_mapping_instance_uuid_idx", "instance_uuid"),
    sa.Index("block_device_mapping_instance_uuid_device_name_idx", "instance_uuid", "device_name"),
    sa.Index("block_device_mapping_instance_uuid_volume_id_idx", "instance_uuid", "volume_id"),
)

compute_nodes = _table(
    "compute_nodes",
    sa.Column("service_id", sa.Integer),
    *(
        sa.Column(name, sa.Integer, nullable=False)
        for name in (
            "vcpus",
            "memory_mb",
            "local_gb",
            "vcpus_used",
            "memory_mb_used",
            "local_gb_used",
        )
    ),
    sa.Column("hypervisor_type", _medium_text(), nullable=False),
    sa.Column("hypervisor_version", sa.Integer, nullable=False),
    sa.Column("cpu_info", _medium_text(), nullable=False),
    *_integers("disk_available_least", "free_ram_mb", "free_disk_gb"),
    *_integers("current_workload", "running_vms"),
    _string("hypervisor_hostname"),
    sa.Column("host_ip", _IpAddress(39)),
    *(
        sa.Column(name, sa.Text)
        for name in ("supported_instances", "pci_stats", "metrics", "extra_resources", "stats")
    ),
    sa.Column("numa_topology", sa.Text),
    _string("host"),
    *(
        sa.Column(name, sa.Float)
        for name in ("ram_allocation_ratio", "cpu_allocation_ratio", "disk_allocation_ratio")
    ),
    _string("uuid", 36),
    sa.Column("mapped", sa.Integer),
    sa.UniqueConstraint(
        "host",
        "hypervisor_hostname",
        "deleted",
        name="uniq_compute_nodes0host0hypervisor_hostname0deleted",
    ),
    sa.Index("compute_nodes_uuid_idx", "uuid", unique=True),
)

services = _table(
    "services",
    *_strings("host", "binary", "topic"),
    sa.Column("report_count", sa.Integer, nullable=False),
    sa.Column("disabled", sa.Boolean),
    _string("disabled_reason"),
    sa.Column("last_seen_up", sa.DateTime),
    sa.Column("forced_down", sa.Boolean),
    sa.Column("version", sa.Integer),
    _string("uuid", 36),
    sa.UniqueConstraint("host", "topic", "deleted", name="uniq_services0host0topic0deleted"),
    sa.UniqueConstraint("host", "binary", "deleted", name="uniq_services0host0binary0deleted"),
    sa.Index("services_uuid_idx", "uuid", unique=True),
)

#: What is soft-deleted together with its instance.
DEPENDANTS = (
    instance_info_caches,
    instance_extra,
    instance_metadata,
    instance_system_metadata,
    instance_faults,
    block_device_mapping,
    migrations,
)


def _of_nova(name: str, owner: str, *others: str) -> sa.TableClause:
    columns = (owner, "id", "deleted", "deleted_at", *others)
    return sa.table(name, *(sa.column(column) for column in columns))


#: What Nova has besides in its cell database, of which a delete is all that is needed.
virtual_interfaces = _of_nova("virtual_interfaces", "instance_uuid", "uuid")
NOVA_DEPENDANTS = (
    virtual_interfaces,
    _of_nova("security_group_instance_association", "instance_uuid"),
    _of_nova("instance_id_mappings", "uuid"),
)

#: What Nova deletes for real with an instance.
NOVA_REMOVED = (
    sa.table("tags", sa.column("resource_id")),
    sa.table("console_auth_tokens", sa.column("instance_uuid")),
)
