# SPDX-License-Identifier: Apache-2.0
"""Telling that an instance existed within an audit period, in both of Nova's formats.

Source: Nova's legacy ``compute.instance.exists``, of Pike with its bandwidth, and its versioned
``instance.exists`` (InstanceExistsPayload 2.1).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cepheid_plugins.compute import notifications, power_state
from cepheid_plugins.compute.audit_periods import AuditPeriod
from cepheid_plugins.database.records import (
    AuditedInstance,
    AuditedTraffic,
    BlockDevice,
    InstanceFacts,
)
from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import Vif
from cepheid_plugins.notifications.driver import Notification
from cepheid_plugins.notifications.versioned import timestamp, versioned_object

#: The event's name, by whether it is versioned.
EVENTS = {False: "compute.instance.exists", True: "instance.exists"}

#: What message ids are derived in; any uuid would do, as long as it stays the same.
_NAMESPACE = uuid.UUID("5b0c4b3e-6a0f-4d35-9d0c-9f7f6d0a2a6e")

#: Source: Nova's field InstancePowerState.
_POWER_STATES = {
    power_state.NOSTATE: "pending",
    power_state.RUNNING: "running",
    power_state.PAUSED: "paused",
    power_state.SHUTDOWN: "shutdown",
    power_state.CRASHED: "crashed",
    power_state.SUSPENDED: "suspended",
}

#: What an instance takes, which its row has a copy of.
_SIZES = ("memory_mb", "vcpus", "root_gb", "ephemeral_gb")


#: What JSON that is not what it has to be comes to.
_BROKEN = (ValueError, TypeError, AttributeError, LookupError)


class Told(NamedTuple):
    """What is told of an instance.

    :param missing: why its networks, or some of them, are not in it; empty where all are
    """

    notifications: list[Notification]
    missing: str


def exists(
    instance: AuditedInstance,
    period: AuditPeriod,
    formats: Iterable[bool],
    request_id: str,
    with_devices: bool = False,
) -> Told:
    """Return what is told of an instance.

    One whose networks cannot be read is told of without them: what it is billed by is known, and
    who bills would take one that is not told of for one that did not exist.

    :param formats: whether versioned, of each format that is wanted
    :param with_devices: whether the versioned one names the instance's volumes
    :raises ValueError: it cannot be told; the text says why
    """
    _check(instance)
    vifs, missing = _networks(instance)
    payloads = {
        False: lambda: legacy_payload(instance, vifs, period),
        True: lambda: versioned_payload(instance, vifs, period, with_devices),
    }
    try:
        made = [
            Notification(
                EVENTS[versioned],
                payloads[versioned](),
                request_id=request_id,
                message_id=message_id(EVENTS[versioned], instance.facts.columns["uuid"], period),
                versioned=versioned,
            )
            for versioned in formats
        ]
    except _BROKEN as err:
        raise ValueError(f"its flavor cannot be read: {type(err).__name__}: {err}") from err
    return Told(made, missing)


def _networks(instance: AuditedInstance) -> tuple[list[Vif], str]:
    """Return the interfaces that can be told of, and why others cannot, if there are such."""
    readable, missing = [], ""
    try:
        for vif in network_info.read(instance.network_info):
            try:
                _require_readable(vif)
            except _BROKEN as err:
                missing = f"{type(err).__name__}: {err}"
            else:
                readable.append(vif)
    except _BROKEN as err:
        missing = f"{type(err).__name__}: {err}"
    return readable, missing and f"its network_info cannot be read: {missing}"


def _require_readable(vif: Vif) -> None:
    vif["address"].lower()
    label = network_info.label(vif)
    if not isinstance(label, str | None):
        raise TypeError(f"the label of a network is {label!r}")
    for ip in network_info.fixed_ips(vif):
        ip.get("address")


def message_id(event: str, instance_uuid: str, period: AuditPeriod) -> str:
    """Return the id of what is told of an instance and a period.

    It is the same whoever tells it and whenever: also where two hosts do, since the instance moved
    between their audits.
    """
    begin, end = (time.isoformat() for time in period)
    return str(uuid.uuid5(_NAMESPACE, f"{event} {instance_uuid} {begin} {end}"))


def legacy_payload(
    instance: AuditedInstance, vifs: Sequence[Vif], period: AuditPeriod
) -> dict[str, Any]:
    """Return what the unversioned notification says."""
    return {
        **notifications.payload(instance.facts),
        "audit_period_beginning": str(period.begin),
        "audit_period_ending": str(period.end),
        "bandwidth": bandwidth(instance.bandwidth, vifs),
    }


def bandwidth(usages: Iterable[AuditedTraffic], vifs: Iterable[Vif]) -> dict[str, dict[str, int]]:
    """Return the bytes that went in and out, by the names of the networks.

    An interface that is gone since has no network's name; Nova has another for such.
    """
    labels = {vif["address"].lower(): network_info.label(vif) for vif in vifs}
    found: dict[str, dict[str, int]] = {}
    for usage in usages:
        name = labels.get(usage.mac.lower()) or f"net-name-not-found-{usage.mac}"
        of_network = found.setdefault(name, {"bw_in": 0, "bw_out": 0})
        of_network["bw_in"] += usage.bw_in
        of_network["bw_out"] += usage.bw_out
    return found


def versioned_payload(
    instance: AuditedInstance, vifs: Iterable[Vif], period: AuditPeriod, with_devices: bool
) -> dict[str, Any]:
    """Return what the versioned notification says."""
    facts = instance.facts
    columns = facts.columns
    as_they_are = (
        *("uuid", "user_id", "reservation_id", "display_name", "display_description", "host"),
        *("node", "os_type", "architecture", "availability_zone", "key_name", "kernel_id"),
        *("ramdisk_id", "task_state", "progress"),
    )
    times = ("created_at", "launched_at", "terminated_at", "deleted_at", "updated_at")
    data = {
        **{name: columns[name] for name in as_they_are},
        **{name: timestamp(columns[name]) for name in times},
        "tenant_id": columns["project_id"],
        "host_name": columns["hostname"],
        "image_uuid": columns["image_ref"],
        "state": columns["vm_state"],
        "power_state": _POWER_STATES.get(columns["power_state"]),
        "metadata": dict(facts.metadata),
        "locked": bool(columns["locked"]),
        "locked_reason": facts.system_metadata.get("locked_reason"),
        "auto_disk_config": "AUTO" if columns["auto_disk_config"] else "MANUAL",
        "flavor": _flavor(facts),
        "ip_addresses": [_ip(vif, ip) for vif in vifs for ip in network_info.fixed_ips(vif)],
        "block_devices": [_device(one) for one in instance.devices] if with_devices else None,
        "shares": None,
        # Nobody asked for it.
        "request_id": None,
        "action_initiator_user": None,
        "action_initiator_project": None,
        "audit_period": versioned_object(
            "AuditPeriodPayload",
            "1.0",
            {
                "audit_period_beginning": timestamp(period.begin),
                "audit_period_ending": timestamp(period.end),
            },
        ),
    }
    return versioned_object("InstanceExistsPayload", "2.1", data)


def _flavor(facts: InstanceFacts) -> dict[str, Any]:
    """Return the flavor; where none can be read, what the row says of it."""
    flavor: Mapping[str, Any] = facts.flavor or {name: facts.columns[name] for name in _SIZES}
    names = ("flavorid", *_SIZES, "rxtx_factor", "vcpu_weight", "extra_specs", "projects",
             "description")  # fmt: skip
    data = {name: flavor.get(name) for name in names}
    data["name"] = flavor.get("name") or ""
    data["swap"] = flavor.get("swap") or 0
    data["disabled"] = bool(flavor.get("disabled"))
    data["is_public"] = bool(flavor.get("is_public", True))
    return versioned_object("FlavorPayload", "1.4", data)


def _ip(vif: Vif, ip: Mapping[str, Any]) -> dict[str, Any]:
    data = {
        "label": network_info.label(vif) or "",
        "mac": vif["address"],
        "meta": vif.get("meta") or {},
        "port_uuid": vif.get("id"),
        "version": ip.get("version"),
        "address": ip.get("address"),
        "device_name": vif.get("devname"),
    }
    return versioned_object("IpPayload", "1.0", data)


def _device(device: BlockDevice) -> dict[str, Any]:
    data = {
        "device_name": device.device_name,
        "boot_index": device.boot_index,
        "delete_on_termination": bool(device.delete_on_termination),
        "volume_id": device.volume_id,
        "tag": device.tag,
    }
    return versioned_object("BlockDevicePayload", "1.0", data)


def _check(instance: AuditedInstance) -> None:
    """See that what usage is billed by is known.

    :raises ValueError: it is not
    """
    columns = instance.facts.columns
    if columns["deleted"] and not (columns["terminated_at"] or columns["deleted_at"]):
        raise ValueError("it is deleted, and neither terminated_at nor deleted_at says when")
    if not instance.facts.flavor and None in (columns["memory_mb"], columns["vcpus"]):
        raise ValueError("neither its flavor nor its row says what it takes")
