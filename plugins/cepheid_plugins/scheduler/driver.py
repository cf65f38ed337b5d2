# SPDX-License-Identifier: Apache-2.0
"""The contract of a driver of kind ``scheduler``: what tells schedulers of a host's instances."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from cepheid import errors

#: The topic on which Nova's schedulers listen, and the version of their API that has these
#: messages; every scheduler since Kilo takes it. Source: Nova's scheduler/rpcapi.py.
TOPIC = "scheduler"
VERSION = "4.2"


class SchedulerUnavailable(errors.CepheidError):
    """No scheduler could be told; whether the message went out is not known."""


class Scheduler(abc.ABC):
    """Tells all schedulers that listen. Usable by several threads."""

    @property
    @abc.abstractmethod
    def enabled(self) -> bool:
        """Whether there is any scheduler to tell; if not, the task need not read the inventory."""

    @abc.abstractmethod
    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        """Tell which instances a host has: all of them, in this order.

        :raises SchedulerUnavailable: the message could not be sent
        """
