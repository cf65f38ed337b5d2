# SPDX-License-Identifier: Apache-2.0
"""Pauses as the agent heeds them: it asks the journal when a run is due."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cepheid import errors
from cepheid.clock import Clock
from cepheid.journal import Journal, Pause
from cepheid.journal.pauses import pause_of
from cepheid.periodic_task import DEFAULT_INTERVAL

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)


class PauseWatch:
    """Tells what is paused, and says in the log when a pause begins and ends."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        #: What the last :meth:`look` saw, by task; for those who cannot wait for the journal.
        self.seen: dict[str, Pause] = {}

    def current(self) -> dict[str, Pause]:
        """Return the pauses in force, by task.

        :raises JournalError: it is not known
        """
        return self._journal.pauses.in_force(self._clock.utcnow())

    def of(self, task: str) -> Pause | None:
        """Return the pause that keeps `task` from running.

        :raises JournalError: it is not known
        """
        return pause_of(task, self.current())

    def refuse(self, task: str) -> None:
        """Refuse to run a task that is paused.

        :raises Paused: it is
        """
        pause = self.of(task)
        if pause is not None:
            raise errors.Paused(
                f"{task} is not run: {pause}. Give --force to run it all the same, --dry-run to "
                f"see what it would do, or end the pause with '{pause.resume_command}'."
            )

    def look(self) -> bool:
        """Log what has begun and ended since the last look; tell whether one was resumed early.

        :raises JournalError: it is not known, for instance since operators write to another file
        """
        self._journal.check_place()
        now, before, self.seen = self._clock.utcnow(), self.seen, self.current()
        resumed = False
        for task, pause in self.seen.items():
            if before.get(task) != pause:
                LOG.info("%s: %s", task or "Pause", pause)
        for task, pause in before.items():
            if task not in self.seen:
                ran_out = not pause.in_force(now)
                resumed = resumed or not ran_out
                LOG.info(
                    "%s: the pause %s", task or "All tasks", "is over" if ran_out else "was ended"
                )
        return resumed


class HeldRuns:
    """The runs of one task that became due in a pause: each method runs once when it is over."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        #: By name: the pause, and when a run was held last, in monotonic seconds.
        self._held: dict[str, tuple[int, float]] = {}

    def hold(self, name: str, pause: Pause) -> float:
        """Note that a run of `name` is due in `pause`; return the seconds until the next look.

        Only the first such run of each pause is written to the journal.
        """
        agent = self._agent
        now = agent.clock.utcnow()
        if self._held.get(name, (None, 0.0))[0] != pause.id:
            agent.journal.pauses.hold(name, pause, now)
        self._held[name] = (pause.id, agent.clock.monotonic())
        if pause.until is None:
            return DEFAULT_INTERVAL
        # Hosts that were paused together spread out, as after a start.
        spread = agent.random.uniform(0, agent.conf.periodic_fuzzy_delay)
        return min((pause.until - now).total_seconds() + spread, DEFAULT_INTERVAL)

    def release(self, name: str, due: float) -> float:
        """Note that `name` runs now; return its lateness in seconds, without the time paused."""
        _, held_at = self._held.pop(name, (0, due))
        return max(0.0, self._agent.clock.monotonic() - max(due, held_at))
