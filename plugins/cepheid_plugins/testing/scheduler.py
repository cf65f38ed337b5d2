# SPDX-License-Identifier: Apache-2.0
"""A scheduler that keeps what it is told."""

from __future__ import annotations

from collections.abc import Sequence

from cepheid_plugins.scheduler.driver import Scheduler, SchedulerUnavailable


class MemoryScheduler(Scheduler):
    """Keeps what it is told: (host, uuids, request)."""

    #: What a call that is not answered raises.
    unavailable = SchedulerUnavailable

    enabled = True

    #: A message is no change: a later one says it anew.
    tells_only = True

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], str]] = []
        #: What sending raises.
        self.error: SchedulerUnavailable | None = None

    @property
    def changes(self) -> int:
        """How often anything was changed."""
        return len(self.messages)

    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        if self.error is not None:
            raise self.error
        self.messages.append((host, list(uuids), request_id))
