# SPDX-License-Identifier: Apache-2.0
"""The data layer on SQLite, MariaDB and PostgreSQL alike."""

import datetime
import multiprocessing
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pymysql.connections
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from cepheid.errors import CepheidError
from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.database import grants, migrate, models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.errors import (
    ClockDiffers,
    DatabaseError,
    DatabaseNotMigrated,
    DatabaseUnavailable,
)
from cepheid_plugins.database.records import ActionEnd, ActionStart, Fault, InstanceUpdate
from cepheid_plugins.hypervisor.driver import BlockCounters, HypervisorError, NetworkCounters
from cepheid_plugins.tasks.instance_usage_audit import InstanceUsageAudit
from cepheid_plugins.tasks.poll_bandwidth_usage import PollBandwidthUsage
from cepheid_plugins.tasks.poll_volume_usage import PollVolumeUsage
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from cepheid_plugins.tasks.update_available_resource import UpdateAvailableResource
from tests import operations
from tests.fake_agent import FakeAgent
from tests.fakes import FakeHypervisor, FakeNotifier
from tests.functional import servers
from tests.functional.agents import Installation
from tests.functional.inventories import Used, add_many, open_database, rows
from tests.functional.processes import wait_until
from tests.worlds import disk_world, node_xml, uuid_of

pytestmark = pytest.mark.functional


def repr_short(value):
    return ascii(value[:8])


def test_the_migrations_make_what_the_models_say(database, engine):
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrate.VERSION_TABLE, "compare_type": True}
        )
        differences = [
            difference
            for difference in compare_metadata(context, models.metadata)
            # MariaDB makes an index for each foreign key that has none.
            if not (difference[0] == "remove_index" and difference[1].name == "action_id")
        ]
    assert differences == []
    assert "already" in database.sync()[0]
    database.check()


def test_a_pass_reads_and_writes_in_batches(tmp_path, url, database, engine):
    add_many(engine, range(1000))
    hypervisor = FakeHypervisor([(uuid_of(n), f"guest-{n}", 3) for n in range(1000)])
    agent = FakeAgent(tmp_path, {"database": database, "hypervisor": hypervisor})
    task = agent.build(SyncPowerStates)
    database.statements.clear()
    assert agent.run(task).counters["done"] == 1000
    assert {row.power_state for row in rows(engine, models.instances)} == {3}
    database.statements.clear()
    assert agent.run(task).changes == []
    assert database.statements["SELECT"] == 1
    agent.close()


def test_what_is_read_from_volumes_is_added_up_in_batches(tmp_path, url, database, engine):
    add_many(engine, range(1000))
    with engine.begin() as connection:
        volume = {"device_name": "/dev/vdb", "destination_type": "volume", "deleted": 0}
        connection.execute(
            sa.insert(models.block_device_mapping),
            [
                {"instance_uuid": uuid_of(n), "volume_id": f"volume-{n}", **volume}
                for n in range(1000)
            ],
        )
    hypervisor = FakeHypervisor([(uuid_of(n), f"guest-{n}", 1) for n in range(1000)])
    agent = FakeAgent(tmp_path, {"database": database, "hypervisor": hypervisor})
    task = agent.build(PollVolumeUsage)
    agent.set(task.name, spacing=60)
    for reads in (10, 2**40, 3):
        for n in range(1000):
            hypervisor.counters[uuid_of(n)] = {"vdb": BlockCounters(reads, 0, 0, 0)}
        database.statements.clear()
        assert agent.run(task).counters["done"] == 1
    # The rows are read, the totals added to, the counters written, 500 rows at a time.
    assert database.statements["SELECT"] == 3
    assert database.statements["UPDATE"] == 4
    found = {(row.tot_reads, row.curr_reads) for row in rows(engine, models.volume_usage_cache)}
    assert found == {(2**40, 3)}
    agent.close()


def test_an_action_with_its_event_and_a_fault_are_kept(database, engine):
    add_many(engine, [1])
    request = ("stop", "compute_stop_instance", "req-1", "host1")
    update = InstanceUpdate(uuid_of(1), "active", None, {"task_state": "powering-off"})
    start = ActionStart(uuid_of(1), *request)
    assert database.begin([update], [start], "host1") == {uuid_of(1)}
    assert database.begin([update], [start], "host1") == set()
    assert database.unfinished_actions([uuid_of(1)], request[1], "host1") == {uuid_of(1): "req-1"}
    database.end_actions([ActionEnd(uuid_of(1), request[1], request[2], "no", "Traceback…")])
    database.add_faults([Fault(uuid_of(1), "host1", "ä" * 300, "details")])
    assert database.unfinished_actions([uuid_of(1)], request[1], "host1") == {}
    (event,) = rows(engine, models.instance_actions_events)
    assert (event.result, event.details, event.traceback) == ("Error", "no", "Traceback…")
    (fault,) = rows(engine, models.instance_faults)
    assert len(fault.message.encode()) <= 255


