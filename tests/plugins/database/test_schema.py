# SPDX-License-Identifier: Apache-2.0
"""The tables and migrations: ours on an empty database, nothing but one table on Nova's."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import mysql, postgresql, sqlite

from cepheid import errors
from cepheid_plugins.database import migrate, models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.errors import DatabaseNotMigrated

#: Columns of each table besides created_at, updated_at, deleted_at, deleted and id, as a cell
#: database of Nova 34.0.0 has them; a digit at the end of a name would be part of it.
COLUMNS = {
    "instances": """user_id project_id image_ref kernel_id ramdisk_id hostname launch_index
        key_name key_data power_state vm_state task_state memory_mb vcpus root_gb ephemeral_gb
        ephemeral_key_uuid host node compute_id instance_type_id user_data reservation_id
        launched_at terminated_at availability_zone display_name display_description launched_on
        locked locked_by os_type architecture vm_mode uuid root_device_name
        default_ephemeral_device default_swap_device config_drive access_ip_v4 access_ip_v6
        auto_disk_config progress shutdown_terminate disable_terminate cell_name internal_id
        cleaned hidden""",
    "instance_info_caches": "network_info instance_uuid",
    "instance_extra": """instance_uuid device_metadata numa_topology pci_requests flavor vcpu_model
        migration_context keypairs trusted_certs vpmems resources""",
    "instance_system_metadata": "instance_uuid key value",
    "instance_metadata": "key value instance_uuid",
    "instance_actions": """action instance_uuid request_id user_id project_id start_time
        finish_time message""",
    "instance_actions_events": """event action_id start_time finish_time result traceback host
        details""",
    "instance_faults": "instance_uuid code message details host",
    "migrations": """source_compute dest_compute dest_host status instance_uuid
        old_instance_type_id new_instance_type_id source_node dest_node migration_type hidden
        memory_total memory_processed memory_remaining disk_total disk_processed disk_remaining
        uuid cross_cell_move user_id project_id dest_compute_id""",
    "task_log": "task_name state host period_beginning period_ending message task_items errors",
    "bw_usage_cache": """start_period last_refreshed bw_in bw_out mac uuid last_ctr_in
        last_ctr_out""",
    "volume_usage_cache": """volume_id tot_last_refreshed tot_reads tot_read_bytes tot_writes
        tot_write_bytes curr_last_refreshed curr_reads curr_read_bytes curr_writes
        curr_write_bytes instance_uuid project_id user_id availability_zone""",
    "block_device_mapping": """device_name delete_on_termination snapshot_id volume_id volume_size
        no_device connection_info instance_uuid source_type destination_type guest_format
        device_type disk_bus boot_index image_id tag attachment_id uuid volume_type encrypted
        encryption_secret_uuid encryption_format encryption_options""",
    "compute_nodes": """service_id vcpus memory_mb local_gb vcpus_used memory_mb_used
        local_gb_used hypervisor_type hypervisor_version cpu_info disk_available_least
        free_ram_mb free_disk_gb current_workload running_vms hypervisor_hostname host_ip
        supported_instances pci_stats metrics extra_resources stats numa_topology host
        ram_allocation_ratio cpu_allocation_ratio disk_allocation_ratio uuid mapped""",
    "services": """host binary topic report_count disabled disabled_reason last_seen_up
        forced_down version uuid""",
}

COMMON = {"created_at", "updated_at", "deleted_at", "deleted", "id"}


@pytest.fixture
def database(agent):
    agent.conf.register_opts(Database.options, group="database")
    database = Database(agent)
    yield database
    database.close()


@pytest.fixture
def engine(database):
    """An engine of the test's own on the same file."""
    return sa.create_engine(database.url, poolclass=sa.NullPool)


