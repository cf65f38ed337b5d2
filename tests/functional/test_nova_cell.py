# SPDX-License-Identifier: Apache-2.0
"""The proof on real Nova: its cell database, written and read with its own objects."""

import datetime
import os

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute import opts as compute_opts
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.resizing import ResizeOperations
from cepheid_plugins.database import grants, migrate, models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.hypervisor.driver import HypervisorError
from cepheid_plugins.tasks.check_instance_build_time import CheckInstanceBuildTime
from cepheid_plugins.tasks.cleanup_running_deleted_instances import (
    CleanupRunningDeletedInstances,
)
from cepheid_plugins.tasks.heal_instance_info_cache import HealInstanceInfoCache
from cepheid_plugins.tasks.poll_rebooting_instances import PollRebootingInstances
from cepheid_plugins.tasks.poll_rescued_instances import PollRescuedInstances
from cepheid_plugins.tasks.poll_shelved_instances import PollShelvedInstances
from cepheid_plugins.tasks.poll_unconfirmed_resizes import PollUnconfirmedResizes
from cepheid_plugins.tasks.reclaim_queued_deletes import ReclaimQueuedDeletes
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from tests.fake_agent import FakeAgent, FakeClock
from tests.fakes import FakeHypervisor
from tests.functional.inventories import Used
from tests.functional.nova_cell import least_account
from tests.images import qemu_img
from tests.neutron import NeutronServer, port

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

RUNNING, PAUSED, SHUTDOWN = 1, 3, 4

INSTANCES = [
    {"display_name": "web", "vm_state": "active", "power_state": RUNNING},
    {"display_name": "shut-down", "vm_state": "active", "power_state": RUNNING},
    {"display_name": "started", "vm_state": "stopped", "power_state": SHUTDOWN},
    {"display_name": "stubborn", "vm_state": "stopped", "power_state": SHUTDOWN},
    {"display_name": "paused", "vm_state": "active", "power_state": RUNNING},
    {
        "display_name": "rebooting",
        "vm_state": "active",
        "task_state": "rebooting",
        "power_state": RUNNING,
    },
    {
        "display_name": "stuck",
        "vm_state": "building",
        "task_state": "spawning",
        "power_state": 0,
        "times": {"created_at": "2026-11-23T10:00:00"},
    },
    {
        "display_name": "young",
        "vm_state": "building",
        "power_state": 0,
        "times": {"created_at": "2026-11-23T11:59:50"},
    },
    {"display_name": "elsewhere", "vm_state": "active", "power_state": RUNNING, "host": "host2"},
    {"display_name": "gone", "vm_state": "building", "power_state": 0, "destroyed": True},
]

GUESTS = {
    "web": RUNNING,
    "shut-down": SHUTDOWN,
    "started": RUNNING,
    "stubborn": RUNNING,
    "paused": PAUSED,
    "rebooting": SHUTDOWN,
    "elsewhere": SHUTDOWN,
}


def structure(engine):
    """Return every column, index and constraint of every table."""
    inspector = sa.inspect(engine)
    return {
        table: (
            sorted(
                (c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)
            ),
            sorted(str(index) for index in inspector.get_indexes(table)),
            sorted(str(key) for key in inspector.get_foreign_keys(table)),
        )
        for table in inspector.get_table_names()
    }


def make_agent(path, url, host, hypervisor, clock=None):
    """Return the agent of a host, and its database driver."""
    path.mkdir(exist_ok=True)
    agent = FakeAgent(path, {"hypervisor": hypervisor}, settings=f"host = {host}\n", clock=clock)
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=url.render_as_string(hide_password=False))
    agent.drivers.use("database", Database(agent))
    return agent, agent.driver("database")