@pytest.mark.parametrize(
    "text", ["guest \N{GRINNING FACE}", "a\0b", "x" * 70_000, "\udcff"], ids=repr_short
)
def test_what_a_failure_says_is_kept_as_far_as_the_columns_hold_it(database, engine, text):
    add_many(engine, [1])
    update = InstanceUpdate(uuid_of(1), "active", None, {"task_state": "powering-off"})
    start = ActionStart(uuid_of(1), "stop", "compute_stop_instance", "req-1", "host1")
    database.begin([update], [start], "host1")
    database.end_actions([ActionEnd(uuid_of(1), start.event, "req-1", text, text)])
    database.add_faults([Fault(uuid_of(1), "host1", text, text)])
    (event,) = rows(engine, models.instance_actions_events)
    assert event.result == "Error"
    assert event.details[0] == event.traceback[0] != ""
    assert len(rows(engine, models.instance_faults)) == 1


def test_a_database_without_tables_is_not_migrated(tmp_path, url):
    agent, database = open_database(tmp_path, url)
    if url.get_backend_name() == "sqlite":
        Path(url.database).touch()
    with pytest.raises(DatabaseNotMigrated, match="run 'cepheid db sync'"):
        database.instances_on_host("host1")
    database.close()
    agent.close()


def test_mariadb_is_migrated_whatever_the_url_calls_it(tmp_path, server):
    url = servers.new_database(server("mariadb"), "cepheid_named")
    agent, database = open_database(tmp_path, url.set(drivername="mariadb+pymysql"))
    database.sync()
    database.check()
    database.close()
    agent.close()


def test_times_of_mariadb_are_read_as_its_driver_reads_them(tmp_path, server):
    agent, database = open_database(
        tmp_path, servers.new_database(server("mariadb"), "cepheid_times")
    )
    queries = [
        f"SELECT CAST('{text}' AS DATETIME(6)), CAST('{text}' AS DATETIME)"
        for text in ("2026-11-30 23:59:59.000001", "2026-11-30 23:59:59.5", "0001-01-01", "no")
    ]
    # The zero of a table that was written in another sql_mode.
    queries.append("SELECT CAST('0000-00-00 00:00:00' AS DATETIME)")

    def read(connection):
        connection.execute(sa.text("SET SESSION sql_mode = ''"))
        return [tuple(connection.execute(sa.text(query)).one()) for query in queries]

    found = database._read(read)
    with sa.create_engine(database.url).connect() as connection:
        assert found == read(connection)
    assert found[0] == (
        datetime.datetime(2026, 11, 30, 23, 59, 59, 1),
        datetime.datetime(2026, 11, 30, 23, 59, 59),
    )
    database.close()
    agent.close()


def test_a_migration_that_was_cut_off_is_told_from_the_tables_of_others(tmp_path, server):
    """MariaDB has made each table for good at once."""
    agent, database = open_database(
        tmp_path, servers.new_database(server("mariadb"), "cepheid_cut")
    )
    database.sync()
    with sa.create_engine(database.url).begin() as connection:
        connection.execute(sa.text("DELETE FROM cepheid_alembic_version"))
        connection.execute(sa.text("DROP TABLE task_log"))
    with pytest.raises(
        CepheidError, match=r"was interrupted here.* volume_usage_cache, cepheid_al"
    ):
        database.sync()
    # With a row in it nobody is told to drop anything.
    add_many(database._connected(), [1])
    with pytest.raises(CepheidError, match="neither Nova's mark nor ours"):
        database.sync()
    with sa.create_engine(database.url).begin() as connection:
        connection.execute(sa.text("DROP TABLE cepheid_alembic_version"))
    with pytest.raises(CepheidError, match="neither Nova's mark nor ours"):
        database.sync()
    database.close()
    agent.close()


def test_one_name_that_the_tables_cannot_hold_keeps_no_other_domain_out(tmp_path, server):
    """MariaDB's utf8 has characters of three bytes at most, as Nova's tables."""
    url = servers.new_database(server("mariadb"), "cepheid_names")
    (tmp_path / "node.xml").write_text(
        node_xml([1, 1, 1]).replace("guest-1<", "guest-\N{GRINNING FACE}<")
    )
    host = Installation(tmp_path, settings_for(url, f"test:///{tmp_path}/node.xml"))
    host.run("db", "sync")
    done = host.run("host", "adopt", check=False)
    assert done.returncode == 1
    assert "2 domains adopted" in done.stderr
    assert f"adopt of {uuid_of(1)} failed: " in done.stderr
    assert [row["Name"] for row in host.rows("instance", "list")] == ["guest-0", "guest-2"]
    host.close()