def make_nova(engine, mark="alembic_version", with_bw_usage=False):
    with engine.begin() as connection:
        models.instances.create(connection)
        if mark == "alembic_version":
            connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(sa.text("INSERT INTO alembic_version VALUES ('ab450ba04102')"))
        elif mark == "migrate_version":
            connection.execute(
                sa.text(
                    "CREATE TABLE migrate_version"
                    " (repository_id TEXT, repository_path TEXT, version INTEGER)"
                )
            )
            connection.execute(sa.text("INSERT INTO migrate_version VALUES ('nova', 'x', 362)"))
        if with_bw_usage:
            models.bw_usage_cache.create(connection)


def schema(engine):
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT name, sql FROM sqlite_master"))
        return sorted(map(tuple, rows))


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_a_table_has_novas_columns(table):
    columns = set(models.metadata.tables[table].columns.keys())
    assert columns == COMMON | set(COLUMNS[table].split())


def test_there_are_no_other_tables():
    assert set(models.metadata.tables) == set(COLUMNS)


def test_the_migrations_make_what_the_models_say(database, engine):
    database.sync()
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": migrate.VERSION_TABLE, "compare_type": True},
        )
        assert compare_metadata(context, models.metadata) == []


def test_the_newest_of_the_migrations_is_the_one_that_is_needed():
    migrations = Path(migrate.__file__).parent / "migrations"
    assert ScriptDirectory(str(migrations)).get_heads() == [migrate.HEAD]


def test_an_address_is_what_nova_has_on_each_kind_of_server():
    column = models.instances.c.access_ip_v4
    types = [str(column.type.compile(d.dialect())) for d in (postgresql, mysql, sqlite)]
    assert types == ["INET", "VARCHAR(39)", "VARCHAR(39)"]


def test_syncing_twice_changes_nothing(database, engine):
    assert database.sync() == ["Migrated the database from nothing to 0001."]
    before = schema(engine)
    assert database.sync() == ["The database is at revision 0001 already."]
    assert schema(engine) == before


def test_a_database_that_is_not_there_is_not_made_by_asking(database):
    for ask in (
        database.check,
        lambda: database.instances_on_host("host1"),
        lambda: database.update_instances("host1", []),
    ):
        with pytest.raises(DatabaseNotMigrated, match="run 'cepheid db sync'"):
            ask()
    assert database.version() == migrate.Version("", "", "0001")
    assert not os.path.exists(database.url.database)


def test_an_empty_database_is_not_migrated(database, engine):
    engine.connect().close()
    (open(database.url.database, "a")).close()
    with pytest.raises(DatabaseNotMigrated):
        database.check()
    with pytest.raises(DatabaseNotMigrated):
        database.instances_on_host("host1")


@pytest.mark.parametrize("mark", migrate.NOVA_MARKS)
def test_on_novas_database_only_bw_usage_cache_is_added(database, engine, mark):
    make_nova(engine, mark)
    before = schema(engine)
    with pytest.raises(DatabaseNotMigrated):
        database.check()
    (line,) = database.sync()
    assert "Nova's database" in line
    assert "added bw_usage_cache" in line
    added = [name for name, sql in schema(engine) if (name, sql) not in before]
    assert added == ["bw_usage_cache", "bw_usage_cache_uuid_start_period_idx"]
    assert database.version().owner == "nova"
    database.check()


def test_on_novas_database_that_has_all_nothing_is_done(database, engine):
    make_nova(engine, with_bw_usage=True)
    before = schema(engine)
    database.check()
    (line,) = database.sync()
    assert "nothing to do" in line
    assert schema(engine) == before
    assert database.version().revision == "ab450ba04102"


def test_a_database_with_instances_and_no_mark_is_left_alone(database, engine):
    make_nova(engine, mark="")
    before = schema(engine)
    with pytest.raises(errors.CepheidError, match="left alone"):
        database.sync()
    assert schema(engine) == before


def test_what_an_older_nova_lacks_is_named(database, engine):
    make_nova(engine, with_bw_usage=True)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE instances DROP COLUMN hidden"))
    missing = database.missing()
    assert "instances.hidden" in missing
    assert "instance_actions" in missing
    assert "bw_usage_cache" not in missing


def test_nothing_is_missing_once_it_is_synced(database):
    database.sync()
    assert database.missing() == []
