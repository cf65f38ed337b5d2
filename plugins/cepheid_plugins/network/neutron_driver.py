# SPDX-License-Identifier: Apache-2.0
"""Networks as Neutron knows them: the ports of instances.

Source: Neutron's API v2.0; the fields are those that Nova makes of a port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import openstack
from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1 import loading
from openstack import exceptions as openstack_errors
from oslo_config import cfg

from cepheid import errors
from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import LookUp, Network, NetworkError, NetworkUnavailable, Vif

if TYPE_CHECKING:
    from cepheid.agent import Agent

GROUP = "neutron"

#: Seconds that Neutron has for an answer where [neutron] timeout is not set.
TIMEOUT_SECONDS = 30

#: vif_types of a port that is plugged in nowhere. Source: Neutron's portbindings.
UNPLUGGED = ("unbound", "binding_failed")

#: HTTP statuses with which a service asks to be left alone, or is not there.
AWAY = (429, 502, 503, 504)

#: Characters of a port's id in the name of its device. Source: Neutron; IFNAMSIZ.
DEVNAME_LENGTH = 11


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List what may be in ``[neutron]``, whichever ``auth_type`` is chosen.

    They are keystoneauth's own, so the sample configuration does without them.
    """
    options = [
        *loading.get_auth_common_conf_options(),
        *loading.get_session_conf_options(),
        *loading.get_adapter_conf_options(),
    ]
    for name in sorted(loading.get_available_plugin_names()):
        options += loading.get_auth_plugin_conf_options(name)
    return [(GROUP, options)]


