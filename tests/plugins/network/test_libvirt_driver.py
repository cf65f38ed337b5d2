# SPDX-License-Identifier: Apache-2.0
"""Networks as libvirt knows them."""

import pytest

from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import NetworkError, NetworkUnavailable
from cepheid_plugins.network.libvirt_driver import LibvirtNetwork
from tests.worlds import fake_world, uuid_of

RUNNING, SHUTDOWN = 1, 4
UUID = uuid_of(1)
MAC = "52:54:00:00:00:01"
INTERFACES = f"""<devices>
  <interface type='network'>
    <mac address='{MAC.upper()}'/><source network='default' bridge='virbr0'/><target dev='vnet0'/>
  </interface>
  <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br1'/></interface>
</devices>"""


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {1: RUNNING})
    text = world.hypervisor.definition(UUID)
    world.hypervisor.definitions[UUID] = text.replace("<devices/>", INTERFACES)
    world.hypervisor.addresses = {MAC: ("192.168.122.7/24", "fd00::7/64")}
    yield world
    world.close()


@pytest.fixture
def network(world):
    return LibvirtNetwork(world.agent)


def test_interfaces_have_their_mac_bridge_device_and_addresses(network):
    first, second = network.look_up(UUID, [], []).vifs
    assert (first["address"], first["type"], first["devname"]) == (MAC, "network", "vnet0")
    assert (first["network"]["label"], first["network"]["bridge"]) == ("default", "virbr0")
    assert first["active"]
    subnets = {one["cidr"]: one["ips"][0]["address"] for one in first["network"]["subnets"]}
    assert subnets == {"192.168.122.0/24": "192.168.122.7", "fd00::/64": "fd00::7"}
    assert network_info.summary([second]) == ["52:54:00:00:00:02"]
    assert (second["network"]["label"], second["devname"]) == ("br1", None)


def test_a_second_look_finds_the_same(network):
    vifs = network.look_up(UUID, [], []).vifs
    assert network.look_up(UUID, vifs, []).vifs == vifs


def test_ids_that_somebody_gave_are_kept(network):
    cached = [network_info.vif("port-1", MAC)]
    assert network.look_up(UUID, cached, []).vifs[0]["id"] == "port-1"


def test_addresses_are_kept_while_nobody_tells(world, network):
    vifs = network.look_up(UUID, [], []).vifs
    world.hypervisor.addresses = {}
    world.hypervisor.states[UUID] = SHUTDOWN
    first, _ = network.look_up(UUID, vifs, []).vifs
    assert network_info.fixed_addresses(first) == ["192.168.122.7", "fd00::7"]
    assert not first["active"]


def test_an_interface_that_was_unplugged_is_gone(world, network):
    vifs = network.look_up(UUID, [], []).vifs
    text = world.hypervisor.definition(UUID)
    start, end = text.index("  <interface type='bridge'"), text.rindex("</devices>")
    world.hypervisor.definitions[UUID] = text[:start] + text[end:]
    assert len(network.look_up(UUID, vifs, []).vifs) == 1


def test_a_domain_that_is_gone_is_one_failure(network):
    with pytest.raises(NetworkError, match="has no domain"):
        network.look_up(uuid_of(9), [], [])


def test_a_hypervisor_that_is_away_is_away(world, network):
    world.hypervisor.available = False
    with pytest.raises(NetworkUnavailable):
        network.look_up(UUID, [], [])
