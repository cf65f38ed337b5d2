# SPDX-License-Identifier: Apache-2.0
"""Keep what tap devices carry per hour, without an inventory.

Reads /proc/net/dev once. Writes one file of SQLite, in one transaction.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path

from oslo_config import cfg

import cepheid
from acme_bandwidth import tap_devices
from acme_bandwidth.tap_devices import Traffic
from acme_bandwidth.traffic_file import TrafficFile
from cepheid.periodic_task import periodic_task


class PollBandwidthUsage(cepheid.Task):
    """Keep what each tap device carries per hour, in a file."""

    options = [
        tap_devices.DEVICE_FILE,
        cfg.ListOpt(
            "devices", default=["tap*", "vnet*"], help="The devices to meter: names or patterns."
        ),
        cfg.StrOpt(
            "traffic_file",
            default="$state_path/acme-traffic.sqlite",
            help="The file of SQLite that has the traffic of every hour (UTC) and device.",
        ),
    ]
    nova_spacing = "bandwidth_poll_interval"

    @periodic_task(spacing=600)
    def poll_bandwidth_usage(self, context):
        file = TrafficFile(Path(self.conf.traffic_file))
        last = file.counters()
        devices = tap_devices.read(Path(self.conf.device_file))
        for name in devices.malformed:
            context.skip(name, f"bad line in {self.conf.device_file}")
        counters = {
            name: counted
            for name, counted in devices.counters.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.conf.devices)
        }
        context.count("devices", len(counters))
        changed = {name: now for name, now in counters.items() if last.get(name) != now}
        if not changed:
            return
        hour = f"{self.agent.clock.utcnow():%Y-%m-%dT%H:00Z}"
        carried = carried_since(last, changed)
        context.change(
            "traffic",
            target=str(file.path),
            after=f"{sum(map(sum, carried.values()))} bytes",
            reason=f"by {len(carried)} of the devices, in the hour {hour}",
            do=lambda: file.save(hour, carried, changed),
        )


def carried_since(
    last: Mapping[str, Traffic], counters: Mapping[str, Traffic]
) -> dict[str, Traffic]:
    """Return what each device has carried since the last time.

    A device that was not there then, or whose counters went back, was made since: it carried all
    that it has counted. The first time of all is where counting begins.
    """
    carried = {}
    for name, now in counters.items():
        before = last.get(name, Traffic(0, 0) if last else now)
        if now.in_bytes < before.in_bytes or now.out_bytes < before.out_bytes:
            before = Traffic(0, 0)
        carried[name] = Traffic(now.in_bytes - before.in_bytes, now.out_bytes - before.out_bytes)
    return carried
