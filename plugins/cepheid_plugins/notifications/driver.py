# SPDX-License-Identifier: Apache-2.0
"""The contract of a driver of kind ``notifications``: what sends notifications."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid import errors


class NotificationsRefused(errors.CepheidError):
    """Notifications were not taken; none of them is sent. To try again later makes sense."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification.

    :param payload: what JSON can hold
    :param priority: ``INFO``, ``ERROR``, ... as in oslo.messaging
    :param message_id: a uuid, by which a consumer recognizes a repetition. Where it is empty, one
        is made when the notification is taken, and it is the same at each attempt to send it
    :param versioned: whether it is of Nova's versioned format, which has topics of its own
    """

    event_type: str
    payload: Mapping[str, Any]
    priority: str = "INFO"
    request_id: str = ""
    message_id: str = ""
    versioned: bool = False


class Notifier(abc.ABC):
    """Sends notifications. Usable by several threads."""

    @abc.abstractmethod
    def send(self, notifications: Sequence[Notification]) -> None:
        """Take notifications, to be sent in this order; all of them or none.

        This does not wait until they are sent. What was taken is sent even if the agent dies. A
        notification whose message_id was taken before is passed over.

        :raises NotificationsRefused: too many wait already, or they cannot be kept
        """