def test_tasks_on_a_database_that_nova_wrote_leave_what_nova_can_read(tmp_path, cell):
    uuids = cell.write(INSTANCES)
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)

    hypervisor = FakeHypervisor([(uuids[name], name, state) for name, state in GUESTS.items()])
    hypervisor.stubborn.add(uuids["stubborn"])
    hypervisor.deaf.add(uuids["stubborn"])
    agent, database = make_agent(tmp_path, cell.url, "host1", hypervisor)

    # The models are Nova's tables, and syncing touches none of them.
    before = structure(engine)
    assert database.version().owner == "nova"
    assert "nothing to do" in database.sync()[0]
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE bw_usage_cache"))
    assert "added bw_usage_cache" in database.sync()[0]
    assert structure(engine) == before
    assert migrate.VERSION_TABLE not in before
    assert set(models.metadata.tables) <= set(before)
    database.check()

    builds = agent.build(CheckInstanceBuildTime)
    agent.set(builds.name, instance_build_timeout=600)
    assert [c.target for c in agent.run(builds).changes] == [uuids["stuck"]]
    power = agent.build(SyncPowerStates)
    run = agent.run(power)
    assert run.outcome == "partial"
    database.close()

    rows = {name: row for name, row in cell.read().items() if name in uuids}
    state = {
        name: (row["vm_state"], row["task_state"], row["power_state"]) for name, row in rows.items()
    }
    assert state == {
        "web": ("active", None, RUNNING),
        "shut-down": ("stopped", None, SHUTDOWN),
        "started": ("stopped", None, SHUTDOWN),
        "stubborn": ("stopped", None, RUNNING),
        "paused": ("active", None, PAUSED),
        "rebooting": ("active", "rebooting", RUNNING),
        "stuck": ("error", "spawning", 0),
        "young": ("building", None, 0),
        "elsewhere": ("active", None, RUNNING),
        "gone": ("building", None, 0),
    }
    assert rows["gone"]["deleted"]
    assert {row["flavor"] for row in rows.values()} == {"m1.tiny"}
    stop = {"event": "compute_stop_instance", "result": "Success", "host": "host1"}
    assert rows["started"]["actions"] == [
        {"action": "stop", "request_id": run.request_id, "message": None, "events": [stop]}
    ]
    (failed,) = rows["stubborn"]["actions"]
    assert (failed["message"], failed["events"][0]["result"]) == ("Error", "Error")
    (fault,) = rows["stubborn"]["faults"]
    assert (fault["code"], fault["host"]) == (500, "host1")
    assert "does not end" in fault["message"]
    untouched = ("web", "paused", "rebooting", "stuck", "young", "elsewhere", "gone")
    assert not any(rows[name]["actions"] or rows[name]["faults"] for name in untouched)
    agent.close()


# The time-outs: host3 is where instances came from, host4 where they are.

HOUR_AGO = "2026-11-23T11:00:00"
MOVED = {
    "status": "finished",
    "migration_type": "migration",
    "source_compute": "host3",
    "dest_compute": "host4",
    "source_node": "node3",
    "dest_node": "node4",
    "dest_compute_id": 4,
}
TIMED_OUT = [
    {
        "display_name": "moved",
        "host": "host4",
        "vm_state": "resized",
        "power_state": RUNNING,
        "migration": MOVED,
        "system_metadata": {"old_vm_state": "active"},
        "times": {"updated_at": HOUR_AGO},
    },
    {
        "display_name": "resized-here",
        "host": "host3",
        "vm_state": "resized",
        "power_state": SHUTDOWN,
        "migration": {**MOVED, "migration_type": "resize", "dest_compute": "host3"},
        "times": {"updated_at": HOUR_AGO},
    },
    {
        "display_name": "moved-and-broken",
        "host": "host4",
        "vm_state": "error",
        "power_state": RUNNING,
        "migration": MOVED,
        "times": {"updated_at": HOUR_AGO},
    },
    {
        "display_name": "rescued",
        "host": "host3",
        "vm_state": "rescued",
        "power_state": RUNNING,
        "times": {"launched_at": HOUR_AGO},
    },
    {
        "display_name": "rescued-for-good",
        "host": "host3",
        "vm_state": "rescued",
        "power_state": RUNNING,
        "times": {"launched_at": HOUR_AGO},
    },
    {
        "display_name": "shelved",
        "host": "host3",
        "vm_state": "shelved",
        "power_state": SHUTDOWN,
        "system_metadata": {"shelved_at": HOUR_AGO, "shelved_image_id": "an-image"},
    },
    {
        "display_name": "soft-deleted",
        "host": "host3",
        "vm_state": "soft-delete",
        "power_state": SHUTDOWN,
        "volume": "a-volume",
        "system_metadata": {"image_os_distro": "debian"},
        "times": {"deleted_at": HOUR_AGO},
    },
    {
        "display_name": "deleted-by-nova",
        "host": "host3",
        "vm_state": "deleted",
        "power_state": 0,
        "volume": "a-volume",
        "system_metadata": {"image_os_distro": "debian", "clean_attempts": "1"},
        "destroyed": True,
    },
    {
        "display_name": "left-over",
        "host": "host3",
        "vm_state": "deleted",
        "power_state": 0,
        "destroyed": True,
    },
    {
        "display_name": "went-down",
        "host": "host3",
        "vm_state": "active",
        "task_state": "rebooting",
        "power_state": RUNNING,
        "times": {"updated_at": HOUR_AGO},
    },
]


