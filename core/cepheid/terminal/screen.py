# SPDX-License-Identifier: Apache-2.0
"""The screen of ``cepheid top``: as much of the overview as there is room for."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cepheid.terminal import task_table, view
from cepheid.terminal.choice import Choice
from cepheid.terminal.shapes import Shapes

Document = dict[str, Any]

#: What the keys do.
KEYS = "q quit  j k choose  r run  d dry run  p pause  s sort"

#: Lines from which on there is more than the tasks.
HIGH = 20

#: The fewest tasks that are shown, whatever else there is.
FEWEST = 3


class Screen:
    """Lays out the screen; it remembers which tasks were in sight."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._first = 0

    def compose(self, choice: Choice, width: int, height: int) -> RenderableType:
        """Return what fills a screen of this size."""
        document, shapes = choice.document, self._shapes
        if document is None:
            return Group(*[Text("")] * (height - 1), Text(shapes.clean("Asking the agent…")))
        above = self._above(choice, document, width, height)
        below = self._below(choice, document, width, height)
        room = max(FEWEST, height - len(above) - len(below) - 1)
        tasks = choice.tasks
        shown = self._in_sight(choice, room)
        in_sight = f"{self._first + 1}-{self._first + len(shown)} of {len(tasks)}"
        title = "Task" if len(shown) == len(tasks) else f"Task ({in_sight})"
        table = task_table.table(document, shapes, width, shown, choice.selected, title)
        middle = [*above, table]
        room -= len(shown)
        if room > 1:
            middle.append(self._cut(task_table.legend(document, shapes), width))
            room -= 1
        changes = view.changes(document, shapes, width, room)[: max(0, room - 2)]
        if changes and room > 3:
            middle += [Text(""), Text("Newest changes", "bold")]
            middle += [self._cut(line, width) for line in changes]
            room -= 2 + len(changes)
        return Group(*middle, *[Text("")] * max(0, room), *below)

    def _above(
        self, choice: Choice, document: Document, width: int, height: int
    ) -> list[RenderableType]:
        shapes = self._shapes
        lines = [view.headline(document, shapes)]
        if choice.lost_since:
            at = choice.lost_since[11:19]
            words = f"No agent answers since {at} UTC; this is what it said last."
            lines = [shapes.mark("error").append(f" {words}", "bold red reverse")]
        if height >= HIGH:
            lines.append(view.facts(document, shapes))
        points = view.points(document, shapes)
        limit = max(1, height // 8)
        lines += points[:limit]
        if len(points) > limit:
            lines.append(Text(f"    and {len(points) - limit} more: cepheid status", "dim"))
        lines += view.operations(document, shapes, width)[:limit]
        return [self._cut(line, width) for line in lines]

    def _below(
        self, choice: Choice, document: Document, width: int, height: int
    ) -> list[RenderableType]:
        lines: list[Text] = []
        if choice.task is not None and height >= HIGH:
            lines = task_table.detail(choice.task, document, self._shapes)[:3]
        if choice.asking:
            last = Text(self._shapes.clean(choice.question), "bold yellow")
        elif choice.message:
            last = Text(self._shapes.clean(choice.message), "bold")
        else:
            last = Text(KEYS, "dim")
        return [self._cut(line, width) for line in (*lines, last)]

    def _in_sight(self, choice: Choice, room: int) -> list[Document]:
        """Return the tasks that there is room for, the selected one among them."""
        tasks = choice.tasks
        place = next((n for n, task in enumerate(tasks) if task["name"] == choice.selected), 0)
        self._first = max(place - room + 1, min(self._first, place, max(0, len(tasks) - room)))
        return tasks[self._first : self._first + room]

    def _cut(self, line: Text, width: int) -> Text:
        cut = self._shapes.cut(line, width)
        cut.no_wrap, cut.overflow = True, "crop"
        return cut
