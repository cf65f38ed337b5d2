# SPDX-License-Identifier: Apache-2.0
"""The flavors that an instance carries in instance_extra.flavor: present, old and new.

Source: Nova's objects Flavor 1.1 to 1.2, in its envelope.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from cepheid_plugins.database.records import NewInstance, Sizes

#: Texts whose sizes are remembered: the instances of a flavor have the same text, and a host's have
#: few flavors.
KNOWN_TEXTS = 256


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


class FlavorSizes(NamedTuple):
    """What the flavors of an instance take; None for one that is not there."""

    cur: Sizes | None
    old: Sizes | None
    new: Sizes | None


@functools.lru_cache(maxsize=KNOWN_TEXTS)
def sizes(text: str | None) -> FlavorSizes:
    """Return what the flavors ``cur``, ``old`` and ``new`` take."""
    flavors = _parsed(text) or {}
    return FlavorSizes(*(_sizes(flavors.get(name)) for name in FlavorSizes._fields))


def context_migration_id(text: str | None) -> int | None:
    """Return which migration a migration context is about; None where that cannot be read.

    Source: Nova's object MigrationContext 1.2, in its envelope.
    """
    if not text:
        return None
    try:
        return int(json.loads(text)["nova_object.data"]["migration_id"])
    except (ValueError, TypeError, KeyError):
        return None


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


def _sizes(flavor: Any) -> Sizes | None:
    try:
        data = flavor["nova_object.data"]
        return Sizes(
            vcpus=int(data["vcpus"]),
            memory_mb=int(data["memory_mb"]),
            root_gb=int(data["root_gb"]),
            ephemeral_gb=int(data.get("ephemeral_gb") or 0),
            swap_mb=int(data.get("swap") or 0),
        )
    except (ValueError, TypeError, KeyError):
        return None
