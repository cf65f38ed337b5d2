# SPDX-License-Identifier: Apache-2.0
"""What is chosen on the screen of ``cepheid top``, and what each key does to that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cepheid import durations, errors
from cepheid.attention import paused
from cepheid.terminal.shapes import KINDS
from cepheid.terminal.task_table import kind_of

Document = dict[str, Any]

#: How many tasks a page is.
PAGE = 10

LOST = "No agent answers, so nothing is run; 'cepheid task run' would run it in its own process."


@dataclass(frozen=True)
class Wish:
    """What an operator wants done.

    :param kind: ``quit``, ``run``, ``pause`` or ``resume``
    :param duration: of a pause, in words; empty for no end
    """

    kind: str
    task: str = ""
    dry_run: bool = False
    duration: str = ""
    reason: str = ""


class Choice:
    """Which task is selected, in which order they are, and what was asked."""

    def __init__(self) -> None:
        self.document: Document | None = None
        #: When the agent answered last, where it does no more.
        self.lost_since = ""
        self.selected = ""
        self.order = "name"
        #: What is asked: ``run``, ``pause``, ``pause for ever``, ``resume``; empty for nothing.
        self.asking = ""
        self.typed = ""
        #: What came of the last wish.
        self.message = ""

    def update(self, document: Document) -> None:
        """Take a new overview; where no agent answers, what it said last is kept."""
        known = self.document is not None and self.document["health"]["state"] != "unknown"
        if document["health"]["state"] == "unknown" and known:
            assert self.document is not None
            self.lost_since = self.lost_since or self.document["at"]
            return
        self.document, self.lost_since = document, ""
        names = [task["name"] for task in self.tasks]
        if self.selected not in names:
            # What was asked about it is not asked about another.
            self.selected, self.asking = names[0] if names else "", ""
        if self.asking == "resume" and (self.task is None or self.task["pause"] is None):
            self.asking = ""

    @property
    def tasks(self) -> list[Document]:
        """The tasks in their order."""
        found = self.document["tasks"] if self.document is not None else []
        return sorted(found, key=ORDERS[self.order])

    @property
    def task(self) -> Document | None:
        """The selected task."""
        return next((task for task in self.tasks if task["name"] == self.selected), None)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        if self.asking == "run":
            return f"Run {self.selected} now? y: run it, d: dry run, any other key: no"
        if self.asking == "resume":
            assert self.task is not None
            return f"{self.selected}: {paused(self.task['pause'])}. Resume it? y: yes"
        if self.asking == "pause for ever":
            return f"Pause {self.selected} until it is resumed? y: yes, any other key: no"
        if self.asking == "pause":
            return f"Pause {self.selected}: how long, and why (2h new switch)? {self.typed}_"
        return ""

    def press(self, key: str) -> Wish | None:
        """Do what a key means; return what is to be done beyond the screen."""
        if self.asking == "pause":
            return self._type(key)
        if self.asking:
            return self._answer(key)
        self.message = ""
        if key == "q":
            return Wish("quit")
        if key in _MOVES:
            self._move(_MOVES[key])
        elif key == "s":
            names = list(ORDERS)
            self.order = names[(names.index(self.order) + 1) % len(names)]
            self.message = f"Sorted by {self.order}."
        elif key in ("r", "d", "p"):
            return self._act(key)
        return None

    def _move(self, by: int) -> None:
        names = [task["name"] for task in self.tasks]
        if self.selected in names:
            place = max(0, min(len(names) - 1, names.index(self.selected) + by))
            self.selected = names[place]

    def _act(self, key: str) -> Wish | None:
        task = self.task
        if task is None:
            return None
        if key == "p":
            self._ask_for_pause(task)
        elif self.lost_since or task["status"] == "unknown":
            self.message = LOST
        elif key == "d":
            return Wish("run", self.selected, dry_run=True)
        else:
            self.asking = "run"
        return None

    def _ask_for_pause(self, task: Document) -> None:
        pause = task["pause"]
        if pause is None:
            self.asking, self.typed = "pause", ""
        elif pause["all"]:
            self.message = f"{paused(pause)}. 'cepheid resume' ends that."
        else:
            self.asking = "resume"

    def _answer(self, key: str) -> Wish | None:
        asked, self.asking = self.asking, ""
        if key == "y" and asked == "pause for ever":
            return Wish("pause", self.selected, reason=self.typed.strip())
        if key == "y":
            return Wish(asked, self.selected)
        if asked == "run" and key == "d":
            return Wish("run", self.selected, dry_run=True)
        self.message = f"{self.selected} is left as it is."
        return None

    def _type(self, key: str) -> Wish | None:
        if key == "escape":
            self.asking = ""
            self.message = f"{self.selected} is left as it is."
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "enter":
            self.asking = ""
            try:
                duration, reason = split(self.typed)
            except errors.CepheidError as err:
                self.message = f"{err} {self.selected} is left as it is."
                return None
            if duration:
                return Wish("pause", self.selected, False, duration, reason)
            self.asking = "pause for ever"
        elif len(key) == 1:
            self.typed += key
        return None


def split(typed: str) -> tuple[str, str]:
    """Return the duration that was typed, if any, and the reason.

    :raises CepheidError: what begins with a digit is no duration
    """
    first, _, rest = typed.strip().partition(" ")
    if not first[:1].isdigit():
        return "", typed.strip()
    durations.parse(first)
    return first, rest.strip()


#: By how much each key moves the selection.
_MOVES = {
    "down": 1,
    "j": 1,
    "up": -1,
    "k": -1,
    "page down": PAGE,
    "page up": -PAGE,
    "home": -(10**6),
    "g": -(10**6),
    "end": 10**6,
    "G": 10**6,
}


def _took(task: Document) -> float:
    run = task["last_run"]
    return -((run["duration_seconds"] if run is not None else None) or 0.0)


def _trouble(task: Document) -> int:
    kind = kind_of(task)
    return -KINDS.index(kind) if kind in KINDS else 0


#: What the tasks can be sorted by.
ORDERS: dict[str, Callable[[Document], Any]] = {
    "name": lambda task: task["name"],
    "trouble": lambda task: (_trouble(task), task["name"]),
    "next run": lambda task: (task["next_run_at"] is None, task["next_run_at"], task["name"]),
    "time taken": lambda task: (_took(task), task["name"]),
}
