# SPDX-License-Identifier: Apache-2.0
"""Networks as Neutron knows them, asked over HTTP."""

import threading

import pytest

from cepheid.errors import ConfigError
from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import NetworkError, NetworkUnavailable
from cepheid_plugins.network.neutron_driver import NeutronNetwork
from tests.fake_agent import FakeAgent
from tests.neutron import SUBNET6, NeutronServer, port
from tests.worlds import uuid_of

UUID = uuid_of(1)
PORTS = [
    port("port-b-0000-1111", UUID, "fa:16:3e:00:00:0b", "10.0.0.11"),
    port("port-a-0000-1111", UUID, "fa:16:3e:00:00:0a", "10.0.0.10"),
]


@pytest.fixture
def server():
    server = NeutronServer()
    server.ports += [dict(one) for one in PORTS]
    server.ports.append(port("other", uuid_of(2), "fa:16:3e:00:00:0c", "10.0.0.12"))
    yield server
    server.close()


@pytest.fixture
def network(server, tmp_path):
    agent = FakeAgent(tmp_path, settings=server.settings)
    yield NeutronNetwork(agent)
    agent.close()


def test_a_port_becomes_an_interface_with_all_that_nova_reads(server, network):
    server.ports[1]["fixed_ips"].append({"subnet_id": SUBNET6, "ip_address": "2001:db8::b"})
    server.floatingips.append(
        {"port_id": PORTS[0]["id"], "fixed_ip_address": "10.0.0.11",
         "floating_ip_address": "203.0.113.5"}
    )  # fmt: skip
    found = network.look_up(UUID, [], []).vifs[0]
    assert (found["id"], found["address"]) == (PORTS[0]["id"], "fa:16:3e:00:00:0b")
    assert (found["type"], found["devname"]) == ("ovs", "tapport-b-0000")
    assert found["ovs_interfaceid"] == PORTS[0]["id"]
    assert found["active"]
    net = found["network"]
    assert (net["label"], net["bridge"], net["meta"]["mtu"]) == ("private", "br-int", 1450)
    v4, v6 = net["subnets"]
    assert (v4["cidr"], v4["gateway"]["address"]) == ("10.0.0.0/24", "10.0.0.1")
    assert [one["address"] for one in v4["dns"]] == ["10.0.0.53"]
    (route,) = v4["routes"]
    assert (route["cidr"], route["gateway"]["address"]) == ("10.9.0.0/16", "10.0.0.9")
    assert v4["meta"] == {"dhcp_server": "10.0.0.2"}
    (fixed,) = v4["ips"]
    assert [one["address"] for one in fixed["floating_ips"]] == ["203.0.113.5"]
    assert (v6["version"], v6["gateway"]) == (6, None)
    assert v6["meta"] == {"ipv6_address_mode": "slaac"}
    assert network_info.fixed_addresses(found) == ["10.0.0.11", "2001:db8::b"]


def test_a_look_up_takes_five_calls_whatever_the_number_of_ports(server, network):
    network.look_up(UUID, [], [])
    assert network.calls == len(server.requests) == 5
    server.ports += [
        port(f"more-{n}", UUID, f"fa:16:3e:00:01:{n:02x}", f"10.0.0.{n + 20}") for n in range(9)
    ]
    assert len(network.look_up(UUID, [], []).vifs) == 11
    assert network.calls == 10


def test_an_instance_without_ports_has_no_interface(server, network):
    assert network.look_up(uuid_of(9), [], []).vifs == []
    assert network.calls == 1


def test_ports_keep_the_guests_order_and_unknown_ones_come_last(network):
    def ids(cached, order):
        return [one["id"][:6] for one in network.look_up(UUID, cached, order).vifs]

    assert ids([], []) == ["port-b", "port-a"]
    assert ids([network_info.vif(PORTS[1]["id"], "x")], []) == ["port-a", "port-b"]
    assert ids([], [PORTS[1]["id"]]) == ["port-a", "port-b"]
    # What Nova has on record goes before the cache.
    cached = [network_info.vif(PORTS[1]["id"], "x")]
    assert ids(cached, [PORTS[0]["id"]]) == ["port-b", "port-a"]