def hanging_on(engine, uuid):
    """Return by table what is deleted of the rows that hang on an instance."""
    inspector, found = sa.inspect(engine), {}
    with engine.connect() as connection:
        for name in inspector.get_table_names():
            columns = {column["name"] for column in inspector.get_columns(name)}
            owner = "uuid" if name in ("instances", "instance_id_mappings") else "instance_uuid"
            if owner not in columns or "deleted" not in columns:
                continue
            table = sa.Table(name, sa.MetaData(), autoload_with=engine)
            rows = connection.execute(sa.select(table).where(table.c[owner] == uuid)).mappings()
            found[name] = sorted(
                (row["deleted"] == row["id"], row["deleted_at"] is not None) for row in rows
            )
    return found


def test_time_outs_on_a_database_that_nova_wrote_leave_what_nova_can_read(tmp_path, cell):
    uuids = cell.write(TIMED_OUT)
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    here = {"rescued": RUNNING, "rescued-for-good": RUNNING, "went-down": SHUTDOWN}
    here |= dict.fromkeys(("moved", "shelved", "soft-deleted", "resized-here"), SHUTDOWN)
    source = FakeHypervisor([(uuids[name], name, state) for name, state in here.items()])
    there = {"moved": RUNNING, "moved-and-broken": RUNNING}
    destination = FakeHypervisor([(uuids[name], name, state) for name, state in there.items()])
    account = least_account(cell.url)
    # What Nova deletes is deleted at the real time; it is long ago then.
    later = datetime.datetime(2126, 11, 23)
    host3, database3 = make_agent(tmp_path / "host3", account, "host3", source, FakeClock(later))
    host4, database4 = make_agent(
        tmp_path / "host4", account, "host4", destination, FakeClock(later)
    )
    files = tmp_path / "host3" / "instances"
    for name in ("moved_resize", "resized-here", "resized-here_resize", "rescued",
                 "rescued-for-good", "shelved", "soft-deleted"):  # fmt: skip
        instance, _, suffix = name.partition("_")
        directory = files / (uuids[instance] + (suffix and f"_{suffix}"))
        directory.mkdir(parents=True)
        (directory / "disk").write_bytes(b"disk")
        os.utime(directory / "disk", (0, 0))  # before it was shelved
    rescue_disk = tmp_path / "disk.rescue"
    qemu_img("create", "-f", "qcow2", rescue_disk, "1M")
    source.define_rescue(uuids["rescued-for-good"], str(rescue_disk))
    novas = (
        "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"
    )
    source.states[uuids["left-over"]] = RUNNING
    source.names[uuids["left-over"]] = "instance-0000002a"
    text = source.definition(uuids["left-over"])
    source.definitions[uuids["left-over"]] = text.replace("<memory", f"{novas}<memory", 1)
    before = source.definition(uuids["rescued"])
    (files / uuids["rescued"] / "unrescue.xml").write_text(before)
    source.define_rescue(uuids["rescued"], str(rescue_disk))

    for agent in (host4, host3):
        for factory, options in (
            (PollUnconfirmedResizes, {"resize_confirm_window": 60}),
            (PollRescuedInstances, {"rescue_timeout": 60}),
            (PollShelvedInstances, {"shelved_offload_time": 60}),
            (PollRebootingInstances, {"reboot_timeout": 60}),
            (ReclaimQueuedDeletes, {"reclaim_instance_interval": 60}),
            (CleanupRunningDeletedInstances, {"running_deleted_instance_action": "reap"}),
        ):
            task = agent.build(factory)
            agent.set(task.name, **options)
            agent.run(task)
            agent.clock.sleep(60)
            agent.run(task)
            assert not agent.journal.runs(task.name, 1)[0]["error"]
    database3.close()
    database4.close()

    rows = {name: row for name, row in cell.read().items() if name in uuids}
    state = {
        name: (row["vm_state"], row["task_state"], row["power_state"], row["host"])
        for name, row in rows.items()
    }
    assert state == {
        "moved": ("active", None, RUNNING, "host4"),
        "resized-here": ("stopped", None, SHUTDOWN, "host3"),
        "moved-and-broken": ("error", None, RUNNING, "host4"),
        "rescued": ("active", None, RUNNING, "host3"),
        "rescued-for-good": ("error", None, RUNNING, "host3"),
        "shelved": ("shelved_offloaded", None, SHUTDOWN, None),
        "soft-deleted": ("deleted", None, 0, "host3"),
        "deleted-by-nova": ("deleted", None, 0, "host3"),
        "left-over": ("deleted", None, 0, "host3"),
        "went-down": ("active", None, RUNNING, "host3"),
    }
    assert {name: row["migrations"] for name, row in rows.items() if row["migrations"]} == {
        "moved": ["confirmed"],
        "resized-here": ["confirmed"],
        "moved-and-broken": ["error"],
    }
    for name in ("moved", "resized-here"):
        kept = (rows[name]["flavor"], rows[name]["old_flavor"], rows[name]["new_flavor"])
        assert kept == ("m1.small", None, None)
        assert "old_vm_state" not in rows[name]["system_metadata"]
    ended = {
        name: [(a["action"], a["message"], a["events"][0]["result"]) for a in row["actions"]]
        for name, row in rows.items()
    }
    assert ended == {
        "moved": [("confirmResize", None, "Success")],
        "resized-here": [("confirmResize", None, "Success")],
        "moved-and-broken": [],
        "rescued": [("unrescue", None, "Success")],
        "rescued-for-good": [("unrescue", "Error", "Error")],
        "shelved": [("shelveOffload", None, "Success")],
        "soft-deleted": [("delete", None, "Success")],
        "deleted-by-nova": [],
        "left-over": [],
        "went-down": [("reboot", None, "Success")],
    }
    (fault,) = rows["rescued-for-good"]["faults"]
    assert "unrescue.xml is missing" in fault["message"]
    assert sum(len(row["faults"]) for row in rows.values()) == 1
    assert sorted(path.name for path in files.iterdir()) == sorted(
        uuids[name] for name in ("resized-here", "rescued", "rescued-for-good")
    )
    assert uuids["left-over"] not in source.states
    assert rows["left-over"]["cleaned"]
    # What is deleted with an instance is what Nova itself deletes with one.
    assert rows["soft-deleted"]["deleted"]
    assert rows["soft-deleted"]["volumes"] == []
    ours, novas = (hanging_on(engine, uuids[n]) for n in ("soft-deleted", "deleted-by-nova"))
    for actions in ("instance_actions",):
        assert ours.pop(actions) == [(False, False)]
        assert novas.pop(actions) == []
    assert ours == novas
    host3.close()
    host4.close()


