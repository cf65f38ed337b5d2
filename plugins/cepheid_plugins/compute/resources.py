# SPDX-License-Identifier: Apache-2.0
"""Count what a host has and what is taken of it. Decisions only; nothing is read or written here.

Source: Nova's resource tracker and its statistics.
"""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from oslo_config import types

from cepheid.explanation import Kind
from cepheid_plugins.compute import task_states, vm_states
from cepheid_plugins.database.records import ComputeNode, Move, Occupant, Sizes

if TYPE_CHECKING:
    from cepheid.run import RunContext

GIB = 1 << 30
MIB_OF_GIB = 1024

#: The task_states of an instance that changes its flavor, is built anew, or is on its way to
#: another host while it runs.
RESIZING = ("resize_prep", "resize_migrating", "resize_migrated", "resize_finish")
REBUILDING = ("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning")
MIGRATING = "migrating"

#: The statistics that together are the workload on disks and network.
IO_WORKLOAD = (
    "num_vm_building",
    "num_task_resize_migrating",
    "num_task_rebuilding",
    "num_task_resize_prep",
    "num_task_image_snapshot",
    "num_task_image_backup",
    "num_task_rescuing",
    "num_task_unshelving",
)

#: Columns that hold JSON: equal where what they mean is.
JSON_COLUMNS = ("cpu_info", "supported_instances", "stats")


@dataclass(frozen=True, slots=True)
class Use:
    """What is taken of a host, in the units of compute_nodes."""

    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0

    def with_flavor(self, sizes: Sizes, root_on_volume: bool) -> Use:
        """Add a flavor; swap counts in whole GiB, as integer columns make of it in Nova."""
        root_gb = 0 if root_on_volume else sizes.root_gb
        return Use(
            self.vcpus + sizes.vcpus,
            self.memory_mb + sizes.memory_mb,
            self.disk_gb + root_gb + sizes.ephemeral_gb + sizes.swap_mb // MIB_OF_GIB,
        )


class Counted(NamedTuple):
    """The result of a count.

    :param sizeless: the instances that nobody knows the sizes of; they take nothing
    :param stale: migrations that their instances know nothing of; they take nothing
    """

    use: Use
    instances: list[Occupant]
    sizeless: list[Occupant]
    stale: list[Move]


def count(
    host: str, reserved: Use, occupants: Iterable[Occupant], moves: Iterable[Move]
) -> Counted:
    """Count what instances take of a host, and what is kept for migrations from and to it."""
    instances = [row for row in occupants if _takes_room(row)]
    here = {row.uuid for row in instances}
    current: list[Move] = []
    stale: list[Move] = []
    for move in _newest(move for move in moves if _is_moving(move.instance)):
        (stale if _is_stale(move) else current).append(move)
    use, sizeless = reserved, []
    for row in instances:
        if row.present is None:
            sizeless.append(row)
        else:
            use = use.with_flavor(row.present, row.root_on_volume)
    for move in current:
        kept = _kept_for(move, host, move.instance.uuid in here)
        if kept is not None:
            use = use.with_flavor(kept, move.instance.root_on_volume)
    return Counted(use, instances, sizeless, stale)


def explain(
    context: RunContext, counted: Counted, occupants: Iterable[Occupant], moves: Iterable[Move]
) -> None:
    """Say of each instance what is counted for it."""
    sizeless = {row.uuid for row in counted.sizeless} if context.targets else set()
    for row in context.asked(occupants):
        if not _takes_room(row):
            text = f"nothing is counted for it: its vm_state is {row.vm_state}"
            context.explain(row.uuid, text, evidence={"vm_state": row.vm_state})
        elif row.present is not None and row.uuid not in sizeless:
            took = Use().with_flavor(row.present, row.root_on_volume)
            context.explain(
                row.uuid,
                f"it is counted: {took.vcpus} vCPU{'' if took.vcpus == 1 else 's'}, "
                f"{took.memory_mb} MiB of memory, {took.disk_gb} GiB of disk",
                kind=Kind.COUNTS,
                evidence={
                    "vcpus": took.vcpus, "memory_mib": took.memory_mb, "disk_gib": took.disk_gb,
                },
            )  # fmt: skip
    stale = {move.id for move in counted.stale} if context.targets else set()
    for move in context.asked(moves, key=lambda move: move.instance.uuid):
        if move.id not in stale and _is_moving(move.instance):
            context.explain(
                move.instance.uuid,
                f"migration {move.id} ({move.status}) from {move.source_compute} to "
                f"{move.dest_compute} goes on: what it keeps here is counted",
                kind=Kind.COUNTS,
                evidence={"migration": move.id},
            )


def explain_orphans(context: RunContext, uuids: Iterable[str]) -> None:
    """Say of a domain that is in no row that nothing is counted for it."""
    for uuid in context.asked(uuids, key=str):
        text = "its domain is in no row, so nothing is counted for it"
        context.explain(uuid, text, kind=Kind.WARNS, until="it is adopted, or removed")


def _takes_room(row: Occupant) -> bool:
    if row.vm_state == vm_states.SHELVED_OFFLOADED:
        return row.task_state == task_states.SPAWNING
    return row.vm_state != vm_states.DELETED


