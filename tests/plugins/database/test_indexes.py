# SPDX-License-Identifier: Apache-2.0
"""The indexes and unique constraints, as a cell database of Nova 34.0.0 has them."""

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import models

#: Each as name(columns in order); an exclamation mark says that it is unique.
INDEXES = {
    "instances": [
        "uniq_instances0uuid(uuid)!",
        "instances_project_id_idx(project_id)",
        "instances_project_id_deleted_idx(project_id, deleted)",
        "instances_reservation_id_idx(reservation_id)",
        "instances_terminated_at_launched_at_idx(terminated_at, launched_at)",
        "instances_uuid_deleted_idx(uuid, deleted)",
        "instances_task_state_updated_at_idx(task_state, updated_at)",
        "instances_host_node_deleted_idx(host, node, deleted)",
        "instances_host_deleted_cleaned_idx(host, deleted, cleaned)",
        "instances_deleted_created_at_idx(deleted, created_at)",
        "instances_updated_at_project_id_idx(updated_at, project_id)",
        "instances_compute_id_deleted_idx(compute_id, deleted)",
    ],
    "instance_info_caches": [
        "uniq_instance_info_caches0instance_uuid(instance_uuid)!",
    ],
    "instance_extra": [
        "instance_extra_idx(instance_uuid)",
    ],
    "instance_system_metadata": [
        "instance_uuid(instance_uuid)",
    ],
    "instance_metadata": [
        "instance_metadata_instance_uuid_idx(instance_uuid)",
    ],
    "instance_actions": [
        "instance_uuid_idx(instance_uuid)",
        "request_id_idx(request_id)",
        "instance_actions_instance_uuid_updated_at_idx(instance_uuid, updated_at)",
    ],
    "instance_actions_events": [],
    "instance_faults": [
        "instance_faults_host_idx(host)",
        "instance_faults_instance_uuid_deleted_created_at_idx(instance_uuid, deleted, created_at)",
    ],
    "migrations": [
        "migrations_uuid(uuid)!",
        "migrations_instance_uuid_and_status_idx(deleted, instance_uuid, status)",
        "migrations_by_host_nodes_and_status_idx"
        "(deleted, source_compute, dest_compute, source_node, dest_node, status)",
        "migrations_updated_at_idx(updated_at)",
        "migrations_dest_compute_id_deleted_idx(dest_compute_id, deleted)",
        "migrations_by_src_host_nodes_and_status_idx(deleted, source_compute, source_node, status)",
        "migrations_by_dest_host_nodes_and_status_idx(deleted, dest_compute, dest_node, status)",
    ],
    "task_log": [
        "uniq_task_log0task_name0host0period_beginning0period_ending"
        "(task_name, host, period_beginning, period_ending)!",
        "ix_task_log_host(host)",
        "ix_task_log_period_beginning(period_beginning)",
        "ix_task_log_period_ending(period_ending)",
    ],
    "bw_usage_cache": [
        "bw_usage_cache_uuid_start_period_idx(uuid, start_period)",
    ],
    "volume_usage_cache": [],
    "block_device_mapping": [
        "uniq_block_device_mapping0uuid(uuid)!",
        "snapshot_id(snapshot_id)",
        "volume_id(volume_id)",
        "block_device_mapping_instance_uuid_idx(instance_uuid)",
        "block_device_mapping_instance_uuid_device_name_idx(instance_uuid, device_name)",
        "block_device_mapping_instance_uuid_volume_id_idx(instance_uuid, volume_id)",
    ],
    "compute_nodes": [
        "uniq_compute_nodes0host0hypervisor_hostname0deleted(host, hypervisor_hostname, deleted)!",
        "compute_nodes_uuid_idx(uuid)!",
    ],
    "services": [
        "uniq_services0host0topic0deleted(host, topic, deleted)!",
        "uniq_services0host0binary0deleted(host, binary, deleted)!",
        "services_uuid_idx(uuid)!",
    ],
}


def index(name, columns, unique):
    return f"{name}({', '.join(column.name for column in columns)}){'!' if unique else ''}"


@pytest.mark.parametrize("table", sorted(models.metadata.tables))
def test_a_table_has_novas_indexes(table):
    constraints = models.metadata.tables[table].constraints
    unique = [found for found in constraints if isinstance(found, sa.UniqueConstraint)]
    found = [index(i.name, i.columns, i.unique) for i in models.metadata.tables[table].indexes]
    found += [index(constraint.name, constraint.columns, True) for constraint in unique]
    assert sorted(found) == sorted(INDEXES[table])
