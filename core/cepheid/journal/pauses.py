# SPDX-License-Identifier: Apache-2.0
"""Pauses on record: what is paused, by whom, until when and why."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cepheid.journal import seals
from cepheid.journal.store import Store, text

#: The task of a pause that goes for all of them.
ALL = ""


@dataclass(frozen=True)
class Pause:
    """Keeps one task, or all, from being run by their timers.

    :param task: :data:`ALL` for all of them
    :param until: in UTC; None: until it is resumed
    """

    id: int
    task: str
    at: datetime.datetime
    until: datetime.datetime | None
    reason: str
    who: str

    def in_force(self, now: datetime.datetime) -> bool:
        """Tell whether it has not run out."""
        return self.until is None or now < self.until

    @property
    def resume_command(self) -> str:
        """The command that ends it."""
        return resume_command(self.task)

    def __str__(self) -> str:
        """Return it in words: ``paused by alice until ... UTC: new switch``."""
        return self.in_words(" until resumed")

    def in_words(self, no_end: str) -> str:
        """Return it in words.

        :param no_end: says that it has no end
        """
        scope = "all tasks are paused" if self.task == ALL else "paused"
        until = f" until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else no_end
        return f"{scope} by {self.who}{until}{f': {self.reason}' if self.reason else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {
            "task": self.task,
            "at": text(self.at),
            "until": text(self.until) if self.until else None,
            "reason": self.reason,
            "who": self.who,
        }


class PauseRecords:
    """Reads and writes the pauses of a journal; each thing said is a record of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pause(
        self,
        task: str,
        now: datetime.datetime,
        until: datetime.datetime | None = None,
        reason: str = "",
        who: str = "",
    ) -> Pause:
        """Record that `task`, or :data:`ALL`, is paused; a pause of it before ends with that."""
        number = self._add(task, "pause", now, until, reason, who)
        return Pause(number, task, now, until, reason, who)

    def resume(
        self, task: str, now: datetime.datetime, reason: str = "", who: str = ""
    ) -> Pause | None:
        """Record that `task`, or :data:`ALL`, is resumed; return the pause that this ended.

        Where there was none in force, nothing is recorded.
        """
        ended = self.in_force(now).get(task)
        if ended is not None:
            self._add(task, "resume", now, None, reason, who)
        return ended

    def hold(self, task: str, pause: Pause, now: datetime.datetime) -> None:
        """Record that a run of `task` was due in `pause`: the first one, not those after it."""
        known = self._store.rows(
            "SELECT 1 FROM pauses WHERE task = ? AND action = 'held' AND id > ? LIMIT 1",
            (task, pause.id),
        )
        if not known:
            self._add(task, "held", now, pause.until, str(pause), "agent")

    def in_force(self, now: datetime.datetime) -> dict[str, Pause]:
        """Return what is paused now: the pauses by their tasks, one of all under :data:`ALL`."""
        rows = self._store.rows(
            "SELECT * FROM pauses WHERE action = 'pause' AND id IN"
            " (SELECT max(id) FROM pauses WHERE action != 'held' GROUP BY task)"
        )
        pauses = (_pause(row) for row in rows)
        return {pause.task: pause for pause in pauses if pause.in_force(now)}

    def said(self, task: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Return what was said last (pause, resume, held), newest first.

        :param task: only what concerns this task
        """
        where, values = ("WHERE task IN (?, ?)", [task, ALL]) if task else ("", [])
        rows = self._store.rows(
            f"SELECT * FROM pauses {where} ORDER BY id DESC LIMIT ?", [*values, limit]
        )
        return [dict(row) for row in rows]

    def _add(
        self,
        task: str,
        action: str,
        now: datetime.datetime,
        until: datetime.datetime | None,
        reason: str,
        who: str,
    ) -> int:
        with self._store.transaction() as connection:
            chain = seals.Chain(connection, seals.unix_seconds(now))
            cursor = connection.execute(
                "INSERT INTO pauses (task, action, at, until, reason, who, seal)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (task, action, text(now), text(until) if until else None, reason, who,
                 chain.next_id),
            )  # fmt: skip
            number = cursor.lastrowid
            assert number is not None
            chain.seal("pauses", number, number)
            return number


def resume_command(task: str) -> str:
    """Return the command that ends a pause of `task`, or of :data:`ALL`."""
    return f"cepheid resume {task}".rstrip()


def pause_of(task: str, pauses: Mapping[str, Pause]) -> Pause | None:
    """Return the pause that keeps `task` from running: its own, or that of all."""
    return pauses.get(task) or pauses.get(ALL)


def _pause(row: Any) -> Pause:
    return Pause(
        row["id"],
        row["task"],
        datetime.datetime.fromisoformat(row["at"]),
        datetime.datetime.fromisoformat(row["until"]) if row["until"] else None,
        row["reason"],
        row["who"],
    )