def _is_moving(row: Occupant) -> bool:
    if row.vm_state == vm_states.RESIZED:
        return True
    if row.vm_state in (vm_states.ACTIVE, vm_states.STOPPED) and row.task_state in (
        *RESIZING,
        *REBUILDING,
    ):
        return True
    return row.vm_state in (vm_states.ACTIVE, vm_states.PAUSED) and row.task_state == MIGRATING


def _newest(moves: Iterable[Move]) -> list[Move]:
    """Return the newest migration of each instance."""
    newest: dict[str, Move] = {}
    for move in sorted(moves, key=_age):
        newest[move.instance.uuid] = move
    return list(newest.values())


def _age(move: Move) -> tuple[datetime.datetime, int]:
    return (move.updated_at or move.created_at or datetime.datetime.min, move.id)


def _is_stale(move: Move) -> bool:
    """Tell whether the instance's migration context is about another migration."""
    known = move.instance.context_migration_id
    return known is not None and known != move.id


def _kept_for(move: Move, host: str, is_here: bool) -> Sizes | None:
    """Return what a migration keeps on a host, besides what its instance takes there."""
    incoming, outgoing = move.dest_compute == host, move.source_compute == host
    if is_here and not (incoming and outgoing):
        return None
    row = move.instance
    if move.migration_type not in ("resize", None):
        return row.present
    if incoming and outgoing:
        return row.old if _is_switched(move) else row.new
    return row.new if incoming else row.old


def _is_switched(move: Move) -> bool:
    """Tell whether an instance that is resized on its host has its new flavor already."""
    row = move.instance
    if row.vm_state == vm_states.RESIZED:
        return True
    ids = (row.instance_type_id, move.old_instance_type_id)
    return None not in ids and row.instance_type_id != move.old_instance_type_id


def statistics(instances: Sequence[Occupant], recorded: str | None) -> dict[str, str]:
    """Return the numbers of instances by state, system and project, all as text.

    :param recorded: the statistics on record, of which ``failed_builds`` is kept
    """
    counts: Counter[str] = Counter()
    for row in instances:
        counts.update(
            (
                f"num_vm_{row.vm_state}",
                f"num_task_{row.task_state}",
                f"num_os_type_{row.os_type}",
                f"num_proj_{row.project_id}",
            )
        )
    counts["num_instances"] = len(instances)
    counts["io_workload"] = sum(counts[name] for name in IO_WORKLOAD)
    before = _parsed(recorded)
    failed_builds = before.get("failed_builds", "0") if isinstance(before, dict) else "0"
    return {"failed_builds": str(failed_builds)} | {
        name: str(number)
        for name, number in sorted(counts.items())
        if number or name in ("num_instances", "io_workload")
    }


def workload(instances: Iterable[Occupant]) -> int:
    """Return how many instances somebody works on."""
    return sum(row.task_state is not None for row in instances)


def usable_cpus(
    online: frozenset[int], shared: frozenset[int] | None, dedicated: frozenset[int] | None
) -> int:
    """Return how many CPUs there are for virtual ones that float.

    :param shared: those that the operator names; where only `dedicated` ones are named, none
    :raises ValueError: one of the shared ones is not online
    """
    if shared:
        if shared - online:
            missing = ", ".join(map(str, sorted(shared - online)))
            raise ValueError(f"CPUs {missing} of cpu_shared_set are not online")
        return len(shared)
    return 0 if dedicated else len(online)


class CpuSet(types.ConfigType):
    """The type of an option that names CPUs, as in ``4-12,^8,15``."""

    def __init__(self) -> None:
        super().__init__(type_name="CPU list")

    def __call__(self, value: Any) -> frozenset[int]:
        wanted: set[int] = set()
        unwanted: set[int] = set()
        for part in str(value).split(","):
            word = part.strip()
            first, dash, last = word.removeprefix("^").partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise ValueError(f"{word!r} names no CPUs; write them as in 4-12,^8,15")
            numbers = range(int(first), int(last or first) + 1)
            if not numbers:
                raise ValueError(f"{word!r} ends before it begins")
            (unwanted if word.startswith("^") else wanted).update(numbers)
        return frozenset(wanted - unwanted)

    def _formatter(self, value: frozenset[int]) -> str:
        return ",".join(map(str, sorted(value)))


def ratio(configured: float | None, recorded: float | None, initial: float) -> float:
    """Return an allocation ratio: as configured, else as it is on record, else the first one."""
    return configured or recorded or initial


def differences(before: ComputeNode, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has to be written so that a record says what is wanted."""
    return {
        name: value
        for name, value in wanted.items()
        if not _is_equal(name, getattr(before, name), value)
    }


def _is_equal(name: str, old: Any, new: Any) -> bool:
    if name in JSON_COLUMNS:
        return bool(_parsed(old) == json.loads(new))
    if isinstance(old, float) and isinstance(new, float):
        # MariaDB's FLOAT keeps six digits.
        return math.isclose(old, new, rel_tol=1e-5)
    return bool(old == new)


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return None
