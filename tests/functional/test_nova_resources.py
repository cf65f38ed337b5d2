# SPDX-License-Identifier: Apache-2.0
"""The record of a host in real Nova's cell database, written and read with Nova's own objects."""

import json
import os
import uuid

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute import opts
from cepheid_plugins.database import models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.tasks.update_available_resource import UpdateAvailableResource
from tests.fake_agent import FakeAgent
from tests.fakes import RESOURCES, FakeHypervisor
from tests.functional import servers
from tests.functional.nova_cell import NovaCell

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

SCRIPT = "compute_node.py"

TINY = {"id": 1, "memory_mb": 512, "vcpus": 1, "root_gb": 1, "swap": 0}
BIG = {"id": 2, "memory_mb": 2048, "vcpus": 4, "root_gb": 20, "swap": 1024}

RECORD = {
    "host": "host1",
    "hypervisor_hostname": "node1",
    "hypervisor_type": "QEMU",
    "hypervisor_version": 7000000,
    "host_ip": "10.0.0.7",
    "vcpus": 1,
    "memory_mb": 1,
    "local_gb": 1,
    "vcpus_used": 0,
    "memory_mb_used": 0,
    "local_gb_used": 0,
    "free_ram_mb": 1,
    "free_disk_gb": 1,
    "disk_available_least": 1,
    "current_workload": 0,
    "running_vms": 0,
    "cpu_info": "{}",
    "cpu_allocation_ratio": 3.3,
    "ram_allocation_ratio": 1.5,
    "disk_allocation_ratio": 1.0,
    "stats": {"failed_builds": "2", "uptime": "up 3 days"},
}


def on(host, name, vm_state="active", task_state=None):
    return {
        "display_name": name,
        "host": host,
        "node": "node1" if host == "host1" else "node2",
        "vm_state": vm_state,
        "task_state": task_state,
    }


def resize(source, dest, stale=False):
    nodes = {"host1": "node1", "host2": "node2"}
    return {
        "migration_type": "resize",
        "status": "finished",
        "source_compute": source,
        "source_node": nodes[source],
        "dest_compute": dest,
        "dest_node": nodes[dest],
        "dest_compute_id": 1 if dest == "host1" else 2,
        "old_instance_type_id": 1,
        "new_instance_type_id": 2,
        "stale": stale,
    }


#: Flavors (present, old, new), columns, whether the root disk is a volume, the migration.
INSTANCES = [
    ([TINY], on("host1", "plain"), False, None),
    ([BIG], on("host1", "off", "stopped"), True, None),
    ([BIG], on("host1", "offloaded", "shelved_offloaded"), False, None),
    ([BIG, TINY, BIG], on("host2", "left", "resized"), False, resize("host1", "host2")),
    ([BIG, TINY, BIG], on("host2", "stale", "resized"), False, resize("host1", "host2", True)),
    ([BIG], on("host2", "elsewhere"), False, None),
]


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def cell(request, tmp_path):
    if request.param == "sqlite":
        yield NovaCell(tmp_path, sa.make_url(f"sqlite:///{tmp_path}/cell.sqlite"))
        return
    with getattr(servers, request.param)() as server:
        yield NovaCell(tmp_path, servers.new_database(server, "nova_cell"))


@pytest.fixture
def still_disk(tmp_path, monkeypatch):
    """Let the disk be as full as it is now, whatever tests beside this one write meanwhile."""
    now = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: now)


@pytest.fixture
def agent(tmp_path, cell, still_disk):
    (tmp_path / "instances").mkdir()
    agent = FakeAgent(tmp_path, {"hypervisor": FakeHypervisor()})
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=cell.url.render_as_string(hide_password=False))
    for group, options in opts.list_opts():
        agent.conf.register_opts(options, group=group)
    database = Database(agent)
    agent.drivers.use("database", database)
    database.sync()
    yield agent
    agent.close()


def script(cell, command, given=""):
    return json.loads(cell.run(*cell.command(SCRIPT, command), given=given))


def test_nova_reads_our_record_back_and_there_is_never_a_second(cell, agent):
    uuids = script(cell, "write", json.dumps({"record": RECORD, "instances": INSTANCES}))
    (before,) = script(cell, "read")["records"]
    task = agent.build(UpdateAvailableResource)
    run = agent.run(task)
    assert [(c.kind, c.outcome) for c in run.changes] == [
        ("migration_status", "done"),
        ("compute_node", "done"),
    ]
    found = script(cell, "read")
    (record,) = found["records"]

    # plain: TINY; off: BIG without its root disk; left: TINY, its old flavor.
    assert (record["vcpus_used"], record["memory_mb_used"]) == (1 + 4 + 1, 512 + 512 + 2048 + 512)
    assert record["local_gb_used"] == 1 + 1 + 1
    assert (record["running_vms"], record["current_workload"]) == (2, 0)
    assert (record["vcpus"], record["memory_mb"]) == (len(RESOURCES.cpus), RESOURCES.memory_mib)
    assert record["free_ram_mb"] == record["memory_mb"] - record["memory_mb_used"]
    assert record["hypervisor_version"] == RESOURCES.hypervisor_version
    assert json.loads(record["cpu_info"]) == RESOURCES.cpu_info
    assert record["supported"] == [list(triple) for triple in RESOURCES.supported_instances]
    assert record["stats"] == {
        "failed_builds": "2",
        "io_workload": "0",
        "num_instances": "2",
        "num_os_type_None": "2",
        f"num_proj_{'a' * 32}": "2",
        "num_task_None": "2",
        "num_vm_active": "1",
        "num_vm_stopped": "1",
    }
    # What is Nova's stays: whose it is, its ratios, and that the cell knows it.
    kept = ("id", "uuid", "host", "host_ip", "mapped")
    assert {name: record[name] for name in kept} == {name: before[name] for name in kept}
    assert record["mapped"] == 1
    for kind in ("cpu", "ram", "disk"):
        name = f"{kind}_allocation_ratio"
        assert record[name] == pytest.approx(RECORD[name], rel=1e-5)
    assert found["statuses"] == {uuids["left"]: "finished", uuids["stale"]: "error"}

    # Rows that went through another server's types are still equal.
    assert agent.run(task).changes == []


def test_without_novas_record_none_is_made(cell, agent):
    task = agent.build(UpdateAvailableResource)
    script(cell, "write", json.dumps({"record": None, "instances": INSTANCES[:1]}))
    assert agent.run(task).changes == []
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert list(connection.execute(sa.select(models.compute_nodes))) == []


def test_a_deleted_record_of_the_same_name_is_left_as_it_is(cell, agent):
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    script(cell, "write", json.dumps({"record": RECORD, "instances": []}))
    columns = {c.name: c for c in models.compute_nodes.columns}
    with engine.begin() as connection:
        connection.execute(sa.update(models.compute_nodes).values(deleted=columns["id"]))
    script(cell, "write", json.dumps({"record": RECORD, "instances": []}))
    agent.run(agent.build(UpdateAvailableResource))
    with engine.connect() as connection:
        rows = list(connection.execute(sa.select(models.compute_nodes).order_by(columns["id"])))
    assert [(bool(row.deleted), row.vcpus) for row in rows] == [
        (True, RECORD["vcpus"]),
        (False, len(RESOURCES.cpus)),
    ]
    assert all(uuid.UUID(row.uuid) for row in rows)