def test_a_port_that_vanished_is_dropped(server, network):
    server.ports = [one for one in server.ports if one["id"] != PORTS[1]["id"]]
    cached = [network_info.vif(one["id"], one["mac_address"]) for one in PORTS]
    assert [one["id"] for one in network.look_up(UUID, cached, []).vifs] == [PORTS[0]["id"]]


def test_whether_nova_made_a_port_is_kept_from_the_cache(network):
    cached = [network_info.vif(PORTS[0]["id"], "x", preserve_on_delete=True)]
    kept = {v["id"]: v["preserve_on_delete"] for v in network.look_up(UUID, cached, []).vifs}
    assert kept == {PORTS[0]["id"]: True, PORTS[1]["id"]: False}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"binding:host_id": "host2"}, "it is bound to host2"),
        ({"binding:host_id": ""}, "it is bound to no host"),
        ({"binding:vif_type": "unbound"}, "its vif_type is unbound"),
        ({"binding:vif_type": "binding_failed"}, "its vif_type is binding_failed"),
    ],
)
def test_a_port_that_is_not_plugged_in_here_is_told_and_bound_here(server, network, fields, why):
    server.ports[1].update(fields)
    assert network.look_up(UUID, [], []).misbound == {PORTS[0]["id"]: why}
    network.rebind(UUID)
    assert {one["binding:host_id"] for one in server.ports} == {"host1"}
    assert [method for method, _ in server.requests].count("PUT") == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_service_that_asks_to_wait_is_away(server, network, status):
    server.failures.append((status, {"Retry-After": "30"}, b""))
    with pytest.raises(NetworkUnavailable, match=f"{status}.*wait for 30 s"):
        network.look_up(UUID, [], [])
    assert network.calls == 1
    assert len(network.look_up(UUID, [], []).vifs) == 2


def test_a_refusal_is_told_in_neutrons_words(server, network):
    body = {
        "NeutronError": {"type": "PolicyNotAuthorized", "message": "Not allowed.", "detail": ""}
    }
    server.failures.append((403, {}, body))
    with pytest.raises(NetworkError, match="403 to GET /ports: Not allowed"):
        network.look_up(UUID, [], [])


def test_an_answer_that_is_no_json_is_a_failure(server, network):
    server.failures.append((200, {}, b"<html>"))
    with pytest.raises(NetworkError, match="no JSON"):
        network.look_up(UUID, [], [])


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"ports": null}'])
def test_an_answer_that_lists_nothing_is_a_failure(server, network, body):
    server.failures.append((200, {}, body))
    with pytest.raises(NetworkError, match="no list"):
        network.look_up(UUID, [], [])


@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_all_pages_of_a_list_are_read(server, network, page_size):
    server.page_size = page_size
    assert len(network.look_up(UUID, [], []).vifs) == 2


def test_a_port_whose_network_is_not_told_is_not_taken_for_one_that_is_gone(server, network):
    server.ports[1]["network_id"] = "another"
    with pytest.raises(NetworkError, match="network of port port-b"):
        network.look_up(UUID, [], [])


def test_a_service_that_hangs_is_away_after_its_time(server, tmp_path):
    server.hang = threading.Event()
    settings = server.settings.replace("timeout = 5", "timeout = 1")
    agent = FakeAgent(tmp_path, settings=settings)
    with pytest.raises(NetworkUnavailable, match="cannot be asked"):
        NeutronNetwork(agent).look_up(UUID, [], [])
    agent.close()


def test_a_service_that_is_not_there_is_away(server, tmp_path):
    settings = server.settings.replace(server.url, "http://127.0.0.1:1")
    agent = FakeAgent(tmp_path, settings=settings)
    with pytest.raises(NetworkUnavailable, match="cannot be asked"):
        NeutronNetwork(agent).look_up(UUID, [], [])
    agent.close()


def test_without_an_account_the_group_is_named(tmp_path):
    agent = FakeAgent(tmp_path)
    with pytest.raises(ConfigError, match=r"\[neutron\] auth_type is not set"):
        NeutronNetwork(agent)
    agent.close()