# A deletion and confirmations, beside what Nova's own objects leave: host7 to host8.


OWNERS = {"instances": "uuid", "instance_id_mappings": "uuid", "tags": "resource_id"}


def tables_of_instances(engine):
    """Return every table that names an instance, and its column that does."""
    inspector = sa.inspect(engine)
    found = {}
    for name in inspector.get_table_names():
        owner = OWNERS.get(name, "instance_uuid")
        is_live = not name.startswith("shadow_")
        if is_live and owner in {column["name"] for column in inspector.get_columns(name)}:
            found[name] = owner
    return found


def image_of(engine, tables, uuid):
    """Return all rows of an instance and of what hangs on it, by table, so that two compare.

    Times and what is unique to a row are told as such.
    """
    found = {}
    with engine.connect() as connection:
        for name, owner in tables.items():
            query = sa.text(f"SELECT * FROM {name} WHERE {owner} = :uuid")
            rows = connection.execute(query, {"uuid": uuid}).mappings().all()
            found[name] = [
                {column: told(column, value, row) for column, value in row.items()}
                for row in sorted(rows, key=lambda row: row.get("id", 0))
            ]
    return found


def told(column, value, row):
    if column.endswith(("_at", "_time")) and value is not None:
        return "a time"
    if column == "deleted" and value:
        return "its id" if value == row["id"] else value
    unique = ("id", "uuid", "instance_uuid", "resource_id", "display_name", "hostname", "address",
              "security_group_id", "token_hash", "migration_context")  # fmt: skip
    return "unique" if column in unique and value is not None else value


#: What is of the second in which each row was made.
OWN_TIMES = {("console_auth_tokens", "expires")}