def _claim_all(path, url, name, start, wins):
    """Claim each of one hundred instances, in a process of its own."""
    path.mkdir()
    agent, database = open_database(path, url)
    start.wait()
    won = set()
    for number in range(100):
        values = {"task_state": "powering-off", "display_name": name}
        update = InstanceUpdate(uuid_of(number), "active", None, values)
        won |= database.update_instances("host1", [update])
    wins.put((name, won))
    database.close()
    agent.close()


def test_of_two_processes_that_want_one_instance_exactly_one_wins(tmp_path, url, database, engine):
    add_many(engine, range(100))
    context = multiprocessing.get_context("spawn")
    start, wins = context.Barrier(2), context.Queue()
    rivals = [
        context.Process(target=_claim_all, args=(tmp_path / name, url, name, start, wins))
        for name in ("one", "two")
    ]
    for rival in rivals:
        rival.start()
    won = dict(wins.get(timeout=60) for _ in rivals)
    for rival in rivals:
        rival.join(60)
    assert not won["one"] & won["two"]
    assert len(won["one"] | won["two"]) == 100
    owners = {row.uuid: row.display_name for row in rows(engine, models.instances)}
    assert owners == {uuid: name for name, uuids in won.items() for uuid in uuids}


def cut_off(engine, kind):
    """End all other connections to its database."""
    with engine.connect() as connection:
        if kind == "mariadb":
            for (number,) in connection.execute(
                sa.text(
                    "SELECT id FROM information_schema.processlist"
                    " WHERE db = DATABASE() AND id != CONNECTION_ID()"
                )
            ).all():
                connection.execute(sa.text(f"KILL {number}"))
        else:
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid != pg_backend_pid()"
                )
            )


def test_a_connection_is_not_asked_whether_it_is_one(database, monkeypatch):
    database.instances_on_host("host1")  # connects

    def ask(*arguments):
        raise AssertionError("asked")

    monkeypatch.setattr(pymysql.connections.Connection, "ping", ask)
    monkeypatch.setattr(PGDialect_psycopg2, "do_ping", ask)
    assert database.instances_on_host("host1") == []


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_server_that_goes_away_costs_the_passes_meanwhile_and_nothing_else(tmp_path, kind):
    with getattr(servers, kind)() as server_url:
        url = servers.new_database(server_url, "cepheid_away")
        agent, database = open_database(tmp_path, url)
        database.sync()
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        add_many(engine, [1])
        assert len(database.instances_on_host("host1")) == 1
        # The connection in the pool is dead; what is asked next is asked on another.
        cut_off(engine, kind)
        assert len(database.instances_on_host("host1")) == 1
        cut_off(engine, kind)
        stopped = InstanceUpdate(uuid_of(1), "active", None, {"vm_state": "stopped"})
        assert database.update_instances("host1", [stopped]) == {uuid_of(1)}
        cut_off(engine, kind)
        database.check()
        engine.dispose()
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        database.instances_on_host("host1")
    database.close()
    agent.close()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_the_printed_grants_are_enough_for_an_agent_and_for_adopting(tmp_path, server, kind):
    url = servers.new_database(server(kind), "cepheid_grants")
    owner = Installation(tmp_path, settings_for(url, "test:///default"))
    owner.run("db", "sync")
    assert "has all that is needed" in owner.run("db", "check").stdout
    grants = owner.run("db", "grants", "--user", "least", "--adopt").stdout.splitlines()
    account = servers.new_account(url, "least", grants)

    (tmp_path / "least").mkdir()
    (tmp_path / "node.xml").write_text(node_xml([1, 4, 1]))
    least = Installation(
        tmp_path / "least",
        settings_for(account, f"test:///{tmp_path}/node.xml"),
    )
    least.run("db", "check")
    least.run("host", "adopt")
    assert len(least.rows("instance", "list")) == 3
    # One guest to be stopped, one that was stopped behind the database's back.
    (tmp_path / "node.xml").write_text(node_xml([4, 1, 1]))
    least.start_agent()
    wait_until(
        lambda: (
            {row["Change"] for row in least.rows("task", "history", "--changed")}
            >= {"stop", "force_stop", "power_state", "compute_node"}
        ),
        least.read_log,
    )
    assert least.stop_agent() == 0
    results = {row["Result"] for row in least.rows("task", "history", "--changed")}
    assert results == {"done"}
    least.close()


