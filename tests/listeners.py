# SPDX-License-Identifier: Apache-2.0
"""A scheduler that keeps what it is sent, on whatever message bus the tests use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import oslo_messaging

from cepheid_plugins.scheduler import rpc
from tests.fake_agent import FakeAgent, eventually


class Listener:
    """Keeps each message whole: its context and its arguments."""

    target = oslo_messaging.Target(version="4.5")  # as a present Nova scheduler's

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def sync_instance_info(self, context: dict[str, Any], **arguments: Any) -> None:
        self.messages.append((context, arguments))

    def received(self, count: int) -> list[tuple[str, list[str]]]:
        """Wait for this many messages; return what each told: host and uuids."""
        eventually(lambda: len(self.messages) >= count)
        return [(told["host_name"], told["instance_uuids"]) for _, told in self.messages]


@contextmanager
def listening(agent: FakeAgent, name: str = "scheduler1") -> Iterator[Listener]:
    """Listen as a scheduler of that name."""
    listener = Listener()
    bus = rpc.open_transport(agent.conf)
    server = oslo_messaging.get_rpc_server(
        bus, oslo_messaging.Target(topic="scheduler", server=name), [listener]
    )
    server.start(override_pool_size=1)  # one thread keeps them in their order
    try:
        yield listener
    finally:
        server.stop()
        server.wait()
        bus.cleanup()
