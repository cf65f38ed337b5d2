# SPDX-License-Identifier: Apache-2.0
"""The proof on real Nova: its cell database, written and read with its own objects."""

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import migrate, models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.tasks.check_instance_build_time import CheckInstanceBuildTime
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from tests.fake_agent import FakeAgent
from tests.fakes import FakeHypervisor
from tests.functional import servers
from tests.functional.nova_cell import NovaCell

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
        "created_at": "2026-11-23T10:00:00",
    },
    {
        "display_name": "young",
        "vm_state": "building",
        "power_state": 0,
        "created_at": "2026-11-23T11:59:50",
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


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield sa.make_url(f"sqlite:///{tmp_path}/cell.sqlite")
        return
    with getattr(servers, request.param)() as server:
        yield servers.new_database(server, "nova_cell")


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


def test_tasks_on_a_database_that_nova_wrote_leave_what_nova_can_read(tmp_path, url):
    cell = NovaCell(tmp_path, url)
    uuids = cell.write(INSTANCES)
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    hypervisor = FakeHypervisor([(uuids[name], name, state) for name, state in GUESTS.items()])
    hypervisor.stubborn.add(uuids["stubborn"])
    hypervisor.deaf.add(uuids["stubborn"])
    agent = FakeAgent(tmp_path, {"hypervisor": hypervisor})
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=url.render_as_string(hide_password=False))
    database = Database(agent)
    agent.drivers.use("database", database)

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

    rows = cell.read()
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
