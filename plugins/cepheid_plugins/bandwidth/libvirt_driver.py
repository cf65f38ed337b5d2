# SPDX-License-Identifier: Apache-2.0
"""The bundled meter: libvirt's counters of the interfaces of running domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cepheid import errors
from cepheid_plugins.bandwidth.driver import (
    BandwidthMeter,
    InterfaceCounters,
    MeteredInstance,
    MeterError,
)

if TYPE_CHECKING:
    from cepheid.agent import Agent


class LibvirtMeter(BandwidthMeter):
    """libvirt's counters of all interfaces of running domains.

    Whatever the inventory knows of them.
    """

    wants_interfaces = False

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.hypervisor = agent.driver("hypervisor")

    def read(self, instances: Sequence[MeteredInstance]) -> list[InterfaceCounters]:
        try:
            found = self.hypervisor.network_counters([instance.uuid for instance in instances])
        except errors.CepheidError as err:
            raise MeterError(str(err)) from err
        return [
            InterfaceCounters(uuid, one.mac, one.received_bytes, one.sent_bytes)
            for uuid, counters in found.items()
            for one in counters
        ]
