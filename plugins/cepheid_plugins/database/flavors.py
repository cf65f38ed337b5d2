# SPDX-License-Identifier: Apache-2.0
"""The flavors that an instance carries in instance_extra.flavor: present, old and new.

Source: Nova's objects Flavor 1.1 to 1.2, in its envelope.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from cepheid_plugins.database.records import NewInstance


def of_new(row: NewInstance) -> str:
    """Return the flavors of an instance that came without one."""
    flavor = {
        "nova_object.name": "Flavor",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.1",
        "nova_object.data": {
            "id": None,
            "flavorid": "adopted",
            "name": "adopted",
            "memory_mb": row.memory_mb,
            "vcpus": row.vcpus,
            "root_gb": row.root_gb,
            "ephemeral_gb": 0,
            "swap": 0,
            "rxtx_factor": 1.0,
            "vcpu_weight": 0,
            "disabled": False,
            "is_public": True,
            "extra_specs": {},
            "created_at": None,
            "updated_at": None,
            "deleted_at": None,
            "deleted": False,
        },
    }
    return json.dumps({"cur": flavor, "old": None, "new": None})


def present(text: str | None) -> dict[str, Any]:
    """Return the fields of the present flavor; none where it cannot be read."""
    flavors = _parsed(text)
    return {} if flavors is None else dict(flavors["cur"]["nova_object.data"])


def resized(text: str | None, sizes: Mapping[str, int]) -> str | None:
    """Return the flavors of an instance that waits for the confirmation of its resize.

    :param sizes: memory_mb, vcpus, root_gb
    """
    flavors = _parsed(text)
    if flavors is None:
        return text
    flavors["old"] = flavors["cur"]
    flavors["cur"] = copy.deepcopy(flavors["old"])
    flavors["cur"]["nova_object.data"].update(sizes)
    flavors["new"] = flavors["cur"]
    return json.dumps(flavors)


def confirmed(text: str | None) -> str | None:
    """Return the flavors without those that only a revert needs."""
    flavors = _parsed(text)
    return text if flavors is None else json.dumps({**flavors, "old": None, "new": None})


def _parsed(text: str | None) -> dict[str, Any] | None:
    """Return the flavors by ``cur``, ``old``, ``new``; None for what is no such thing."""
    try:
        flavors = json.loads(text or "")
        flavors["cur"]["nova_object.data"]["memory_mb"]
    except (ValueError, TypeError, KeyError):
        return None
    return dict(flavors)
