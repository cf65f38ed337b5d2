# SPDX-License-Identifier: Apache-2.0
"""Usage audits beside real Nova's: what both tell of the same rows, and whose row stops whom."""

import datetime
import json
import logging

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute.audit_periods import AuditPeriod
from cepheid_plugins.database import models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.tasks.instance_usage_audit import InstanceUsageAudit
from tests.fake_agent import FakeAgent, FakeClock
from tests.fakes import FakeNotifier
from tests.functional import servers
from tests.functional.inventories import rows
from tests.functional.nova_cell import NovaCell

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

SCRIPT = "usage_audit.py"
NOW = datetime.datetime(2026, 11, 23, 12)
PERIOD = AuditPeriod(datetime.datetime(2026, 10, 1), datetime.datetime(2026, 11, 1))

#: Of both services.
NOTIFICATIONS = "[notifications]\nnotification_format = both\nbdms_in_notifications = true\n"
NOVA = (
    "instance_usage_audit = true\ntransport_url = fake://\n"
    f"[oslo_messaging_notifications]\ndriver = test\n{NOTIFICATIONS}"
)
OURS = f"[oslo_messaging_notifications]\ndriver = log\n{NOTIFICATIONS}"

FLAVOR = {
    "id": 7, "flavorid": "42", "name": "m1.tiny", "memory_mb": 512, "vcpus": 3, "root_gb": 10,
    "ephemeral_gb": 2, "swap": 64, "rxtx_factor": 1.5, "vcpu_weight": 5, "disabled": False,
    "is_public": True, "extra_specs": {"hw:cpu_policy": "shared"}, "projects": ["p"],
    "description": None, "created_at": None, "updated_at": None, "deleted_at": None,
    "deleted": False,
}  # fmt: skip


def vif(number, addresses, label="private"):
    ips = [
        {"address": address, "type": "fixed", "version": 6 if ":" in address else 4, "meta": {},
         "floating_ips": [{"address": "203.0.113.5", "type": "floating", "version": 4, "meta": {}}]}
        for address in addresses
    ]  # fmt: skip
    subnet = {"cidr": "10.0.0.0/16", "version": 4, "meta": {}, "routes": [], "dns": [],
              "gateway": {"address": "10.0.0.1", "type": "gateway", "version": 4, "meta": {}},
              "ips": ips}  # fmt: skip
    network = {"id": "22d7ffe1-4a45-5628-b940-41655bfe030e", "bridge": "br-int", "label": label,
               "meta": {"injected": False, "mtu": 1450}, "subnets": [subnet]}  # fmt: skip
    port = f"7da997bc-21b1-4e18-bcf6-bdc2dd319c4{number}"
    return {
        "id": port, "address": f"fa:16:3e:00:00:0{number}", "type": "ovs", "vnic_type": "normal",
        "devname": f"tap{port[:11]}", "ovs_interfaceid": port, "active": True, "details": {},
        "profile": {}, "qbh_params": None, "qbg_params": None, "preserve_on_delete": False,
        "delegate_create": True, "meta": {"dns": "a name"}, "network": network,
    }  # fmt: skip


def volume(number, **columns):
    return {
        "source_type": "volume", "destination_type": "volume", "boot_index": None, "tag": None,
        "volume_id": f"a07f71dc-8151-4e7d-a0cc-cd24a3f1111{number}", "device_name": "/dev/vdb",
        "delete_on_termination": False, **columns,
    }  # fmt: skip


LOCAL = {"source_type": "image", "destination_type": "local", "boot_index": 0}


