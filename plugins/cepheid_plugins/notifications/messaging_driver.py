# SPDX-License-Identifier: Apache-2.0
"""Notifications by oslo.messaging: its drivers (log, messagingv2, ...), topics and transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import oslo_messaging

from cepheid import errors
from cepheid_plugins.notifications import opts
from cepheid_plugins.notifications.driver import Notification, Notifier

if TYPE_CHECKING:
    from cepheid.agent import Agent


class MessagingNotifier(Notifier):
    """Sends as ``[oslo_messaging_notifications]`` says, as publisher ``compute.<host>``.

    :raises ConfigError: the transport's URL cannot be used
    """

    options = opts.OPTIONS

    def __init__(self, agent: Agent) -> None:
        try:
            transport = oslo_messaging.get_notification_transport(agent.conf)
        except oslo_messaging.MessagingException as err:
            raise errors.ConfigError(
                f"Notifications cannot be sent: {err}. Look at transport_url in "
                "[oslo_messaging_notifications] and [DEFAULT]."
            ) from err
        self._transport = transport
        # A broker that is away costs the message, not the pass.
        self._notifier = oslo_messaging.Notifier(
            transport, publisher_id=f"compute.{agent.host}", retry=0
        )

    def send(self, notifications: Sequence[Notification]) -> None:
        for one in notifications:
            publish = getattr(self._notifier, one.priority.lower())
            publish({"request_id": one.request_id}, one.event_type, dict(one.payload))

    def close(self) -> None:
        """Close the connection to the broker."""
        self._transport.cleanup()