def differences(ours, novas):
    """Return by table and column what differs, ours and Nova's, in any row."""
    found = {}
    for name in ours.keys() | novas.keys():
        assert len(ours[name]) == len(novas[name]), name
        for mine, theirs in zip(ours[name], novas[name], strict=True):
            for column, value in mine.items():
                if value != theirs[column] and (name, column) not in OWN_TIMES:
                    found[name, column] = (value, theirs[column])
    return found


def test_a_deletion_leaves_every_column_as_novas_own_does(tmp_path, cell):
    alike = {
        "host": "host7",
        "vm_state": "soft-delete",
        "power_state": SHUTDOWN,
        "hostname": "guest",
        "volume": "a-volume",
        "migration": {**MOVED, "status": "confirmed", "dest_compute": "host7"},
        "system_metadata": {"image_os_distro": "debian"},
        "has_all": True,
        "times": {"deleted_at": HOUR_AGO},
    }
    names = ("deleted by us", "deleted by Nova", "left alone")
    uuids = cell.write([{"display_name": name, **alike} for name in names])
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    tables = tables_of_instances(engine)
    before = {name: image_of(engine, tables, uuids[name]) for name in names}
    assert differences(before[names[0]], before[names[1]]) == {}
    hanging = {name for name, rows in before[names[0]].items() if rows}
    assert hanging == {
        "instances", "instance_info_caches", "instance_extra", "instance_metadata",
        "instance_system_metadata", "instance_faults", "block_device_mapping", "migrations",
        "virtual_interfaces", "security_group_instance_association", "instance_id_mappings",
        "tags", "console_auth_tokens",
    }  # fmt: skip

    hypervisor = FakeHypervisor([(uuids[name], name, SHUTDOWN) for name in names])
    agent, database = make_agent(tmp_path, least_account(cell.url, "deleting"), "host7", hypervisor)
    agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
    (tmp_path / "instances" / uuids[names[0]]).mkdir(parents=True)
    used = Used(database)
    (row,) = database.instances_by_uuid([uuids[names[0]]])
    assert DeletionOperations(agent).delete([row], "req-delete") == {row.uuid: None}
    of_nova = {table: set(words) for table, words in grants.NOVA_AGENT.items()}
    assert {t: used.privileges.get(t) for t in of_nova} == of_nova
    cell.destroy([uuids[names[1]]])
    after = {name: image_of(engine, tables, uuids[name]) for name in names}
    # That is what Nova's API would have written.
    assert len(after[names[0]].pop("instance_actions")) == 1
    assert after[names[1]].pop("instance_actions") == []
    assert differences(after[names[0]], after[names[1]]) == {}
    assert after[names[2]] == before[names[2]]

    rows = cell.read()
    ours, novas = rows[names[0]], rows[names[1]]
    (action,) = ours.pop("actions")
    assert (action["action"], action["events"][0]["result"]) == ("delete", "Success")
    assert novas.pop("actions") == []
    assert ours == novas
    assert ours["deleted"]
    assert ours["system_metadata"]["image_os_distro"] == "debian"
    agent.close()


