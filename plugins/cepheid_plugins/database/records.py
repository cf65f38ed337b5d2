# SPDX-License-Identifier: Apache-2.0
"""What queries take and return: plain typed records. Times are naive UTC; NULL is None.

A row is a named tuple: a thousand of them are made at once, which a frozen dataclass takes five
times as long for.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


class _Any(enum.Enum):
    ANY = "any"


#: As an expected state: whatever it is.
ANY: Final = _Any.ANY

#: The system metadata that counts attempts to remove an instance's files. Source: Nova.
CLEAN_ATTEMPTS = "clean_attempts"

#: How many characters of a uuid stand for it at least: fewer are soon somebody's name.
UUID_BEGINNING = 8


class Instance(NamedTuple):
    """A row of ``instances``, as far as tasks read it."""

    id: int
    uuid: str
    host: str | None
    node: str | None
    display_name: str | None
    vm_state: str | None
    task_state: str | None
    power_state: int | None
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    launched_at: datetime.datetime | None
    terminated_at: datetime.datetime | None
    deleted_at: datetime.datetime | None
    deleted: int | None
    cleaned: int | None
    hidden: bool | None
    memory_mb: int | None
    vcpus: int | None
    root_gb: int | None
    ephemeral_gb: int | None
    user_id: str | None
    project_id: str | None
    availability_zone: str | None
    shutdown_terminate: bool | None


class DeletedInstance(NamedTuple):
    """An instance that is deleted for good, and since when."""

    id: int
    uuid: str
    display_name: str | None
    deleted_at: datetime.datetime | None


class Fates(NamedTuple):
    """Who is alive on a host, and what became of the others that have a domain there.

    :param live: the live instances of the host: when they were soft-deleted, by uuid; None: they
        are not
    :param deleted: those that are deleted for good; no hidden ones, which live on in another cell
    :param alive_elsewhere: the uuids of those that are alive, on another host or on none
    """

    live: dict[str, datetime.datetime | None]
    deleted: list[DeletedInstance]
    alive_elsewhere: set[str]


class ImageUser(NamedTuple):
    """What a live instance needs of the image cache.

    :param images: ids of images: of its disk, its kernel and its RAM disk
    :param swap_mb: sizes of its swap disks, MiB
    :param ephemeral_gb: sizes of its ephemeral disks, GiB
    :param sizes_known: whether its flavor could be read; if not, there may be more of them
    """

    uuid: str
    display_name: str | None
    host: str | None
    images: frozenset[str]
    swap_mb: frozenset[int]
    ephemeral_gb: frozenset[int]
    sizes_known: bool


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """All that is on record of an instance, for whoever tells others of it.

    :param columns: of its row in ``instances``
    :param flavor: its present flavor's fields; none where it has none that can be read
    """

    columns: Mapping[str, Any]
    flavor: Mapping[str, Any]
    metadata: Mapping[str, str]
    system_metadata: Mapping[str, str]


class AuditedTraffic(NamedTuple):
    """What went through an interface of an instance within an audit period."""

    mac: str
    bw_in: int
    bw_out: int


class BlockDevice(NamedTuple):
    """A volume of an instance, as notifications tell of it."""

    volume_id: str
    device_name: str | None
    boot_index: int | None
    delete_on_termination: bool
    tag: str | None


@dataclass(frozen=True, slots=True)
class AuditedInstance:
    """An instance that existed within an audit period.

    :param network_info: what is, or was at its deletion, cached of its networks
    :param devices: its volumes; none where they were not asked for
    """

    facts: InstanceFacts
    network_info: str | None
    bandwidth: Sequence[AuditedTraffic]
    devices: Sequence[BlockDevice]


class AuditLog(NamedTuple):
    """A row of ``task_log``: the audit of a period on a host.

    :param state: ``RUNNING`` or ``DONE``
    """

    id: int
    state: str
    period_beginning: datetime.datetime
    period_ending: datetime.datetime
    message: str
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class InstanceUpdate:
    """New values for one instance, to be written if its states are still as expected.

    :param expected_vm_state: None is NULL, :data:`ANY` is not checked
    :param expected_task_state: likewise
    :param expected_deleted_at: likewise; it tells one soft deletion from the next
    """

    uuid: str
    expected_vm_state: str | _Any | None
    expected_task_state: str | _Any | None
    values: Mapping[str, Any]
    expected_deleted_at: datetime.datetime | _Any | None = ANY


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance to be taken into the inventory."""

    uuid: str
    display_name: str
    host: str
    node: str
    vm_state: str
    power_state: int
    vcpus: int
    memory_mb: int
    root_gb: int


class Migration(NamedTuple):
    """A row of ``migrations``, as far as tasks read it."""

    id: int
    instance_uuid: str | None
    status: str | None
    migration_type: str | None
    source_compute: str | None
    dest_compute: str | None
    source_node: str | None
    dest_node: str | None
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    deleted: int | None
    cross_cell_move: bool | None


class DeadInstance(NamedTuple):
    """An instance that is deleted for good, as far as its files are concerned.

    :param clean_attempts: the text of its system metadata; None where there is none
    :param attempted_at: when that was last written
    :param is_moving: whether there is a migration of it that goes on
    """

    uuid: str
    host: str | None
    display_name: str | None
    deleted_at: datetime.datetime | None
    cleaned: int | None
    clean_attempts: str | None
    attempted_at: datetime.datetime | None
    is_moving: bool


