# SPDX-License-Identifier: Apache-2.0
"""Keep what instances read from and write to their volumes, and tell whoever meters it.

Reads instances, block_device_mapping and the counters of all domains' disks in one call. Writes
volume_usage_cache; sends volume.usage.
Source: Nova's _poll_volume_usage.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cepheid
from cepheid import errors
from cepheid.periodic_task import periodic_task
from cepheid.run import RunContext
from cepheid_plugins.compute import metering_explained
from cepheid_plugins.compute.notifications import Notifications
from cepheid_plugins.database.records import Attachment, VolumeUsage
from cepheid_plugins.hypervisor.driver import BlockCounters
from cepheid_plugins.notifications.driver import Notification
from cepheid_plugins.notifications.versioned import timestamp, versioned_object

if TYPE_CHECKING:
    from cepheid.agent import Agent

COUNTERS = BlockCounters._fields

#: The most that the columns hold: signed, of 64 bits.
MOST = 2**63 - 1


class Reading(NamedTuple):
    """The counters of an attached volume, and what is on record of it."""

    attachment: Attachment
    counters: BlockCounters
    before: VolumeUsage | None
    read_at: datetime.datetime

    @property
    def is_reset(self) -> bool:
        """Whether they began anew: any of them went back, or the volume was attached anew."""
        return self.before is not None and (
            self._is_attached_anew(self.before)
            or any(
                getattr(self.counters, name) < getattr(self.before, f"curr_{name}")
                for name in COUNTERS
            )
        )

    def _is_attached_anew(self, before: VolumeUsage) -> bool:
        """Tell whether the volume was attached since it was read.

        An attachment from the future tells nothing: with the clock of who made it ahead, each
        pass would take it for new.
        """
        if before.instance_uuid not in (None, self.attachment.instance_uuid):
            return True
        last_read, attached_at = before.curr_last_refreshed, self.attachment.attached_at
        if last_read is None or attached_at is None:
            return False
        return last_read < attached_at <= self.read_at

    @property
    def is_changed(self) -> bool:
        """Whether it has to be written."""
        before = self.before
        return (
            before is None
            or self.is_reset
            or before.instance_uuid != self.attachment.instance_uuid
            or any(
                getattr(self.counters, name) != getattr(before, f"curr_{name}") for name in COUNTERS
            )
        )

    def refreshed(self, now: datetime.datetime) -> datetime.datetime:
        """Return when its counters were last read: now, unless Nova has done so since."""
        before = self.before.tot_last_refreshed if self.before else None
        return max(before, now) if before else now

    @property
    def is_bookable(self) -> bool:
        """Whether its counters are such, and a row can hold them and all that was ever counted."""
        return min(self.counters) >= 0 and max(self.totals().values()) <= MOST

    def totals(self) -> dict[str, int]:
        """Return all that was ever counted."""
        return {name: self._before(name) + getattr(self.counters, name) for name in COUNTERS}

    def _before(self, name: str) -> int:
        if self.before is None:
            return 0
        total: int = getattr(self.before, f"tot_{name}")
        return total + (getattr(self.before, f"curr_{name}") if self.is_reset else 0)


class PollVolumeUsage(cepheid.Task):
    """Keep what instances read from and write to their volumes."""

    drivers = ("database", "hypervisor")
    nova_spacing = "volume_usage_poll_interval"
    time_limit = 300
    explains = {"instance": "instances of this host with volumes attached"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.notifications = Notifications(agent)

    @periodic_task
    def poll_volume_usage(self, context: RunContext) -> None:
        if self.conf.spacing == 0:
            # In Nova, too, 0 switches this one off.
            context.explain(None, "volumes are not read", rule="spacing")
            return
        attached, counts, usages = self.database.attached_volumes(self.agent.host)
        context.count("volumes", len(attached))
        usable = self._usable(context, attached)
        if not usable:
            return
        wanted: dict[str, list[str]] = {}
        for row in usable:
            wanted.setdefault(row.instance_uuid, []).append(device(row))
        read_at = self.agent.clock.utcnow()
        counters = self.hypervisor.block_counters(wanted)
        recorded: dict[str | None, list[VolumeUsage]] = {}
        for usage in usages:
            recorded.setdefault(usage.volume_id, []).append(usage)
        read = [
            Reading(row, told, on_record(row, counts, recorded.get(row.volume_id, ())), read_at)
            for row in usable
            if (told := counters.get(row.instance_uuid, {}).get(device(row))) is not None
        ]
        context.count("read", len(read))
        _explain(context, usable, read)
        readings, changed = self._bookable(context, read)
        if changed:
            # One for all: they are counters, and a history of each would bury everything else.
            context.change(
                "volume_usage",
                self.agent.host,
                None,
                len(changed),
                f"volumes with other counters; {sum(r.is_reset for r in changed)} began anew",
                do=lambda: self._save(changed),
            )
        if not context.dry_run:
            self._tell(context, readings)

    def _usable(self, context: RunContext, attached: Iterable[Attachment]) -> list[Attachment]:
        usable = []
        for row in attached:
            if row.volume_id and row.device_name:
                usable.append(row)
            else:
                what = "volume_id" if not row.volume_id else "device_name"
                context.skip(row.instance_uuid, f"a volume of it has no {what}")
        return usable

    def _bookable(
        self, context: RunContext, readings: Iterable[Reading]
    ) -> tuple[list[Reading], list[Reading]]:
        """Return the readings that rows can hold, and those of them that have to be written."""
        bookable, changed = [], []
        for reading in readings:
            is_changed = reading.is_changed
            # What is on record already can be.
            if is_changed and not reading.is_bookable:
                context.skip(
                    reading.attachment.volume_id or "",
                    "its counters are negative, or with what was counted before more than a row "
                    "can hold",
                    about=reading.attachment.instance_uuid,
                )
                continue
            bookable.append(reading)
            if is_changed:
                changed.append(reading)
        return bookable, changed

    def _save(self, readings: Sequence[Reading]) -> None:
        known: dict[int, dict[str, Any]] = {}
        new: list[dict[str, Any]] = []
        for reading in readings:
            values = {f"curr_{name}": value for name, value in reading.counters._asdict().items()}
            values |= reading.attachment._asdict()
            del values["device_name"], values["attached_at"]
            if reading.before is None:
                new.append(values)
            else:
                known[reading.before.id] = values
        carried = [r.before.id for r in readings if r.before is not None and r.is_reset]
        self.database.save_volume_usage(known, new, carried)

    def _tell(self, context: RunContext, readings: Sequence[Reading]) -> None:
        """Tell of the counters. They are written already, whether they can be told or not."""
        now = self.agent.clock.utcnow()
        formats = [one for one in (False, True) if self.notifications.wanted(versioned=one)]
        told = [
            Notification(
                "volume.usage",
                versioned_payload(reading, now) if versioned else payload(reading, now),
                request_id=context.request_id,
                versioned=versioned,
            )
            for reading in readings
            for versioned in formats
        ]
        try:
            self.notifications.send(told)
        except errors.CepheidError as err:
            context.count("failed", len(readings))
            context.notice("notifications", f"volumes' usage is not told: {err}")


def _explain(
    context: RunContext, attached: Sequence[Attachment], readings: Sequence[Reading]
) -> None:
    """Say of each volume of an instance what is read of it, and whether that is written."""
    read = {id(reading.attachment): reading for reading in readings} if context.targets else {}
    for row in context.asked(attached, key=lambda row: row.instance_uuid):
        volume = f"volume {row.volume_id} ({device(row)})"
        reading = read.get(id(row))
        if reading is None:
            context.explain(
                row.instance_uuid,
                f"the counters of {volume} are not told: its guest does not run, or has no such "
                "disk",
            )
            continue
        if not reading.is_bookable:
            continue  # where it is skipped it is said why
        before = reading.before
        metering_explained.explain(
            context, row.instance_uuid, "volume_usage", volume,
            before and {name: getattr(before, f"curr_{name}") for name in COUNTERS},
            {name: getattr(reading.counters, name) for name in COUNTERS},
            is_changed=reading.is_changed, is_reset=reading.is_reset,
        )  # fmt: skip


def payload(reading: Reading, now: datetime.datetime) -> dict[str, Any]:
    """Return what the legacy notification says of a volume."""
    row = reading.attachment
    return {
        "volume_id": row.volume_id,
        "tenant_id": row.project_id,
        "user_id": row.user_id,
        "availability_zone": row.availability_zone,
        "instance_id": row.instance_uuid,
        "last_refreshed": f"{reading.refreshed(now).replace(microsecond=0)}+00:00",
        **reading.totals(),
    }


def versioned_payload(reading: Reading, now: datetime.datetime) -> dict[str, Any]:
    """Return what the versioned notification says of a volume."""
    row = reading.attachment
    return versioned_object(
        "VolumeUsagePayload",
        "1.0",
        {
            "volume_id": row.volume_id,
            "project_id": row.project_id,
            "user_id": row.user_id,
            "availability_zone": row.availability_zone,
            "instance_uuid": row.instance_uuid,
            "last_refreshed": timestamp(reading.refreshed(now)),
            **reading.totals(),
        },
    )


def device(row: Attachment) -> str:
    """Return the target of a volume in its domain."""
    return (row.device_name or "").removeprefix("/dev/")


def on_record(
    row: Attachment, counts: Mapping[str, int] | Counter[str], of_volume: Sequence[VolumeUsage]
) -> VolumeUsage | None:
    """Return what is on record of a volume; if it has several attachments, of this one.

    Otherwise each of them would look like a guest that was started anew. It has had several where
    there is more than one row: the attachment that is left goes on with its own.
    """
    own = [usage for usage in of_volume if usage.instance_uuid == row.instance_uuid]
    found = own or ([] if counts[row.volume_id or ""] > 1 else of_volume)
    return found[0] if found else None