def instance(name, destroyed=False, times=(), **columns):
    return {
        "columns": {
            "display_name": name, "host": "host1", "node": "node1", "compute_id": 1,
            "user_id": "u", "project_id": "p", "vm_state": "active", "power_state": 1,
            "image_ref": "155d900f-4e14-4e4c-a73d-069cbf4541e6", "reservation_id": "r-1",
            "hostname": name, "instance_type_id": 7, "memory_mb": 512, "vcpus": 3, "root_gb": 10,
            "ephemeral_gb": 2, "locked": False, **columns,
        },
        "flavor": FLAVOR,
        "metadata": {"role": "web"},
        "system_metadata": {"image_os_distro": "debian", "owner_user_name": "x"},
        "network_info": [],
        "devices": [LOCAL],
        "destroyed": destroyed,
        "times": {"launched_at": "2026-10-05T10:11:12.25", **dict(times)},
    }  # fmt: skip


#: Everything that a payload has a place for, once with a value and once without.
RICH = instance(
    "rich", display_description="all there is", availability_zone="nova", os_type="linux",
    architecture="x86_64", key_name="key", kernel_id="kernel", ramdisk_id="ramdisk", progress=42,
    access_ip_v4="192.0.2.1", access_ip_v6="2001:db8::1", auto_disk_config=True, locked=True,
    task_state="powering-off", times={"created_at": "2026-09-30T01:02:03.5"},
) | {
    "system_metadata": {"image_os_distro": "debian", "image_min_ram": "0", "locked_reason": "r"},
    "network_info": [vif(1, ["10.0.0.3", "fd00::3"]), vif(2, ["10.1.0.3"], "public")],
    "devices": [LOCAL, volume(1, tag="data", boot_index=1, delete_on_termination=True), volume(2)],
}  # fmt: skip
PLAIN = instance("plain", project_id="o", image_ref="", power_state=4, vm_state="stopped")
DELETED = instance(
    "deleted", destroyed=True, vm_state="deleted", power_state=0,
    times={"terminated_at": "2026-10-20T00:00:00.75"},
) | {"devices": [volume(3)], "network_info": [vif(3, ["10.0.0.4"])]}  # fmt: skip
NOT_IN_THE_PERIOD = [
    instance("ended", times={"terminated_at": "2026-10-01T00:00:00"}),
    instance("later", times={"launched_at": "2026-11-01T00:00:00"}),
    instance("elsewhere", host="host9"),
]


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def cell(request, tmp_path_factory):
    """A cell database that Nova has made; each test has a host of its own in it."""
    path = tmp_path_factory.mktemp("cell")
    if request.param == "sqlite":
        yield NovaCell(path, sa.make_url(f"sqlite:///{path}/cell.sqlite"), NOVA)
        return
    with getattr(servers, request.param)() as server:
        yield NovaCell(path, servers.new_database(server, "nova_cell"), NOVA)


@pytest.fixture
def engine(cell):
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def script(cell, command, **given):
    answer = cell.run(*cell.command(SCRIPT, command), given=json.dumps(given))
    return json.loads(answer)


def write(cell, *instances):
    return json.loads(cell.run(*cell.command(SCRIPT, "write"), given=json.dumps(instances)))


def nova_audits(cell, host="host1"):
    """Let Nova audit; return its notifications by event and instance, and its records."""
    done = script(cell, "audit", host=host, now=NOW.isoformat())
    return {by(one["event_type"], one["payload"]): one for one in done["sent"]}, done["logs"]


def by(event, payload):
    data = payload.get("nova_object.data") or payload
    return event, data.get("uuid") or data["instance_id"]


@pytest.fixture
def we_audit(tmp_path, cell):
    """Audit as agents of hosts; give the notifications by event and instance, and the run."""
    agents = []

    def audit(host="host1", after=datetime.timedelta()):
        path = tmp_path / str(len(agents))
        path.mkdir()
        notifier = FakeNotifier()
        agent = FakeAgent(path, {"notifications": notifier}, f"host = {host}\n{OURS}",
                          FakeClock(NOW + after))  # fmt: skip
        agents.append(agent)
        agent.conf.register_opts(Database.options, group="database")
        agent.set("database", connection=cell.url.render_as_string(hide_password=False))
        agent.drivers.use("database", Database(agent))
        run = agent.run(agent.build(InstanceUsageAudit))
        agent.driver("database").close()
        # As it goes over the wire.
        payloads = [(one, json.loads(json.dumps(one.payload))) for one in notifier.taken.values()]
        return {by(one.event_type, payload): payload for one, payload in payloads}, run

    yield audit
    for agent in agents:
        agent.close()