class NeutronNetwork(Network):
    """The ports of instances, asked for as ``[neutron]`` says, with the options of nova.conf.

    :raises ConfigError: ``[neutron]`` cannot be used
    """

    options: list[Any] = []
    is_of_cloud = True

    def __init__(self, agent: Agent) -> None:
        self._host = agent.host
        self.calls = 0
        conf = agent.conf
        loading.register_auth_conf_options(conf, GROUP)
        loading.register_session_conf_options(conf, GROUP)
        loading.register_adapter_conf_options(conf, GROUP)
        try:
            auth = loading.load_auth_from_conf_options(conf, GROUP)
            if auth is None:
                raise errors.ConfigError(
                    "[neutron] auth_type is not set, so Neutron cannot be asked; copy the group "
                    "from nova.conf."
                )
            session = loading.load_session_from_conf_options(conf, GROUP, auth=auth)
        except keystone_errors.ClientException as err:
            raise errors.ConfigError(f"[neutron] cannot be used: {err}") from err
        session.timeout = session.timeout or TIMEOUT_SECONDS
        options = conf[GROUP]
        self._connection = openstack.connection.Connection(
            session=session,
            region_name=options.region_name,
            network_endpoint_override=options.endpoint_override,
            network_interface=(options.valid_interfaces or ["internal"])[0],
            network_status_code_retries=0,
            network_connect_retries=0,
        )

    def look_up(self, uuid: str, cached: Sequence[Vif], order: Sequence[str]) -> LookUp:
        ports = _ordered(self._get("ports", device_id=uuid), cached, order)
        if not ports:
            return LookUp([], {})
        networks = self._by_id("networks", (port["network_id"] for port in ports))
        missing = [port["id"] for port in ports if port["network_id"] not in networks]
        if missing:
            raise NetworkError(
                f"Neutron does not tell of the network of port {missing[0]}, so it is not known "
                "which interfaces there are. May the account of [neutron] read all networks?"
            )
        fixed = [one for port in ports for one in port["fixed_ips"]]
        subnets = self._by_id("subnets", (one["subnet_id"] for one in fixed))
        floating = self._get("floatingips", port_id=[port["id"] for port in ports])
        dhcp = self._get("ports", network_id=sorted(networks), device_owner="network:dhcp")
        known = {one["id"]: one for one in cached}
        return LookUp(
            [
                _vif(port, networks[port["network_id"]], subnets, floating, dhcp,
                     known.get(port["id"]))
                for port in ports
            ],
            {port["id"]: why for port in ports if (why := self._misbound(port))},
        )  # fmt: skip

    def rebind(self, uuid: str) -> None:
        for port in self._get("ports", device_id=uuid):
            self._call(
                "PUT", f"/ports/{port['id']}", json={"port": {"binding:host_id": self._host}}
            )

    def _misbound(self, port: Mapping[str, Any]) -> str:
        host, vif_type = port.get("binding:host_id"), port.get("binding:vif_type")
        if host != self._host:
            return f"it is bound to {host or 'no host'}"
        return f"its vif_type is {vif_type}" if vif_type in UNPLUGGED else ""

    def _by_id(self, what: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        wanted = sorted(set(ids))
        return {one["id"]: one for one in self._get(what, id=wanted)} if wanted else {}

    def _get(self, what: str, **query: Any) -> list[dict[str, Any]]:
        """Return all that Neutron lists; it may have a limit to what is in one answer."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self._call("GET", f"/{what}", params=query)
            try:
                found += answer[what]
                links = answer.get(f"{what}_links") or ()
                if not answer[what] or all(link["rel"] != "next" for link in links):
                    return found
                last = found[-1]["id"]
            except (KeyError, TypeError, AttributeError) as err:
                raise NetworkError(f"Neutron answered GET /{what} with no list of them.") from err
            if last == query.get("marker"):
                raise NetworkError(f"Neutron answered GET /{what} with the same page again.")
            query["marker"] = last

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        self.calls += 1
        try:
            # The first time it asks Keystone where Neutron is.
            neutron = self._connection.network
            answer = neutron.request(path, method, raise_exc=False, **arguments)
        except (keystone_errors.ClientException, openstack_errors.SDKException) as err:
            raise NetworkUnavailable(
                f"Neutron cannot be asked: {err}. Look at [neutron] and its service."
            ) from err
        if answer.status_code in AWAY:
            after = answer.headers.get("Retry-After")
            hint = f"; it asks to wait for {after} s" if after else ""
            raise NetworkUnavailable(f"Neutron answered {answer.status_code} to {method}{hint}.")
        if answer.status_code >= 400:
            raise NetworkError(
                f"Neutron answered {answer.status_code} to {method} {path}: {_message(answer)}"
            )
        try:
            body: dict[str, Any] = answer.json()
        except ValueError as err:
            raise NetworkError(f"Neutron answered {method} {path} with no JSON.") from err
        return body


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["NeutronError"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer.text)[:200]


def _ordered(
    ports: Sequence[dict[str, Any]], cached: Sequence[Vif], order: Sequence[str]
) -> list[dict[str, Any]]:
    """Return ports in the guest's order; those that nobody knows of come last."""
    places: dict[str, int] = {}
    for known in (*order, *(one["id"] for one in cached)):
        places.setdefault(known, len(places))
    return sorted(ports, key=lambda port: places.get(port["id"], len(places)))


def _vif(
    port: Mapping[str, Any],
    network: Mapping[str, Any],
    subnets: Mapping[str, Mapping[str, Any]],
    floating: Sequence[Mapping[str, Any]],
    dhcp: Sequence[Mapping[str, Any]],
    cached: Vif | None,
) -> Vif:
    vif_type, details = port.get("binding:vif_type"), port.get("binding:vif_details") or {}
    meta = {"injected": False, "tenant_id": network.get("project_id") or network.get("tenant_id"),
            "mtu": network.get("mtu")}  # fmt: skip
    if network.get("provider:physical_network"):
        meta["physical_network"] = network["provider:physical_network"]
    return network_info.vif(
        port["id"],
        port["mac_address"],
        network=network_info.network(
            network["id"],
            network.get("name", ""),
            _bridge(vif_type, details, network["id"]),
            _subnets(port, subnets, floating, dhcp),
            meta,
        ),
        type=vif_type,
        details=details,
        devname=f"tap{port['id'][:DEVNAME_LENGTH]}",
        ovs_interfaceid=port["id"] if vif_type == "ovs" else None,
        active=not port.get("admin_state_up", True) or port.get("status") == "ACTIVE",
        vnic_type=port.get("binding:vnic_type", "normal"),
        profile=port.get("binding:profile") or {},
        # Whether Nova made the port is Nova's to know.
        preserve_on_delete=bool(cached and cached.get("preserve_on_delete")),
        delegate_create=True,
    )


def _bridge(vif_type: str | None, details: Mapping[str, Any], network_id: str) -> str | None:
    if details.get("bridge_name"):
        return str(details["bridge_name"])
    if vif_type == "ovs":
        return "br-int"
    return f"brq{network_id[:DEVNAME_LENGTH]}" if vif_type == "bridge" else None


def _subnets(
    port: Mapping[str, Any],
    subnets: Mapping[str, Mapping[str, Any]],
    floating: Sequence[Mapping[str, Any]],
    dhcp: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    addresses: dict[str, list[str]] = {}
    for one in port["fixed_ips"]:
        addresses.setdefault(one["subnet_id"], []).append(one["ip_address"])
    found = []
    for subnet_id, fixed in addresses.items():
        subnet = subnets.get(subnet_id)
        if subnet is None:
            continue
        servers = [
            one["ip_address"]
            for server in dhcp
            for one in server["fixed_ips"]
            if one["subnet_id"] == subnet_id
        ]
        meta = {"dhcp_server": servers[0]} if servers and subnet.get("enable_dhcp") else {}
        if subnet.get("ipv6_address_mode"):
            meta["ipv6_address_mode"] = subnet["ipv6_address_mode"]
        found.append(
            network_info.subnet(
                str(ipaddress.ip_network(subnet["cidr"])),
                [network_info.ip(a, floating=_floating(port["id"], a, floating)) for a in fixed],
                subnet.get("gateway_ip"),
                subnet.get("dns_nameservers") or (),
                [(route["destination"], route["nexthop"])
                 for route in subnet.get("host_routes") or ()],
                meta,
            )
        )  # fmt: skip
    return found


def _floating(port: str, fixed: str, floating: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        one["floating_ip_address"]
        for one in floating
        if one.get("port_id") == port and one.get("fixed_ip_address") == fixed
    ]
