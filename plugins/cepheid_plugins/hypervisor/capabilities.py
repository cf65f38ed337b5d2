# SPDX-License-Identifier: Apache-2.0
"""What a hypervisor says of its host and of the domains that it can have.

Source: libvirt's capabilities XML format; the shape of the result is Nova's.
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from cepheid_plugins.hypervisor.driver import BadDefinition


def parse(text: str) -> Any:
    """Return the root element of capabilities.

    :raises BadDefinition: it is something else
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as err:
        raise BadDefinition(f"The hypervisor's capabilities cannot be read: {err}.") from err
    if root.tag != "capabilities":
        raise BadDefinition(f"These are not a hypervisor's capabilities, but a {root.tag}.")
    return root


def cpu_info(root: Any) -> dict[str, Any]:
    """Describe the host's CPUs; what the hypervisor does not tell is None.

    The features are sorted, so that equal hosts have equal texts.
    """
    topology = root.find("./host/cpu/topology")
    counts = {} if topology is None else topology.attrib
    cells = root.findall("./host/topology/cells/cell")
    return {
        "arch": root.findtext("./host/cpu/arch"),
        "model": root.findtext("./host/cpu/model"),
        "vendor": root.findtext("./host/cpu/vendor"),
        "topology": {
            "cells": len(cells) or 1,
            **{
                name: int(counts[name]) if name in counts else None
                for name in ("sockets", "cores", "threads")
            },
        },
        "features": sorted({f.get("name") for f in root.iterfind("./host/cpu/feature")}),
    }


def supported_instances(root: Any) -> tuple[tuple[str, str, str], ...]:
    """Return (architecture, domain type, operating system type) of what domains can be."""
    return tuple(
        (arch.get("name"), domain.get("type"), guest.findtext("os_type"))
        for guest in root.iterfind("guest")
        for arch in guest.iterfind("arch")
        for domain in arch.iterfind("domain")
    )