def test_both_tell_the_same_of_the_same_rows_field_by_field(cell, engine, we_audit):
    uuids = write(cell, RICH, PLAIN, DELETED, *NOT_IN_THE_PERIOD)
    novas, _ = nova_audits(cell)
    assert {uuid for _, uuid in novas} == {uuids[name] for name in ("rich", "plain", "deleted")}
    with engine.begin() as connection:
        connection.execute(sa.delete(models.task_log))
    ours, run = we_audit()
    assert (run.outcome, run.counters["notifications"]) == ("ok", 6)
    # In Nova's order, each in both formats.
    assert list(ours) == list(novas)
    for key, theirs in novas.items():
        event, uuid = key
        expected, found = theirs["payload"], dict(ours[key])
        if event == "compute.instance.exists":
            assert found.pop("bandwidth") == {}  # Nova's has none since 25.0
        if uuid == uuids["deleted"]:
            # Of a deleted instance Nova does not know the metadata.
            data = expected.get("nova_object.data") or expected
            assert data["metadata"] == {}
            data["metadata"] = {"role": "web"}
        assert found == expected, key


def test_networks_that_cannot_be_read_end_novas_audit_and_leave_none_out_of_ours(
    cell, engine, we_audit
):
    uuids = write(cell, instance("broken", host="host6"), instance("whole", host="host6"))
    with engine.begin() as connection:
        table = models.instance_info_caches
        broken = table.c.instance_uuid == uuids["broken"]
        connection.execute(sa.update(table).where(broken).values(network_info="[{"))
    with pytest.raises(AssertionError, match="JSONDecodeError"):
        nova_audits(cell, "host6")
    ours, run = we_audit("host6")
    assert run.outcome == "ok"
    assert {uuid for _, uuid in ours} == set(uuids.values())
    (log,) = [row for row in rows(engine, models.task_log) if row.host == "host6"]
    assert (log.state, log.task_items, log.errors) == ("DONE", 2, 0)


def test_what_one_has_audited_the_other_takes_for_done(cell, we_audit):
    write(cell, instance("ours", host="host2"), instance("novas", host="host3"))
    ours, _ = we_audit("host2")
    assert len(ours) == 2
    novas, (log,) = nova_audits(cell, "host2")
    assert novas == {}
    assert (log["state"], log["task_items"], log["errors"]) == ("DONE", 1, 0)
    assert log["message"].startswith("Instance usage audit ran for host host2, 1 instances in ")

    novas, (log,) = nova_audits(cell, "host3")
    assert len(novas) == 2
    assert log["message"].startswith("Instance usage audit ran for host host3, 1 instances in ")
    ours, run = we_audit("host3")
    assert (ours, run.outcome, run.changes) == ({}, "ok", [])


def test_an_audit_that_goes_on_stops_the_other(cell, engine, we_audit, caplog):
    write(cell, instance("begun-here", host="host4"), instance("begun-there", host="host5"))
    we_audit("host4")
    with engine.begin() as connection:
        table = models.task_log
        connection.execute(sa.update(table).where(table.c.host == "host4").values(state="RUNNING"))
    novas, (log,) = nova_audits(cell, "host4")
    assert (novas, log["state"]) == ({}, "RUNNING")

    begin, end = (time.isoformat() for time in PERIOD)
    script(cell, "begin", host="host5", begin=begin, end=end)
    ours, run = we_audit("host5")
    assert (ours, run.changes) == ({}, [])
    # It was begun at the tests' time, which is not the agent's.
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.host == "host5").values(created_at=NOW))
    caplog.clear()
    for hours, is_named in ((0.5, False), (2, True)):
        ours, run = we_audit("host5", datetime.timedelta(hours=hours))
        assert (ours, run.changes) == ({}, [])
        named = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert bool(named) == is_named
