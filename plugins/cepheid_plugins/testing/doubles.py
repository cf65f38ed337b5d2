# SPDX-License-Identifier: Apache-2.0
"""The doubles of the bundled kinds: the entry points of ``cepheid.testing``."""

from __future__ import annotations

from pathlib import Path

from cepheid.clock import Clock
from cepheid_plugins.testing.bandwidth import MemoryMeter
from cepheid_plugins.testing.hypervisor import MemoryHypervisor
from cepheid_plugins.testing.inventory import make as database
from cepheid_plugins.testing.network import MemoryNetwork
from cepheid_plugins.testing.notifications import MemoryNotifier
from cepheid_plugins.testing.scheduler import MemoryScheduler

__all__ = ["bandwidth", "database", "hypervisor", "network", "notifications", "scheduler"]


def bandwidth(clock: Clock, path: Path) -> MemoryMeter:
    """Return a double of the bandwidth meter."""
    return MemoryMeter()


def hypervisor(clock: Clock, path: Path) -> MemoryHypervisor:
    """Return a double of the hypervisor."""
    return MemoryHypervisor()


def network(clock: Clock, path: Path) -> MemoryNetwork:
    """Return a double of the networks."""
    return MemoryNetwork()


def notifications(clock: Clock, path: Path) -> MemoryNotifier:
    """Return a double of the sender of notifications."""
    return MemoryNotifier()


def scheduler(clock: Clock, path: Path) -> MemoryScheduler:
    """Return a double of the schedulers."""
    return MemoryScheduler()
