# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, where a pass may not see to all."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Turns:
    """Lets what has failed wait until the others have had their turn.

    However many fail in each pass, each of the others is reached: of those that have failed, the
    one that has waited longest comes first.
    """

    def __init__(self) -> None:
        #: Those that have failed, the longest ago first.
        self.failed: list[str] = []

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return them in the order of their turns, which is their own where none has failed."""
        place = {name: number for number, name in enumerate(self.failed, 1)}
        return sorted(names, key=lambda name: place.get(name, 0))

    def enter(self, due: Collection[str], failed: Collection[str]) -> None:
        """Enter what has failed in a pass.

        :param due: those that were to have their turn, be it in a later pass
        """
        still = [name for name in self.failed if name in due and name not in failed]
        self.failed = still + [name for name in self.in_order(due) if name in failed]
