# SPDX-License-Identifier: Apache-2.0
"""The runs of the last hour as a line: what was worst in each stretch of time, newest right."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from cepheid.attention import LATE_SECONDS
from cepheid.run import plugin_of
from cepheid.terminal.shapes import KINDS, OUTCOMES, STYLES, Shapes

#: Characters of a line: at least, and where there is room, one for each minute of an hour.
NARROWEST, WIDEST = 10, 60

Row = Sequence[Any]


class Timeline:
    """A line as wide as there is room.

    :param rows: the runs, as rows of an overview
    :param seconds: how much time it shows, up to `now`, in seconds since 1970
    """

    def __init__(self, rows: Sequence[Row], now: float, seconds: float, shapes: Shapes) -> None:
        self._rows = rows
        self._now = now
        self._seconds = seconds
        self._shapes = shapes

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(NARROWEST, WIDEST)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        line = Text(no_wrap=True)
        for kind in kinds(self._rows, self._now, self._seconds, width):
            line.append(self._shapes.marks[kind], STYLES[kind])
        yield line


class Bar:
    """How far a run is, as wide as there is room; its numbers stand beside the bar."""

    def __init__(self, done: int, total: int | None, shapes: Shapes) -> None:
        self._done = done
        self._total = total
        self._shapes = shapes

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(NARROWEST, WIDEST)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._total is None:
            yield Text(f"{self._done} done", STYLES["running"], no_wrap=True, overflow="ellipsis")
            return
        numbers = f"{self._done}/{self._total}"
        width = min(options.max_width, WIDEST) - len(numbers) - 1
        if width < 3:
            yield Text(numbers, STYLES["running"], no_wrap=True, overflow="ellipsis")
            return
        bar = self._shapes.bar(self._done, self._total, width)
        yield bar.append(f" {numbers}", STYLES["running"])


def kinds(rows: Iterable[Row], now: float, seconds: float, cells: int) -> list[str]:
    """Return what was worst in each of `cells` equal stretches of the last `seconds`.

    A run counts in every stretch that it went on in.
    """
    worst = [0] * cells
    for row in rows:
        _, _, started, duration, *_ = row
        kind = KINDS.index(kind_of(row))
        ended = now if row[5] == "running" else started + (duration or 0.0)
        first = math.floor((started - now + seconds) / seconds * cells)
        after = max(first + 1, math.ceil((ended - now + seconds) / seconds * cells))
        for cell in range(max(0, first), min(cells, after)):
            worst[cell] = max(worst[cell], kind)
    return [KINDS[kind] for kind in worst]


def kind_of(row: Row) -> str:
    """Return what a run was: of :data:`.shapes.KINDS`."""
    _, _, _, _, lateness, outcome, dry_run, _, changes, _ = row
    kind = OUTCOMES.get(outcome, "error")
    if kind == "ok" and (lateness or 0.0) > LATE_SECONDS:
        return "warning"
    return "changed" if kind == "ok" and changes and not dry_run else kind


def by_task(runs: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of an overview's ``runs`` by the plugins that they are of."""
    found: dict[str, list[Row]] = {}
    names = [plugin_of(name) for name in runs["tasks"]]
    for row in runs["rows"]:
        found.setdefault(names[row[1]], []).append(row)
    return found


def unix_seconds(at: str) -> float:
    """Return an overview's time as seconds since 1970."""
    return datetime.datetime.fromisoformat(at).timestamp()