class BrokenMigration(NamedTuple):
    """A migration that came to nothing, and its instance.

    :param host: of the instance
    :param is_deleted: whether the instance is deleted for good
    :param is_moving: whether there is another migration of it that goes on
    """

    id: int
    status: str
    source_compute: str | None
    dest_compute: str | None
    uuid: str
    display_name: str | None
    host: str | None
    deleted_at: datetime.datetime | None
    is_deleted: bool
    is_moving: bool


@dataclass(frozen=True, slots=True)
class Resized:
    """A same-host resize that is done but for its confirmation.

    :param update: of the instance; its values hold the new sizes
    """

    update: InstanceUpdate
    node: str
    #: The vm_state that a revert would bring back.
    old_vm_state: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A resize whose source has been cleaned up.

    :param vm_state: what the instance is now
    """

    migration_id: int
    instance_uuid: str
    dest_compute: str
    vm_state: str


class InfoCache(NamedTuple):
    """An instance, and what is cached of its network.

    :param cache_id: the row of ``instance_info_caches``; None where there is none
    :param order: the ids of its interfaces in the guest's order, where Nova's database has them
    """

    uuid: str
    host: str | None
    display_name: str | None
    task_state: str | None
    deleted: int
    cache_id: int | None
    network_info: str | None
    order: tuple[str, ...]


class Volume(NamedTuple):
    """A volume of an instance: a row of ``block_device_mapping``, without its secrets."""

    instance_uuid: str
    volume_id: str | None
    device_name: str | None
    attachment_id: str | None
    delete_on_termination: bool | None
    #: 0 where the instance boots from it.
    boot_index: int | None


class Attachment(NamedTuple):
    """A volume that is attached to a live instance of a host."""

    volume_id: str | None
    device_name: str | None
    instance_uuid: str
    project_id: str | None
    user_id: str | None
    availability_zone: str | None
    attached_at: datetime.datetime | None


class VolumeUsage(NamedTuple):
    """A row of ``volume_usage_cache``: the counters of one start of a guest, and those before."""

    id: int
    volume_id: str
    instance_uuid: str | None
    tot_reads: int
    tot_read_bytes: int
    tot_writes: int
    tot_write_bytes: int
    curr_reads: int
    curr_read_bytes: int
    curr_writes: int
    curr_write_bytes: int
    curr_last_refreshed: datetime.datetime | None
    #: When the totals last changed as Nova's service does it, with a detachment.
    tot_last_refreshed: datetime.datetime | None


class Networked(NamedTuple):
    """An instance, and what is cached of its network."""

    uuid: str
    network_info: str | None


class BandwidthUsage(NamedTuple):
    """A row of ``bw_usage_cache``: what went through an interface in a period, in bytes.

    :param last_ctr_in: the counter at the last look
    """

    id: int
    uuid: str | None
    mac: str | None
    start_period: datetime.datetime
    bw_in: int | None
    bw_out: int | None
    last_ctr_in: int | None
    last_ctr_out: int | None


@dataclass(frozen=True, slots=True)
class ActionStart:
    """An instance action that begins, with its one event."""

    instance_uuid: str
    action: str
    event: str
    request_id: str
    host: str


@dataclass(frozen=True, slots=True)
class ActionEnd:
    """How an instance action ended; its action is found by instance and request.

    :param error: why it failed; nothing where it succeeded
    """

    instance_uuid: str
    event: str
    request_id: str
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """An instance fault; `message` is cut to what the column holds."""

    instance_uuid: str
    host: str
    message: str
    details: str = ""
    code: int = field(default=500)


class Sizes(NamedTuple):
    """What a flavor takes of a host."""

    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int
    swap_mb: int


class Occupant(NamedTuple):
    """An instance, as far as it takes room on a host.

    :param root_on_volume: its root disk is a volume, so that it takes no room on the host
    :param context_migration_id: the migration that its migration context is about
    :param present: None where neither its flavor nor its row says what it takes
    :param old: its flavor before a resize that has not been confirmed
    :param new: its flavor after it
    """

    uuid: str
    host: str | None
    node: str | None
    vm_state: str | None
    task_state: str | None
    os_type: str | None
    project_id: str | None
    instance_type_id: int | None
    root_on_volume: bool
    context_migration_id: int | None
    present: Sizes | None
    old: Sizes | None
    new: Sizes | None


class Move(NamedTuple):
    """A migration that has not ended, and its instance."""

    id: int
    status: str | None
    migration_type: str | None
    source_compute: str | None
    dest_compute: str | None
    old_instance_type_id: int | None
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    instance: Occupant


class ComputeNode(NamedTuple):
    """A row of ``compute_nodes``, as far as Cepheid writes it. JSON is kept as text."""

    id: int
    updated_at: datetime.datetime | None
    host: str | None
    hypervisor_hostname: str | None
    hypervisor_type: str
    hypervisor_version: int
    host_ip: str | None
    vcpus: int
    vcpus_used: int
    memory_mb: int
    memory_mb_used: int
    free_ram_mb: int | None
    local_gb: int
    local_gb_used: int
    free_disk_gb: int | None
    disk_available_least: int | None
    cpu_allocation_ratio: float | None
    ram_allocation_ratio: float | None
    disk_allocation_ratio: float | None
    running_vms: int | None
    current_workload: int | None
    cpu_info: str
    supported_instances: str | None
    stats: str | None
