# SPDX-License-Identifier: Apache-2.0
"""The JSON of instance_info_caches.network_info: a list of interfaces (VIFs).

Source: Nova's network model, which reads it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence
from typing import Any

from cepheid_plugins.network.driver import Vif


def ip(address: str, type_: str = "fixed", floating: Iterable[str] = ()) -> dict[str, Any]:
    """Return an address: ``fixed``, ``floating``, ``gateway`` or ``dns``."""
    found: dict[str, Any] = {
        "address": address,
        "type": type_,
        "version": ipaddress.ip_address(address).version,
        "meta": {},
    }
    if type_ == "fixed":
        found["floating_ips"] = [ip(one, "floating") for one in floating]
    return found


def subnet(
    cidr: str,
    ips: Sequence[dict[str, Any]],
    gateway: str | None = None,
    dns: Iterable[str] = (),
    routes: Iterable[tuple[str, str]] = (),
    meta: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a subnet with an interface's addresses in it.

    :param routes: destination and next hop of each
    """
    return {
        "cidr": cidr,
        "version": ipaddress.ip_network(cidr).version,
        "gateway": ip(gateway, "gateway") if gateway else None,
        "dns": [ip(address, "dns") for address in dns],
        "ips": list(ips),
        "routes": [
            {"cidr": to, "gateway": ip(by, "gateway"), "interface": None, "meta": {}}
            for to, by in routes
        ],
        "meta": meta or {},
    }


def network(
    id_: str, label: str, bridge: str | None, subnets: Sequence[Any], meta: dict[str, Any]
) -> dict[str, Any]:
    """Return a network as an interface sees it."""
    return {"id": id_, "bridge": bridge, "label": label, "subnets": list(subnets), "meta": meta}


def vif(id_: str, mac: str, **fields: Any) -> Vif:
    """Return an interface."""
    return {
        "id": id_,
        "address": mac,
        "network": None,
        "type": None,
        "details": {},
        "devname": None,
        "ovs_interfaceid": None,
        "qbh_params": None,
        "qbg_params": None,
        "active": False,
        "vnic_type": "normal",
        "profile": None,
        "preserve_on_delete": False,
        "delegate_create": False,
        "meta": {},
        **fields,
    }


def label(found: Vif) -> str | None:
    """Return the name of the network that an interface is in."""
    name: str | None = (found.get("network") or {}).get("label")
    return name


def fixed_ips(found: Vif) -> list[dict[str, Any]]:
    """Return the fixed addresses of an interface, each with all that is known of it."""
    subnets = (found.get("network") or {}).get("subnets") or ()
    return [one for each in subnets for one in each.get("ips") or ()]


def fixed_addresses(found: Vif) -> list[str]:
    """Return the fixed addresses of an interface."""
    return [one["address"] for one in fixed_ips(found)]


def parsed(text: str | None) -> list[Vif]:
    """Return the interfaces in a cache; none where it, or one of them, cannot be read."""
    try:
        found = read(text)
        summary(found)
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    return found if all(isinstance(one.get("id"), str) for one in found) else []


def read(text: str | None) -> list[Vif]:
    """Return the interfaces in a cache that have an address.

    :raises ValueError: it cannot be read
    """
    return [one for one in read_all(text) if one.get("address")]


def read_all(text: str | None) -> list[Vif]:
    """Return all interfaces in a cache.

    :raises ValueError: it cannot be read
    """
    try:
        found = json.loads(text or "[]")
    except RecursionError as err:
        raise ValueError("it is nested too deep") from err
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("it is no list of VIFs")
    return found


def summary(vifs: Iterable[Vif]) -> list[str]:
    """Return the interfaces in words for an operator: MAC and addresses of each."""
    return [" ".join([one["address"], *fixed_addresses(one)]) for one in vifs]
