# SPDX-License-Identifier: Apache-2.0
"""The bandwidth meter ``acme``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from acme_bandwidth import tap_devices
from cepheid.notices import Notices
from cepheid_plugins.bandwidth.driver import BandwidthMeter, InterfaceCounters, MeteredInstance

LOG = logging.getLogger(__name__)


class TapMeter(BandwidthMeter):
    """Reads what tap devices have counted, from ``/proc/net/dev``."""

    options = [tap_devices.DEVICE_FILE]

    def __init__(self, agent):
        super().__init__(agent)
        self._path = Path(agent.conf.bandwidth.device_file)
        self._notices = Notices(LOG)

    def check(self) -> None:
        """Find out whether the file can be read; the agent does so at its start."""
        tap_devices.read(self._path)

    def read(self, instances: Sequence[MeteredInstance]) -> list[InterfaceCounters]:
        """Return the counters of the devices that are there; the file is read once."""
        devices = tap_devices.read(self._path)
        claims = Counter(vif.devname for instance in instances for vif in instance.interfaces)
        self._warn(devices.malformed, claims)
        return [
            InterfaceCounters(instance.uuid, vif.mac, counted.in_bytes, counted.out_bytes)
            for instance in instances
            for vif in instance.interfaces
            if claims[vif.devname] == 1 and (counted := devices.counters.get(vif.devname))
        ]

    def _warn(self, malformed: list[str], claims: Counter[str]) -> None:
        self._notices.begin()
        for name in malformed:
            self._notices.say(name, f"{name} is not metered: bad line in {self._path}")
        for name, number in claims.items():
            if name and number > 1:
                self._notices.say(name, f"{name} is not metered: it is of {number} interfaces")
        self._notices.end(complete=True)