def login(world, url):
    """Let the agent of a world go on with another account; the test keeps its own."""
    assert world.engine
    world.database.close()
    world.agent.set("database", connection=url.render_as_string(hide_password=False))
    world.database = Database(world.agent)
    world.agent.drivers.use("database", world.database)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_every_operation_needs_the_printed_grants_and_no_more(tmp_path, server, kind):
    url = servers.new_database(server(kind), "cepheid_operations")
    settings = settings_for(url, "test:///default")
    settings += "[oslo_messaging_notifications]\ndriver = log\n"
    world = disk_world(tmp_path, [operations.NUMBER], settings=settings)
    printed = grants.statements(kind, url.database, migrate.VERSION_TABLE, "operating")
    login(world, servers.new_account(url, "operating", printed))
    used = Used(world.database)
    world.agent.drivers.use("notifications", FakeNotifier())
    world.database.check()
    world.hypervisor.stubborn.add(operations.UUID)
    world.hypervisor.deaf.add(operations.UUID)
    (failure,) = operations.run(world, "stop").values()
    assert isinstance(failure, HypervisorError)  # its fault is recorded
    world.hypervisor.stubborn.clear()
    world.hypervisor.deaf.clear()
    record = world.agent.build(UpdateAvailableResource)
    assert world.agent.run(record).outcome == "ok"
    volumes = world.agent.build(PollVolumeUsage)
    world.agent.set(volumes.name, spacing=60)
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping).values(
                instance_uuid=operations.UUID, volume_id="volume-1", device_name="vdb",
                destination_type="volume", deleted=0,
            )
        )  # fmt: skip
    for reads in (1, 2):
        world.hypervisor.counters[operations.UUID] = {"vdb": BlockCounters(reads, 0, 0, 0)}
        assert world.agent.run(volumes).counters["done"] == 1
    world.agent.drivers.use("bandwidth", LibvirtMeter(world.agent))
    bandwidth = world.agent.build(PollBandwidthUsage)
    for received in (1, 2):
        traffic = NetworkCounters("52:54:00:00:00:01", received, 0)
        world.hypervisor.traffic[operations.UUID] = [traffic]
        assert world.agent.run(bandwidth).counters["done"] == 1
    usage = world.agent.build(InstanceUsageAudit)
    world.update(operations.NUMBER, launched_at=datetime.datetime(2026, 1, 1))
    assert world.agent.run(usage).counters["done"] == 1
    for name in ("stop", "start", "reboot", "rescue", "unrescue", "resize", "confirm", "shelve",
                 "offload", "unshelve", "soft-delete", "restore", "delete"):  # fmt: skip
        assert operations.run(world, name) == {operations.UUID: None}, name
    assert world.row(operations.NUMBER).deleted
    assert world.agent.run(record).counters["done"] == 1
    granted = {
        table: {*words, *grants.OWN_AGENT.get(table, ())} for table, words in grants.AGENT.items()
    }
    assert used.privileges.pop(migrate.VERSION_TABLE) == {"SELECT"}
    used.privileges.pop("information_schema", None)
    assert {t: w for t, w in used.privileges.items() if t in granted} == granted
    world.close()


def settings_for(url, uri):
    connection = url.render_as_string(hide_password=False)
    return f"[database]\nconnection = {connection}\n[hypervisor]\nuri = {uri}\n"


def test_green_threads_go_on_while_the_database_is_slow(tmp_path, url, database):
    conf = tmp_path / "hub.conf"
    conf.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n" + settings_for(url, "test:///default"))
    process = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "hub.py", conf], stdout=subprocess.PIPE, text=True
    )
    if url.get_backend_name() == "sqlite":
        writer = sqlite3.connect(url.database, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        wait_until((tmp_path / "asking").exists)
        time.sleep(1)
        writer.execute("COMMIT")
        writer.close()
    printed, _ = process.communicate(timeout=60)
    turns, seconds = printed.split()
    assert float(seconds) >= 0.9
    # One every 10 ms is wanted; a blocked hub turns two or three times.
    assert int(turns) >= 20, f"{turns} turns in {seconds} s"


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_the_server_ends_a_statement_that_takes_too_long(tmp_path, server, kind):
    url = servers.new_database(server(kind), "cepheid_slow")
    agent, database = open_database(tmp_path, url)
    agent.set("database", statement_timeout=1)
    slow = {"mariadb": "SELECT SLEEP(30)", "postgresql": "SELECT pg_sleep(30)"}[kind]
    with pytest.raises(DatabaseError, match=r"max_statement_time|statement timeout"):
        database._read(lambda connection: connection.execute(sa.text(slow)).all())
    database.close()
    agent.close()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_clock_that_is_not_the_servers_is_noticed(tmp_path, server, kind, monkeypatch):
    url = servers.new_database(server(kind), "cepheid_clock")
    agent, database = open_database(tmp_path, url)
    database.sync()
    database.statements.clear()
    database.check_clock()
    assert not database.statements  # it told its time when it was connected to
    now = time.time
    for seconds, how in ((86400 * 365, "365 d ahead of"), (-3600, "60 min behind")):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda by=seconds: now() + by)
            with pytest.raises(ClockDiffers, match=f"This host's clock is {how} that of"):
                database.check_clock()
    database.check_clock()
    database.close()
    agent.close()
