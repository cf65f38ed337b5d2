# SPDX-License-Identifier: Apache-2.0
"""Changes that come to the same nothing at each pass, put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Change = dict[str, Any]

#: The outcomes that leave a target as it was, so that the next pass may come to the same.
NOTHING_CHANGED = ("failed", "planned", "raced", "refused")

#: What is the same in each of a streak. A reason is not: it may tell the time.
_ALIKE = ("outcome", "error", "before", "after", "dry_run")


def streaks(changes: Iterable[Change]) -> list[list[Change]]:
    """Return changes in streaks; most are alone in theirs.

    A streak is what one task has tried in vain on one target, again and again, with the same error
    and nothing else of that kind between. Each attempt to change anything that succeeds is alone.

    :param changes: newest first, with their runs' ``task`` and ``dry_run``, see
        :meth:`cepheid.journal.reader.Reader.newest_changes`
    :returns: by the newest of each, which is its first, newest first
    """
    found: list[list[Change]] = []
    open_ones: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        about = change["task"], change["kind"], change["target"]
        streak = open_ones.get(about)
        if streak is not None and _is_alike(streak[0], change):
            streak.append(change)
        else:
            open_ones[about] = [change]
            found.append(open_ones[about])
    return found


def _is_alike(one: Change, other: Change) -> bool:
    return one["outcome"] in NOTHING_CHANGED and all(one[name] == other[name] for name in _ALIKE)
