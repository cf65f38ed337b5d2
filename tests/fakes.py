# SPDX-License-Identifier: Apache-2.0
"""Small real classes that keep the drivers' contracts, for decisions and faults.

The drivers in memory are the kit's. The contract tests run on them and on the real ones alike.
"""

from __future__ import annotations

import threading

from cepheid_plugins.notifications.outbox import Message
from cepheid_plugins.testing.bandwidth import MemoryMeter as FakeMeter
from cepheid_plugins.testing.hypervisor import RESOURCES, definition_of
from cepheid_plugins.testing.hypervisor import MemoryHypervisor as FakeHypervisor
from cepheid_plugins.testing.network import MemoryNetwork as FakeNetwork
from cepheid_plugins.testing.notifications import MemoryNotifier as FakeNotifier
from cepheid_plugins.testing.scheduler import MemoryScheduler as FakeScheduler

__all__ = [
    "RESOURCES",
    "FakeHypervisor",
    "FakeMeter",
    "FakeNetwork",
    "FakeNotifier",
    "FakePublisher",
    "FakeScheduler",
    "definition_of",
]


class FakePublisher:
    """Keeps the ids of the messages it is given; fails and hangs when it is told to."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.attempts = 0
        #: How often it was closed.
        self.closed = 0
        #: What publishing raises.
        self.error: Exception | None = None
        #: While this is not set, publishing hangs.
        self.answers = threading.Event()
        self.answers.set()

    def publish(self, message: Message) -> None:
        self.attempts += 1
        self.answers.wait()
        if self.error is not None:
            raise self.error
        self.published.append(message.message_id)

    def close(self) -> None:
        self.closed += 1
