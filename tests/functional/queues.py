# SPDX-License-Identifier: Apache-2.0
"""What a RabbitMQ holds in a queue of notifications, taken out of it."""

from __future__ import annotations

import json
from typing import Any

import amqp
import kombu

from tests.functional.processes import PATIENCE_SECONDS, wait_until
from tests.functional.rabbitmq import RabbitMQ


class Queue:
    """A queue of notifications, as the publisher declares it where no consumer has done so.

    :param name: the topic and the priority
    """

    def __init__(self, broker: RabbitMQ, name: str = "notifications.info") -> None:
        self._broker = broker
        self._name = name
        #: All that was taken out of it so far.
        self.messages: list[dict[str, Any]] = []

    def take(self) -> list[dict[str, Any]]:
        """Take out what it holds; return all that was taken so far."""
        with kombu.Connection(self._broker.url.replace("rabbit://", "amqp://")) as connection:
            channel = connection.channel()
            try:
                while (found := channel.basic_get(self._name, no_ack=True)) is not None:
                    self.messages.append(json.loads(json.loads(found.body)["oslo.message"]))
            except amqp.NotFound:
                pass  # nobody has declared it yet
        return self.messages

    def wait_for(self, count: int, seconds: float = PATIENCE_SECONDS) -> list[dict[str, Any]]:
        """Wait until so many were taken out; return them."""
        wait_until(
            lambda: len(self.take()) >= count, lambda: f"{len(self.messages)} of {count}", seconds
        )
        return self.messages

    @property
    def ids(self) -> list[str]:
        """The ids of the messages that were taken out."""
        return [message["message_id"] for message in self.messages]