def test_confirmations_are_handed_over_and_a_failed_one_is_on_record(tmp_path, cell):
    moved = {**MOVED, "source_compute": "host7", "dest_compute": "host8"}
    resized = {"host": "host8", "vm_state": "resized", "power_state": RUNNING, "migration": moved}
    uuids = cell.write(
        [
            {"display_name": "went well", **resized},
            {"display_name": "runs twice", **resized},
            {"display_name": "is reverted", **resized, "task_state": "resize_reverting"},
            {
                "display_name": "never left",
                **resized,
                "host": "host7",
                "power_state": SHUTDOWN,
                "migration": {**moved, "dest_compute": "host7", "migration_type": "resize"},
            },
        ]
    )
    states = {"went well": SHUTDOWN, "runs twice": RUNNING, "never left": SHUTDOWN}
    source = FakeHypervisor([(uuids[name], name, state) for name, state in states.items()])
    account = least_account(cell.url, "confirming")
    host7, database7 = make_agent(tmp_path / "host7", account, "host7", source)
    host8, database8 = make_agent(tmp_path / "host8", account, "host8", FakeHypervisor())
    for agent in (host7, host8):
        agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
    (tmp_path / "host7" / "instances").mkdir()
    instances = {row.uuid: row for row in database8.instances_by_uuid(uuids.values())}
    before = cell.read()
    assert before["went well"]["has_context"]

    finished = database8.migrations_of(list(instances), "finished")
    there = [row for row in finished if row.dest_compute == "host8"]
    handed = ResizeOperations(host8).confirm(there, instances, "req-there")
    assert handed == {
        uuids["went well"]: None, uuids["runs twice"]: None, uuids["is reverted"]: "raced",
    }  # fmt: skip
    status = {name: row["migrations"] for name, row in cell.read().items() if name in uuids}
    assert status == {
        "went well": ["confirming"], "runs twice": ["confirming"],
        "is reverted": ["finished"], "never left": ["finished"],
    }  # fmt: skip

    operations = ResizeOperations(host7)
    confirming, _ = database7.waiting_migrations("host7", datetime.datetime.max)
    done = operations.carry_on_confirming(confirming, instances)
    assert done[uuids["went well"]] is None
    assert isinstance(done[uuids["runs twice"]], HypervisorError)
    here = [row for row in finished if row.dest_compute == "host7"]
    assert operations.confirm(here, instances, "req-here") == {uuids["never left"]: None}

    rows = {name: row for name, row in cell.read().items() if name in uuids}
    left = {
        name: (row["vm_state"], row["task_state"], row["migrations"], row["has_context"])
        for name, row in rows.items()
    }
    assert left == {
        "went well": ("active", None, ["confirmed"], False),
        "runs twice": ("error", None, ["error"], True),
        "is reverted": ("resized", "resize_reverting", ["finished"], True),
        "never left": ("stopped", None, ["confirmed"], False),
    }
    assert {
        name: (row["flavor"], row["old_flavor"], row["new_flavor"]) for name, row in rows.items()
    } == {
        "went well": ("m1.small", None, None),
        "runs twice": ("m1.small", "m1.tiny", "m1.small"),
        "is reverted": ("m1.small", "m1.tiny", "m1.small"),
        "never left": ("m1.small", None, None),
    }
    event = {"event": "compute_confirm_resize", "host": "host7"}
    tried = {"action": "confirmResize", "message": None}
    assert {name: row["actions"] for name, row in rows.items()} == {
        "went well": [
            {**tried, "request_id": "req-there", "events": [{**event, "result": "Success"}]}
        ],
        "runs twice": [
            {**tried, "request_id": "req-there", "message": "Error",
             "events": [{**event, "result": "Error"}]}
        ],
        "is reverted": [],
        "never left": [
            {**tried, "request_id": "req-here", "events": [{**event, "result": "Success"}]}
        ],
    }  # fmt: skip
    (fault,) = rows["runs twice"]["faults"]
    assert (fault["code"], fault["host"]) == (500, "host7")
    assert "its domain runs here" in fault["message"]
    assert sum(len(row["faults"]) for row in rows.values()) == 1
    assert source.states == {uuids["runs twice"]: RUNNING, uuids["never left"]: SHUTDOWN}
    host7.close()
    host8.close()


def test_a_network_that_neutron_tells_is_read_by_nova(tmp_path, cell):
    uuids = cell.write(
        [{"display_name": "networked", "host": "host6", "vm_state": "active", "power_state": 1}]
    )
    server = NeutronServer()
    moved = port("port-1", uuids["networked"], "fa:16:3e:00:00:01", "10.0.0.11")
    server.ports.append({**moved, "binding:host_id": "host2"})
    server.floatingips.append(
        {"port_id": "port-1", "fixed_ip_address": "10.0.0.11", "floating_ip_address": "203.0.113.5"}
    )
    settings = f"host = host6\n{server.settings}[network]\ndriver = neutron\n"
    agent = FakeAgent(tmp_path, {"hypervisor": FakeHypervisor()}, settings=settings)
    agent.conf.register_opts(Database.options, group="database")
    url = least_account(cell.url, "networking").render_as_string(hide_password=False)
    agent.set("database", connection=url)
    agent.drivers.use("database", Database(agent))
    task = agent.build(HealInstanceInfoCache)
    run = agent.run(task)
    assert [(c.kind, c.outcome) for c in run.changes] == [
        ("rebind", "done"),
        ("network_info", "done"),
    ]
    assert server.ports[-1]["binding:host_id"] == "host6"
    found = cell.read()["networked"]
    assert found["addresses"] == [["fa:16:3e:00:00:01", "10.0.0.11", ["203.0.113.5"]]]
    assert agent.run(task).changes == []
    agent.close()
    server.close()
