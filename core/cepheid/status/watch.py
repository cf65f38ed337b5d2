# SPDX-License-Identifier: Apache-2.0
"""What a request could not find out without waiting: asked beforehand, on the agent's threads."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cepheid import concurrency, errors
from cepheid.call_record import Standing
from cepheid.notices import Notices
from cepheid.status.health import MAX_SILENCE_SECONDS, MIN_FREE_BYTES, JournalFacts

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK_SECONDS = 10.0

#: Seconds without an answer to anything after which a driver is asked.
PROBE_SECONDS = 60.0

#: Seconds for the file system to tell its free space.
STATVFS_SECONDS = 5.0


class DriverWatch:
    """Lets a driver make a cheap call when no task has made one for a while.

    :param driver: has a ``record`` and a ``probe``
    """

    def __init__(self, agent: Agent, kind: str, driver: Any) -> None:
        self.name = f"watch of the {kind}"
        self._agent = agent
        self._kind = kind
        self._driver = driver
        self._monotonic = concurrency.original("time").monotonic
        self._notices = Notices(LOG)

    def look(self) -> float:
        """Probe the driver if that is needed; return the seconds until the next look."""
        standing = self._driver.record.standing
        if wants_probe(standing, self._monotonic(), self._agent.native.abandoned):
            self._notices.begin()
            try:
                self._driver.probe()
            except errors.CepheidError as err:
                self._notices.say("probe", f"The {self._kind} was asked whether it answers: {err}")
            self._notices.end(complete=True)
        return LOOK_SECONDS


def wants_probe(standing: Standing, now: float, hanging: int) -> bool:
    """Tell whether a driver is to be asked.

    :param hanging: the number of native calls past their deadlines. While there are any, nothing is
        asked: another call would probably hang as well and cost a thread. Their return is an
        answer, too
    """
    if hanging:
        return False
    if standing.failed_at is not None or standing.answered_at is None:
        return True
    if standing.under_way is not None:
        _, began = standing.under_way
        if standing.answered_at < began < now - MAX_SILENCE_SECONDS / 2:
            return True
    return now - standing.answered_at > PROBE_SECONDS


class Room(NamedTuple):
    """How much room the journal takes and has."""

    size_bytes: int
    free_bytes: int


class JournalWatch:
    """Looks whether the journal can be written."""

    name = "watch of the journal"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.room: Room | None = None
        self._silence = ""

    @property
    def facts(self) -> JournalFacts:
        """How it is, from memory."""
        free = self.room.free_bytes if self.room is not None else None
        return JournalFacts(self._silence or self._agent.journal.failure, free)

    def look(self) -> float:
        """Look at its file; return the seconds until the next look."""
        before = self.facts
        try:
            self.room = self._agent.run_native(
                _measure,
                self._agent.journal.path,
                deadline=STATVFS_SECONDS,
                name="statvfs of the journal",
            )
            self._silence = ""
        except (OSError, errors.CallTimeout) as err:
            self._silence = f"{self._agent.journal.path}: {err}"
        was_full = before.free_bytes is not None and before.free_bytes < MIN_FREE_BYTES
        if self._agent.journal.failure or was_full:
            # The next run may be an hour away.
            self._probe()
        return LOOK_SECONDS

    def _probe(self) -> None:
        try:
            self._agent.journal.probe()
        except errors.JournalError as err:
            LOG.debug("%s", err)


def _measure(path: Path) -> Room:
    """Measure a file, and the file system that it is in."""
    found = os.statvfs(path)
    return Room(path.stat().st_size, found.f_bavail * found.f_frsize)
