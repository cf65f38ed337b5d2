# SPDX-License-Identifier: Apache-2.0
"""Notifications by oslo.messaging's drivers (log, messagingv2, ...), topics and transport.

What needs a broker goes through the outbox.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from cepheid import libraries
from cepheid.metric import Metric, gauge
from cepheid_plugins.notifications import opts
from cepheid_plugins.notifications.driver import Notification, NotificationsRefused, Notifier
from cepheid_plugins.notifications.outbox import FILE_NAME, Message, Outbox, Standing
from cepheid_plugins.notifications.sender import Sender

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)


class MessagingNotifier(Notifier):
    """Sends as ``[oslo_messaging_notifications]`` says.

    An outbox that is missing is made when it is first needed: what only reads makes none.

    :raises ConfigError: the drivers or the transport cannot be used
    :raises OutboxError: there is an outbox, and it cannot be used
    :raises PluginError: oslo.messaging is not installed
    """

    options = opts.OPTIONS

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._path = agent.state_path / FILE_NAME
        self._publishers = _publishers()
        self._direct = self._new_publisher()
        self._direct.open()
        self._direct.close()
        self._opening = threading.Lock()
        self._sender: Sender | None = None
        self._direct_lock = threading.Lock()
        self._decided: tuple[cfg.ConfigOpts, Any] | None = None
        if self._path.exists():
            self._opened()

    def serve(self) -> None:
        """Send what an earlier agent, or a command, has left.

        :raises OutboxError: the outbox cannot be used
        """
        self._opened().start()

    def send(self, notifications: Sequence[Notification]) -> None:
        messages = [self._message(one) for one in notifications]
        if self._way() is not self._publishers.Way.OUTBOX:
            self._send_now(messages)
            return
        options = self._agent.conf.notifications
        sender = self._opened()
        if sender.outbox.take(messages, options.max_waiting, options.remember_days):
            sender.wake()

    def metrics(self) -> Iterator[Metric]:
        """Give what waits, read on a connection of the calling thread's own."""
        standing = self._standing()
        yield gauge(
            "cepheid_notifications_waiting", "Notifications that wait to be sent.", standing.waiting
        )
        oldest = standing.oldest
        yield Metric(
            "cepheid_notifications_oldest_timestamp_seconds",
            "When the oldest notification that waits was taken; none where none waits.",
            {(): oldest.replace(tzinfo=datetime.UTC).timestamp()} if oldest else {},
        )

    def close(self) -> None:
        """Give what waits a moment to be sent; what is left then is for who comes next."""
        sender = self._sender
        if sender is None:
            return
        is_idle = sender.close(self._agent.conf.notifications.flush_timeout)
        waiting = sender.outbox.standing().waiting
        if waiting:
            LOG.warning(
                "Notifications are left in %s until they can be sent: %d", self._path, waiting
            )
        if is_idle:
            sender.outbox.close()

    def _standing(self) -> Standing:
        if not self._path.exists():
            return Standing()
        outbox = Outbox.read_only(self._path)
        try:
            return outbox.standing()
        finally:
            outbox.close()

    def _opened(self) -> Sender:
        """Return what sends from the outbox, opened on first use.

        :raises OutboxError: the outbox cannot be used
        """
        agent = self._agent
        with self._opening:
            if self._sender is None:
                self._sender = Sender(
                    Outbox(self._path, agent.clock),
                    self._new_publisher(),
                    agent.state_path,
                    agent.clock,
                    agent.random,
                )
            return self._sender

    def _send_now(self, messages: Sequence[Message]) -> None:
        """Send where nothing is in the way. As always, one with a known message id only once."""
        with self._direct_lock:
            named = [one.message_id for one in messages if one.remembered]
            known = self._opened().outbox.sent(named) if named else set()
            new = {one.message_id: one for one in messages if one.message_id not in known}
            if self._way() is self._publishers.Way.AT_ONCE:
                for message in new.values():
                    self._direct.publish(message)
            if named:
                self._opened().outbox.remember(named)

    def _way(self) -> Any:
        conf = self._agent.conf
        if self._decided is None or self._decided[0] is not conf:
            self._decided = (conf, self._publishers.way(conf))
        return self._decided[1]

    def _message(self, one: Notification) -> Message:
        source = "nova-compute:" if one.versioned else "compute."
        message_id = one.message_id or str(uuid.uuid4())
        body = {
            "message_id": message_id,
            "publisher_id": f"{source}{self._agent.host}",
            "event_type": one.event_type,
            "priority": one.priority,
            "payload": dict(one.payload),
            "timestamp": str(self._agent.clock.utcnow()),
        }
        try:
            text = json.dumps(body)
        except (TypeError, ValueError) as err:
            raise NotificationsRefused(
                f"{one.event_type} was not taken, nor what came with it: {err}."
            ) from err
        return Message(message_id, text, one.request_id, one.versioned, bool(one.message_id))

    def _new_publisher(self) -> Any:
        return self._publishers.OsloPublisher(lambda: self._agent.conf)


@functools.cache
def _publishers() -> Any:
    """Load what wraps oslo.messaging.

    :raises PluginError: it is not installed
    """
    return libraries.load_part(
        "cepheid_plugins.notifications.publisher",
        "Notifications cannot be sent",
        "remove [oslo_messaging_notifications] driver",
    )
