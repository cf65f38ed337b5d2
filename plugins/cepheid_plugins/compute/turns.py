# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, where a pass may not see to all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cepheid.task import Task


class Turns:
    """Lets what has failed wait until the others have had their turn.

    However many fail in each pass, each of the others is reached: of those that have failed, the
    one that has waited longest comes first.

    :param recall: tells what has failed before this process, the longest ago first; asked once,
        when there is somebody due
    """

    def __init__(self, recall: Callable[[], Iterable[str]]) -> None:
        self._recall = recall
        self._failed: list[str] | None = None

    @classmethod
    def of(cls, task: Task) -> Turns:
        """Return the turns of a task's targets, with what its journal tells of them."""
        return cls(lambda: task.agent.journal.unsuccessful_targets(task.name))

    @property
    def failed(self) -> list[str]:
        """Those that have failed, the longest ago first."""
        if self._failed is None:
            self._failed = list(self._recall())
        return self._failed

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return them in the order of their turns, which is their own where none has failed."""
        waiting = list(names)
        if not waiting:
            return []
        place = {name: number for number, name in enumerate(self.failed, 1)}
        return sorted(waiting, key=lambda name: place.get(name, 0))

    def enter(self, due: Collection[str], failed: Collection[str]) -> None:
        """Enter what has failed in a pass.

        :param due: those that were to have their turn, be it in a later pass
        """
        if not due:
            self._failed = []
            return
        still = [name for name in self.failed if name in due and name not in failed]
        self._failed = still + [name for name in self.in_order(due) if name in failed]
