# SPDX-License-Identifier: Apache-2.0
"""What sends notifications. A driver of kind ``notifications`` keeps this contract."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid import errors


class NotificationsRefused(errors.CepheidError):
    """Notifications were not taken; none of them is sent. The caller may try again later."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told, once.

    :param payload: what JSON can hold
    :param priority: ``INFO``, ``ERROR``, ... as in oslo.messaging
    :param message_id: a uuid. The same in a repetition, so that a consumer can tell one. Where
        it is empty, one is made when the notification is taken, and kept from then on
    :param versioned: of the versioned format, which has topics of its own
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

        It waits for no broker. What was taken survives the agent's death. One whose message_id
        was taken before is passed over.

        :raises NotificationsRefused: too many wait already, or they cannot be kept
        """
