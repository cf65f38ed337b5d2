# SPDX-License-Identifier: Apache-2.0
"""Keep what goes through instances' network interfaces, for each audit period.

Reads instances, instance_info_caches and the bandwidth meter. Writes bw_usage_cache.
Source: Nova's _poll_bandwidth_usage of 16.x.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import RunContext
from cepheid_plugins.bandwidth.driver import InterfaceCounters, MeteredInstance, MeteredInterface
from cepheid_plugins.compute import audit_periods, metering_explained
from cepheid_plugins.database.records import BandwidthUsage, Networked
from cepheid_plugins.network import network_info

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: The most that the columns hold: signed, of 64 bits.
MOST_BYTES = 2**63 - 1


class Reading(NamedTuple):
    """The counters of an interface, and what is on record of it.

    :param row: of this period
    :param last: the counters at the last look, in this period or the one before: in and out
    :param bw_in: what the period has counted by now
    """

    counters: InterfaceCounters
    row: BandwidthUsage | None
    last: tuple[int | None, int | None]
    bw_in: int
    bw_out: int

    @property
    def is_restarted(self) -> bool:
        """Whether a counter went back: the guest was started anew, or came from another host."""
        last_in, last_out = self.last
        return self.counters.in_bytes < (last_in or 0) or self.counters.out_bytes < (last_out or 0)

    @property
    def is_changed(self) -> bool:
        """Whether its row has to be written, or made."""
        row, now = self.row, self.counters
        return row is None or (
            (row.bw_in, row.bw_out, row.last_ctr_in, row.last_ctr_out)
            != (self.bw_in, self.bw_out, now.in_bytes, now.out_bytes)
        )

    def values(self) -> dict[str, int]:
        """Return the values of its row of this period."""
        return {
            "bw_in": self.bw_in,
            "bw_out": self.bw_out,
            "last_ctr_in": self.counters.in_bytes,
            "last_ctr_out": self.counters.out_bytes,
        }


class PollBandwidthUsage(cepheid.Task):
    """Keep what goes through instances' network interfaces, for each audit period."""

    shared_options = (("instance_usage_audit", [audit_periods.OPTION]),)
    drivers = ("database", "bandwidth")
    nova_spacing = "bandwidth_poll_interval"
    time_limit = 300
    explains = {"instance": "instances of this host"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.meter = agent.driver("bandwidth")
        #: Why the meter is not asked any more.
        self._refusal = ""

    @periodic_task(spacing=600)
    def poll_bandwidth_usage(self, context: RunContext) -> None:
        if self._refusal:
            context.notice("meter", self._refusal)
            return
        unit = self.agent.conf.instance_usage_audit.instance_usage_audit_period
        period = audit_periods.last_completed(unit, self.agent.clock.utcnow())
        networked, rows = self.database.bandwidth_on_host(
            self.agent.host, period, self.meter.wants_interfaces
        )
        context.count("instances", len(networked))
        if not networked:
            return
        told = self._ask(context, self._metered(context, networked))
        counters = self._usable(context, told, {row.uuid for row in networked})
        context.count("read", len(counters))
        readings = self._holding(context, on_record(counters, rows, period.end))
        self._explain(context, networked, readings)
        changed = [reading for reading in readings if reading.is_changed]
        anew = sum(reading.is_restarted for reading in changed)
        if changed:
            # One for all: they are counters, and a history of each would bury everything else.
            context.change(
                "bandwidth_usage",
                self.agent.host,
                None,
                len(changed),
                f"interfaces with other counters; {anew} began anew",
                do=lambda: self._save(context, period.end, changed),
            )

    def _metered(self, context: RunContext, rows: Iterable[Networked]) -> list[MeteredInstance]:
        if not self.meter.wants_interfaces:
            return [MeteredInstance(row.uuid, ()) for row in rows]
        instances = []
        for row in rows:
            try:
                interfaces = metered_interfaces(row.network_info)
            except ValueError as err:
                context.skip(
                    row.uuid,
                    f"what is cached of its network cannot be read ({err}); it is counted only "
                    "where the meter finds its interfaces by itself",
                )
                interfaces = ()
            instances.append(MeteredInstance(row.uuid, interfaces))
        return instances

    def _ask(
        self, context: RunContext, instances: Sequence[MeteredInstance]
    ) -> list[InterfaceCounters]:
        """Return what the meter tells, all of it."""
        try:
            return list(self.meter.read(instances))
        except NotImplementedError as err:
            name = f"{type(self.meter).__module__}.{type(self.meter).__qualname__}"
            self._refusal = (
                f"the bandwidth meter {name} cannot count on this host"
                f"{f': {err}' if str(err) else ''}. It is not asked again; see [bandwidth] driver, "
                "and restart the agent."
            )
            context.notice("meter", self._refusal)
            return []

    def _usable(
        self, context: RunContext, told: Iterable[InterfaceCounters], uuids: set[str]
    ) -> list[InterfaceCounters]:
        """Return the counters that can be counted; none of an interface that was told of twice."""
        good = []
        for one in told:
            problem = flaw(one)
            if problem:
                context.skip(name_of(one), problem, about=getattr(one, "uuid", None))
            elif one.uuid not in uuids:
                context.count("unknown")
            else:
                good.append(one)
        times = Counter(key(one.uuid, one.mac) for one in good)
        if len(times) == len(good):
            return good
        for one in good:
            if times[key(one.uuid, one.mac)] > 1:
                context.skip(name_of(one), "the meter told of it more than once", about=one.uuid)
        return [one for one in good if times[key(one.uuid, one.mac)] == 1]

    def _holding(self, context: RunContext, readings: Iterable[Reading]) -> list[Reading]:
        """Return the readings whose sums a row can hold."""
        holding = []
        for reading in readings:
            # The counters themselves do: see :func:`flaw`.
            if reading.bw_in <= MOST_BYTES and reading.bw_out <= MOST_BYTES:
                holding.append(reading)
            else:
                context.skip(
                    name_of(reading.counters),
                    "more went through it than a row can hold",
                    about=reading.counters.uuid,
                )
        return holding

    def _explain(
        self, context: RunContext, networked: Iterable[Networked], readings: Sequence[Reading]
    ) -> None:
        """Say of each interface of an instance what is counted of it, and whether it is written."""
        for row in context.asked(networked):
            of_one = [reading for reading in readings if reading.counters.uuid == row.uuid]
            if not of_one:
                context.explain(row.uuid, metering_explained.NO_INTERFACE)
            for reading in of_one:
                values, before = reading.values(), reading.row
                metering_explained.explain(
                    context, row.uuid, "bandwidth_usage", f"interface {reading.counters.mac}",
                    before and {name: getattr(before, name) for name in values}, values,
                    is_changed=reading.is_changed, is_reset=reading.is_restarted,
                )  # fmt: skip

    def _save(
        self, context: RunContext, start_period: datetime.datetime, readings: Sequence[Reading]
    ) -> None:
        known: list[tuple[BandwidthUsage, Mapping[str, int]]] = []
        new: list[Mapping[str, Any]] = []
        for reading in readings:
            if reading.row is not None:
                known.append((reading.row, reading.values()))
            else:
                uuid, mac = key(reading.counters.uuid, reading.counters.mac)
                new.append({"uuid": uuid, "mac": mac, **reading.values()})
        context.count("raced", self.database.save_bandwidth_usage(start_period, known, new))


def counted(before: int | None, last: int | None, counter: int) -> int:
    """Return what a period has counted by now in one direction.

    A counter that is below its last value has begun anew at 0, so all of it is new. Where the last
    value is not known, nothing is added.

    :param before: what the period had counted; None for nothing
    :param last: the counter at the last look
    """
    before = before or 0
    if last is None:
        return before
    return before + (counter - last if counter >= last else counter)


def on_record(
    counters: Iterable[InterfaceCounters],
    rows: Iterable[BandwidthUsage],
    start_period: datetime.datetime,
) -> list[Reading]:
    """Find what is on record of each interface; of two rows of one, the older counts, as in Nova.

    :param rows: of this period and the one before, the oldest first
    :param start_period: when this period began
    """
    of_period: tuple[dict[Any, BandwidthUsage], dict[Any, BandwidthUsage]] = ({}, {})
    for row in rows:
        found = of_period[row.start_period != start_period]
        found.setdefault(key(row.uuid, row.mac), row)
    current, previous = of_period
    readings = []
    for one in counters:
        interface = key(one.uuid, one.mac)
        row_now = current.get(interface)
        before = row_now or previous.get(interface)
        last = (before.last_ctr_in, before.last_ctr_out) if before else (None, None)
        bw_in, bw_out = (row_now.bw_in, row_now.bw_out) if row_now else (0, 0)
        readings.append(
            Reading(
                one,
                row_now,
                last,
                counted(bw_in, last[0], one.in_bytes),
                counted(bw_out, last[1], one.out_bytes),
            )
        )
    return readings


def key(uuid: str | None, mac: str | None) -> tuple[str, str]:
    """Return what tells an interface from others: its instance's uuid and its MAC in lower case."""
    return uuid or "", (mac or "").lower()


def name_of(one: Any) -> str:
    """Name an interface for the operator."""
    mac, uuid = getattr(one, "mac", "an interface"), getattr(one, "uuid", "an instance")
    return f"{mac!s:.60} of {uuid!s:.60}"


def flaw(one: Any) -> str:
    """Tell what is wrong with what a meter told of an interface; empty where it can be counted."""
    if not isinstance(one, InterfaceCounters):
        return f"the meter told of it in a {type(one).__name__}, not in InterfaceCounters"
    if not all(isinstance(name, str) and 0 < len(name) <= 255 for name in (one.uuid, one.mac)):
        return "its uuid and its MAC are not both a text of a column's length"
    for value in (one.in_bytes, one.out_bytes):
        if type(value) is not int:
            return f"the meter told a counter of it that is a {type(value).__name__}"
        if not 0 <= value <= MOST_BYTES:
            return "the meter told a counter of it that is negative or has more than 63 bits"
    return ""


def metered_interfaces(text: str | None) -> tuple[MeteredInterface, ...]:
    """Return the interfaces in what is cached of an instance's network.

    :raises ValueError: it cannot be read
    """
    try:
        return tuple(
            MeteredInterface(vif["address"].lower(), vif.get("devname") or "")
            for vif in network_info.read_all(text)
        )
    except (TypeError, AttributeError, KeyError) as err:
        raise ValueError("an interface in it has no address") from err
