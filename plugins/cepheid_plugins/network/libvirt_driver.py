# SPDX-License-Identifier: Apache-2.0
"""Networks as libvirt knows them: the interfaces of domains, and the addresses they have been seen
with.

For hosts without Neutron.
"""

from __future__ import annotations

import ipaddress
import uuid as uuids
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cepheid_plugins.hypervisor.driver import HypervisorError, HypervisorUnavailable, Interface
from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import LookUp, Network, NetworkError, NetworkUnavailable, Vif

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: What ids are made of where nobody has given any, so that they are the same each time.
NAMESPACE = uuids.UUID("6f6e9b0c-5d0e-4f0f-9a0b-63657068656b")


class LibvirtNetwork(Network):
    """The networks of the hypervisor's domains."""

    options: list[Any] = []

    def __init__(self, agent: Agent) -> None:
        self._hypervisor = agent.driver("hypervisor")
        self.calls = 0

    def look_up(self, uuid: str, cached: Sequence[Vif], order: Sequence[str]) -> LookUp:
        self.calls += 1
        try:
            interfaces = self._hypervisor.interfaces(uuid)
        except HypervisorUnavailable as err:
            raise NetworkUnavailable(str(err)) from err
        except HypervisorError as err:
            raise NetworkError(str(err)) from err
        known = {one["address"].lower(): one for one in cached}
        return LookUp([_vif(uuid, found, known.get(found.mac)) for found in interfaces], {})

    def rebind(self, uuid: str) -> None:
        """Do nothing: a domain's interfaces are where the domain is."""


def _vif(uuid: str, interface: Interface, cached: Vif | None) -> Vif:
    name = interface.network or interface.bridge or interface.type
    if interface.addresses:
        subnets = _subnets(interface.addresses)
    else:
        # Nobody tells now; while a guest is off nobody can.
        subnets = ((cached or {}).get("network") or {}).get("subnets") or []
    return network_info.vif(
        cached["id"] if cached else _id(f"{uuid} {interface.mac}"),
        interface.mac,
        network=network_info.network(
            _id(f"network {name}"), name, interface.bridge or None, subnets, {"injected": False}
        ),
        type=interface.type,
        devname=interface.devname or None,
        active=interface.is_running,
    )


def _subnets(addresses: Iterable[str]) -> list[dict[str, Any]]:
    by_cidr: dict[str, list[dict[str, Any]]] = {}
    for text in addresses:
        address = ipaddress.ip_interface(text)
        by_cidr.setdefault(str(address.network), []).append(network_info.ip(str(address.ip)))
    return [network_info.subnet(cidr, ips) for cidr, ips in by_cidr.items()]


def _id(text: str) -> str:
    return str(uuids.uuid5(NAMESPACE, text))
