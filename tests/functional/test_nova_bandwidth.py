# SPDX-License-Identifier: Apache-2.0
"""poll_bandwidth_usage on cell databases of real Nova, which has the table and uses it no more."""

import datetime

import pytest
import sqlalchemy as sa

from cepheid_plugins.bandwidth.driver import InterfaceCounters, MeteredInterface
from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.database import models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.hypervisor.driver import NetworkCounters
from cepheid_plugins.network import network_info
from cepheid_plugins.tasks.poll_bandwidth_usage import PollBandwidthUsage
from tests.fake_agent import FakeAgent
from tests.fakes import FakeHypervisor, FakeMeter
from tests.functional.nova_cell import least_account

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

MACS = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02"]
OCTOBER, NOVEMBER = datetime.datetime(2026, 10, 1), datetime.datetime(2026, 11, 1)


def make_agent(path, url, host, hypervisor):
    """Return the agent of a host."""
    path.mkdir(exist_ok=True)
    agent = FakeAgent(path, {"hypervisor": hypervisor}, settings=f"host = {host}\n")
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=url.render_as_string(hide_password=False))
    agent.drivers.use("database", Database(agent))
    agent.drivers.use("bandwidth", LibvirtMeter(agent))
    return agent


def of_host(host, *names):
    """Describe instances with two interfaces each, for Nova to make."""
    vifs = [
        network_info.vif(
            f"port-{mac[-2:]}", mac, type="ovs", devname=f"tap-{mac[-2:]}",
            network=network_info.network("net-1", "private", "br-int", [], {}),
        )
        for mac in MACS
    ]  # fmt: skip
    common = {"vm_state": "active", "power_state": 1, "host": host, "vifs": vifs}
    return [{"display_name": name, **common} for name in names]


def test_traffic_is_counted_in_novas_table_with_the_printed_grants(tmp_path, cell):
    uuids = cell.write(of_host("host11", "old", "new"))
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        table = sa.Table("bw_usage_cache", sa.MetaData(), autoload_with=connection)
        assert set(table.columns.keys()) == set(models.bw_usage_cache.columns.keys())
        # As Nova's own task left it, when there was one.
        connection.execute(
            sa.insert(table).values(
                created_at=OCTOBER, updated_at=None, deleted_at=None, deleted=0,
                uuid=uuids["old"], mac=MACS[0], start_period=OCTOBER, last_refreshed=OCTOBER,
                bw_in=10**12, bw_out=5, last_ctr_in=2**40, last_ctr_out=70,
            )
        )  # fmt: skip
    hypervisor = FakeHypervisor([(uuids[name], name, 1) for name in ("old", "new")])
    agent = make_agent(tmp_path, least_account(cell.url, "metering"), "host11", hypervisor)
    task = agent.build(PollBandwidthUsage)
    for received, sent in ((2**40 + 7, 60), (2**40 + 8, 61)):
        for uuid in uuids.values():
            hypervisor.traffic[uuid] = [NetworkCounters(mac, received, sent) for mac in MACS]
        assert agent.run(task).outcome == "ok"
    assert agent.run(task).changes == []
    with engine.connect() as connection:
        rows = list(connection.execute(sa.select(table).order_by(table.c.id)))
    assert {
        (row.uuid, row.mac): (row.bw_in, row.bw_out, row.last_ctr_in, row.last_ctr_out)
        for row in rows
        if row.start_period == NOVEMBER
    } == {
        # Out went back: it began anew.
        (uuids["old"], MACS[0]): (8, 61, 2**40 + 8, 61),
        (uuids["old"], MACS[1]): (1, 1, 2**40 + 8, 61),
        (uuids["new"], MACS[0]): (1, 1, 2**40 + 8, 61),
        (uuids["new"], MACS[1]): (1, 1, 2**40 + 8, 61),
    }
    assert [(row.bw_in, row.last_ctr_in) for row in rows if row.start_period == OCTOBER] == [
        (10**12, 2**40)
    ]
    assert {row.deleted for row in rows} == {0}
    agent.close()


def test_a_meter_is_told_the_interfaces_that_nova_has_cached(tmp_path, cell):
    uuids = cell.write(of_host("host12", "asked"))
    agent = make_agent(tmp_path, cell.url, "host12", FakeHypervisor())
    meter = FakeMeter(agent)
    meter.told = [InterfaceCounters(uuids["asked"], MACS[0], 1, 2)]
    agent.drivers.use("bandwidth", meter)
    assert agent.run(agent.build(PollBandwidthUsage)).outcome == "ok"
    ((asked,),) = meter.asked
    assert (asked.uuid, asked.interfaces) == (
        uuids["asked"],
        tuple(MeteredInterface(mac, f"tap-{mac[-2:]}") for mac in MACS),
    )
    agent.close()


def test_a_table_that_is_missing_is_named_with_the_command_that_adds_it(tmp_path, cell):
    uuids = cell.write(of_host("host13", "counted"))
    engine = sa.create_engine(cell.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE bw_usage_cache"))
    hypervisor = FakeHypervisor([(uuids["counted"], "counted", 1)])
    hypervisor.traffic[uuids["counted"]] = [NetworkCounters(MACS[0], 1, 2)]
    agent = make_agent(tmp_path, cell.url, "host13", hypervisor)
    task = agent.build(PollBandwidthUsage)
    run = agent.run(task)
    assert run.outcome == "failed"
    assert run.error.endswith("has not been made or migrated; run 'cepheid db sync'.")
    assert "added bw_usage_cache" in agent.driver("database").sync()[0]
    assert agent.run(task).counters["done"] == 1
    agent.close()
