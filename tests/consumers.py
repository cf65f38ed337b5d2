# SPDX-License-Identifier: Apache-2.0
"""A consumer of notifications, by oslo.messaging's own listener."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import oslo_messaging

from cepheid_plugins.notifications import publisher
from tests.fake_agent import FakeAgent, eventually

TOPICS = ("notifications", "versioned_notifications")


class Endpoint:
    """Keeps each message of one topic."""

    def __init__(self, topic: str, messages: list[dict[str, Any]]) -> None:
        self._topic = topic
        self._messages = messages

    def _keep(self, priority: str, context: Any, told: Sequence[Any]) -> None:
        publisher_id, event_type, payload, metadata = told
        self._messages.append(
            {
                "topic": self._topic,
                "context": context,
                "priority": priority,
                "publisher_id": publisher_id,
                "event_type": event_type,
                "payload": payload,
                **metadata,
            }
        )

    def info(self, context: Any, *told: Any) -> None:
        self._keep("INFO", context, told)

    def error(self, context: Any, *told: Any) -> None:
        self._keep("ERROR", context, told)


class Consumer:
    """What was received so far."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def received(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many messages; return all."""
        eventually(lambda: len(self.messages) >= count)
        return list(self.messages)


@contextmanager
def consuming(agent: FakeAgent, topics: Sequence[str] = TOPICS) -> Iterator[Consumer]:
    """Consume what is sent on an agent's transport."""
    publisher.register_options(agent.conf)
    transport = oslo_messaging.get_notification_transport(agent.conf)
    consumer = Consumer()
    listeners = [
        oslo_messaging.get_notification_listener(
            transport,
            [oslo_messaging.Target(topic=topic)],
            [Endpoint(topic, consumer.messages)],
            executor="threading",
        )
        for topic in topics
    ]
    for listener in listeners:
        listener.start(override_pool_size=1)  # one thread keeps them in their order
    try:
        yield consumer
    finally:
        for listener in listeners:
            listener.stop()
            listener.wait()
        transport.cleanup()
