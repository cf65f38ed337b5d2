# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver on libvirt's test driver, and the fake beside it."""

import time

import pytest

from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor import opts
from cepheid_plugins.hypervisor.driver import HypervisorUnavailable
from cepheid_plugins.hypervisor.libvirt_driver import POWER_STATES, LibvirtHypervisor
from tests.contracts import HypervisorContract
from tests.fakes import FakeHypervisor
from tests.worlds import node_xml, uuid_of

RUNNING = power_state.RUNNING


def connect(agent, tmp_path, states):
    (tmp_path / "node.xml").write_text(node_xml(states))
    agent.conf.register_opts(opts.OPTIONS, group="hypervisor")
    agent.set("hypervisor", uri=f"test:///{tmp_path}/node.xml")
    return LibvirtHypervisor(agent)


@pytest.fixture
def running():
    return uuid_of(0)


class TestFake(HypervisorContract):
    @pytest.fixture
    def hypervisor(self):
        return FakeHypervisor([(uuid_of(0), "guest-0", RUNNING)])


class TestLibvirtTestDriver(HypervisorContract):
    @pytest.fixture
    def hypervisor(self, agent, tmp_path):
        hypervisor = connect(agent, tmp_path, [RUNNING])
        yield hypervisor
        hypervisor.close()


def test_every_state_of_libvirt_has_a_power_state():
    assert POWER_STATES == {0: 0, 1: 1, 2: 1, 3: 3, 4: 4, 5: 4, 6: 6, 7: 7}


@pytest.mark.parametrize("count", [10, 1000])
def test_all_domains_cost_one_call(agent, tmp_path, count):
    hypervisor = connect(agent, tmp_path, [RUNNING] * count)
    hypervisor.check()
    before = hypervisor.calls.copy()
    assert len(hypervisor.domains()) == count
    assert hypervisor.calls - before == {"virConnectGetAllDomainStats": 1}


def test_a_uri_that_does_not_answer_is_named_with_the_remedy(agent, tmp_path):
    hypervisor = connect(agent, tmp_path, [])
    (tmp_path / "node.xml").unlink()
    with pytest.raises(HypervisorUnavailable, match=r"node.xml does not answer: .*uri right"):
        hypervisor.check()


def test_the_uri_is_also_known_by_its_name_in_nova_conf(tmp_path):
    from cepheid import config

    nova_conf = tmp_path / "nova.conf"
    nova_conf.write_text("[libvirt]\nconnection_uri = test:///default\n")
    conf = config.load([str(nova_conf)])
    conf.register_opts(opts.OPTIONS, group="hypervisor")
    assert conf.hypervisor.uri == "test:///default"


def test_a_call_that_hangs_is_given_up_and_the_next_one_connects_anew(agent, tmp_path):
    hypervisor = connect(agent, tmp_path, [RUNNING])
    hypervisor.check()
    agent.set("hypervisor", call_timeout=1)
    hung = hypervisor._connection
    with pytest.raises(HypervisorUnavailable, match="did not return within 1 seconds"):
        hypervisor._call("virDomainHang", lambda: time.sleep(2), hung)
    assert hypervisor._connection is None
    assert len(hypervisor.domains()) == 1
    assert hypervisor.calls["virConnectOpen"] == 2


def plugged_in(hypervisor, uuid, *macs):
    """Give a running domain these interfaces, and start it anew."""
    text = hypervisor.definition(uuid)
    interfaces = "".join(
        f"<interface type='user'><mac address='{mac}'/></interface>" for mac in macs
    )
    if "<devices/>" in text:
        text = text.replace("<devices/>", f"<devices>{interfaces}</devices>")
    else:
        text = text.replace("</devices>", f"{interfaces}</devices>")
    hypervisor.define(text)
    hypervisor.power_off(uuid)
    hypervisor.start(uuid)


def test_where_there_is_no_bulk_interfaces_are_counted_one_by_one(agent, tmp_path):
    hypervisor = connect(agent, tmp_path, [RUNNING, RUNNING])
    macs = ["52:54:00:c0:ff:e1", "52:54:00:c0:ff:e2"]
    plugged_in(hypervisor, uuid_of(0), *macs)
    before = hypervisor.network_counters([uuid_of(0)])
    after = hypervisor.network_counters([uuid_of(0)])
    assert set(before) == set(after) == {uuid_of(0)}
    assert [one.mac for one in before[uuid_of(0)]] == macs
    for old, new in zip(before[uuid_of(0)], after[uuid_of(0)], strict=True):
        # Made up from the time of day, by libvirt.
        assert new.received_bytes > old.received_bytes > 0
        assert new.sent_bytes >= old.sent_bytes > 0
    hypervisor.pause(uuid_of(0))
    assert len(hypervisor.network_counters([uuid_of(0)])[uuid_of(0)]) == 2
    hypervisor.power_off(uuid_of(0))
    assert hypervisor.network_counters([uuid_of(0)]) == {}
    hypervisor.close()


def test_a_volume_of_a_storage_pool_is_told_by_its_path(agent, tmp_path):
    hypervisor = connect(agent, tmp_path, [RUNNING])
    hypervisor.check()
    pool = hypervisor._connection.storagePoolCreateXML(
        "<pool type='dir'><name>images</name><target><path>/srv/images</path></target></pool>"
    )
    pool.createXML("<volume><name>one</name><capacity>1</capacity></volume>")
    disks = "".join(
        f"<disk type='volume'><driver name='qemu' type='qcow2'/><source pool='{pool}' "
        f"volume='{volume}'/><target dev='{target}'/></disk>"
        for pool, volume, target in [
            ("images", "one", "vda"), ("images", "two", "vdb"), ("gone", "one", "vdc")
        ]
    )  # fmt: skip
    text = hypervisor.definition(uuid_of(0))
    hypervisor.define(text.replace("</devices>", f"{disks}</devices>"))
    (found,) = hypervisor.named_files()
    assert found.files["/srv/images/one"] == {"qcow2"}
    assert found.unresolved == (
        "one in the storage pool gone", "two in the storage pool images"
    )  # fmt: skip
    hypervisor.close()
