# SPDX-License-Identifier: Apache-2.0
"""No scheduler: for hosts without a message broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cepheid_plugins.scheduler import opts
from cepheid_plugins.scheduler.driver import Scheduler

if TYPE_CHECKING:
    from cepheid.agent import Agent


class NoScheduler(Scheduler):
    """Tells nobody."""

    options = opts.OPTIONS

    def __init__(self, agent: Agent) -> None:
        pass

    @property
    def enabled(self) -> bool:
        return False

    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        return
