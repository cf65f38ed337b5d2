# SPDX-License-Identifier: Apache-2.0
"""What the agent does for its journal beside writing it: it lets old records go."""

from __future__ import annotations

import logging

from cepheid import errors
from cepheid.agent import Agent

LOG = logging.getLogger(__name__)


class JournalKeeper:
    """Removes what is older than ``journal_retention_days``, and puts the newest seal in the log.

    What is in the log, and went from there to another host, shows a journal that was made anew.
    """

    name = "journal"

    #: Seconds before its first turn, the least and the most.
    FIRST_SECONDS = (60.0, 600.0)
    #: Seconds between two looks, and between two batches of one look: runs come between.
    INTERVAL_SECONDS = 3600.0
    PAUSE_SECONDS = 0.5
    #: Seconds between two seals in the log.
    SEAL_SECONDS = 86400.0

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._told_at: float | None = None
        self._reason = ""

    def keep(self) -> float:
        """Remove a batch; return the seconds until the next."""
        try:
            more = self._prune()
            if not more:
                self._tell_seal()
        except errors.JournalError as err:
            self._say(str(err))
            return self.INTERVAL_SECONDS
        return self.PAUSE_SECONDS if more else self.INTERVAL_SECONDS

    def _prune(self) -> bool:
        """Remove a batch; tell whether there may be more."""
        days = self._agent.conf.journal_retention_days
        more = False
        try:
            more = days > 0 and self._agent.journal.prune(days)
        except errors.DoubtfulTime as err:
            self._say(str(err))
        else:
            self._say("")
        return more

    def _say(self, reason: str) -> None:
        """Say why nothing is removed, once while that lasts; empty: it is."""
        if reason and not self._reason:
            LOG.warning("Old records stay in the journal for now: %s", reason)
        elif self._reason and not reason:
            LOG.info("Over: Old records stay in the journal for now")
        self._reason = reason

    def _tell_seal(self) -> None:
        now = self._agent.clock.monotonic()
        if self._told_at is None or now - self._told_at >= self.SEAL_SECONDS:
            self._told_at = now
            LOG.info("The journal is sealed up to %s", self._agent.journal.head())
