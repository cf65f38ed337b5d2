# SPDX-License-Identifier: Apache-2.0
"""What sends notifications. A driver of kind ``notifications`` keeps this contract."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any


class Notifier(abc.ABC):
    """Sends notifications. Usable by several threads."""

    @abc.abstractmethod
    def info(self, event_type: str, payload: Mapping[str, Any], request_id: str = "") -> None:
        """Send one of priority INFO.

        One that cannot be sent is logged, and does not come out as an error.

        :param payload: what JSON can hold
        """

    @abc.abstractmethod
    def error(self, event_type: str, payload: Mapping[str, Any], request_id: str = "") -> None:
        """Send one of priority ERROR, likewise."""
