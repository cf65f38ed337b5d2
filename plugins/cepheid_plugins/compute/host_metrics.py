# SPDX-License-Identifier: Apache-2.0
"""What a host has and who is on it, as metrics: pure functions of what a pass has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cepheid.metric import Labels, Metric, gauge
from cepheid_plugins.compute import power_state
from cepheid_plugins.compute.resources import GIB, MIB_OF_GIB

if TYPE_CHECKING:
    from cepheid_plugins.database.records import Occupant
    from cepheid_plugins.hypervisor.driver import Domain

MIB = GIB // MIB_OF_GIB


@dataclass(frozen=True)
class Seen:
    """What a pass of update_available_resource has seen.

    :param instances: how many, by vm_state and power state
    :param host: the columns of compute_nodes; empty where nothing was to be recorded
    """

    instances: Mapping[Labels, int] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)


def count(instances: Sequence[Occupant], domains: Mapping[str, Domain]) -> dict[Labels, int]:
    """Return how many instances there are, by vm_state and by what their guests do."""
    counted: Counter[Labels] = Counter()
    for row in instances:
        domain = domains.get(row.uuid)
        power = "no domain" if domain is None else power_state.name(domain.power_state)
        counted[row.vm_state or "unknown", power] += 1
    return dict(counted)


def of_host(seen: Seen) -> Iterator[Metric]:
    """Give what was seen."""
    yield Metric(
        "cepheid_instances",
        "Instances of this host, by the vm_state on record and by what the guest does.",
        seen.instances,
        ("vm_state", "power_state"),
    )
    if not seen.host:
        return
    host = seen.host
    yield gauge("cepheid_host_vcpus", "CPUs that instances may run on.", host["vcpus"])
    yield gauge("cepheid_host_vcpus_used", "CPUs that instances take.", host["vcpus_used"])
    for name, what, total, used, unit in (
        ("memory", "Memory", host["memory_mb"], host["memory_mb_used"], MIB),
        ("disk", "Disk at instances_path", host["local_gb"], host["local_gb_used"], GIB),
    ):
        yield gauge(f"cepheid_host_{name}_bytes", f"{what} of the host.", total * unit)
        yield gauge(
            f"cepheid_host_{name}_used_bytes",
            f"{what} that instances take, and what is reserved.",
            used * unit,
        )
