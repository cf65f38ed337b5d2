# SPDX-License-Identifier: Apache-2.0
"""What tells schedulers. A driver of kind ``scheduler`` keeps this contract."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from cepheid import errors

#: Where Nova's schedulers listen, and the version in which the messages appeared that are sent
#: here; every scheduler since Kilo takes it. Source: Nova's scheduler/rpcapi.py.
TOPIC = "scheduler"
VERSION = "4.2"


class SchedulerUnavailable(errors.CepheidError):
    """No scheduler could be told; whether the message went out is not known."""


class Scheduler(abc.ABC):
    """Tells all schedulers that listen. Usable by several threads."""

    @property
    @abc.abstractmethod
    def enabled(self) -> bool:
        """Whether there is anybody to tell; if not, facts need not be gathered."""

    @abc.abstractmethod
    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        """Tell which instances a host has: all of them, in this order.

        :raises SchedulerUnavailable: the message could not be sent
        """
