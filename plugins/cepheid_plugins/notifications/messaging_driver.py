# SPDX-License-Identifier: Apache-2.0
"""Notifications by oslo.messaging: its drivers (log, messagingv2, ...), topics and transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import oslo_messaging

from cepheid import errors
from cepheid_plugins.notifications.driver import Notifier

if TYPE_CHECKING:
    from cepheid.agent import Agent


class MessagingNotifier(Notifier):
    """Sends as ``[oslo_messaging_notifications]`` says, as publisher ``compute.<host>``.

    :raises ConfigError: the transport's URL cannot be used
    """

    options: list[Any] = []

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

    def info(self, event_type: str, payload: Mapping[str, Any], request_id: str = "") -> None:
        self._notifier.info({"request_id": request_id}, event_type, dict(payload))

    def error(self, event_type: str, payload: Mapping[str, Any], request_id: str = "") -> None:
        self._notifier.error({"request_id": request_id}, event_type, dict(payload))

    def close(self) -> None:
        """Close the connection to the broker."""
        self._transport.cleanup()
