# SPDX-License-Identifier: Apache-2.0
"""The tasks of an overview as a table, and what there is to say about one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from cepheid import durations, wording
from cepheid.attention import paused
from cepheid.terminal.shapes import OUTCOMES, STYLES, Shapes
from cepheid.terminal.timeline import Bar, Timeline, by_task, unix_seconds
from cepheid.terminal.view import span

Document = dict[str, Any]

#: Characters from which on a line has room for more columns.
NARROW, WIDE, WIDEST = 72, 110, 150

#: What a state mostly takes.
STATE_WIDTH = len("running 42 s")

#: What the marks stand for.
LEGEND = (
    ("ok", "ok"),
    ("changed", "changes"),
    ("warning", "partial, limited, overdue or late"),
    ("error", "failed"),
    ("running", "running"),
)


#: The kind of a task's status, where that says more than its last run.
_STATUSES = {
    "overdue": "error",
    "running": "running",
    "paused": "paused",
    "off": "off",
    "late": "error",
}


def table(
    document: Document,
    shapes: Shapes,
    width: int,
    shown: Sequence[Document] | None = None,
    selected: str = "",
    title: str = "Task",
) -> Table:
    """Return the tasks as a table of one line each.

    :param width: what a line has room for
    :param shown: which tasks, in this order; all by default
    :param selected: the name of the one that stands out
    :param title: of the names
    """
    shown = document["tasks"] if shown is None else shown
    lines = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", expand=False)
    _add_columns(lines, document, shapes, width, title)
    rows = by_task(document["runs"])
    now = unix_seconds(document["at"])
    for task in shown:
        style = "reverse" if task["name"] == selected else ""
        name = Text(shapes.clean(task["name"]), "bold" if style else "")
        cells: list[Any] = [shapes.mark(kind_of(task)), name, _state(task, now, shapes)]
        if width >= WIDE:
            cells += _last_run(task, now)
        cells.append(_timeline(document, task, rows.get(task["name"], ()), now, shapes))
        cells.append(_next(task, now))
        if width >= NARROW:
            cells.append(_every(task))
        if width >= WIDEST:
            cells.append(Text(shapes.clean(_counted(task)), "dim"))
        lines.add_row(*cells, style=style)
    return lines


def _add_columns(lines: Table, document: Document, shapes: Shapes, width: int, title: str) -> None:
    # What rich marks a cut with is not ASCII.
    fixed: Any = {"no_wrap": True, "overflow": "ellipsis" if shapes.is_unicode else "crop"}
    lines.add_column("", **fixed)
    # As wide for some of the tasks as for all, so that nothing moves when they are scrolled.
    longest = max((len(task["name"]) for task in document["tasks"]), default=0)
    room = max(20, width // 2 - 6)
    lines.add_column(title, min_width=min(longest, room), max_width=room, **fixed)
    lines.add_column("State", min_width=STATE_WIDTH, **fixed)
    if width >= WIDE:
        lines.add_column("Last run", **fixed)
        lines.add_column("Took", justify="right", **fixed)
    lines.add_column(f"Last {span(document['runs']['seconds'])}")
    lines.add_column("Next in", justify="right", **fixed)
    if width >= NARROW:
        lines.add_column("Every", justify="right", **fixed)
    if width >= WIDEST:
        lines.add_column("Counted", **fixed)


def legend(document: Document, shapes: Shapes) -> Text:
    """Say what the marks of the timelines stand for."""
    line = Text(style="dim")
    for kind, words in LEGEND:
        line.append("  " if line else "").append_text(shapes.mark(kind)).append(f" {words}")
    if not document["runs"]["complete"]:
        line.append("  (only the newest runs)")
    return line


def detail(task: Document, document: Document, shapes: Shapes) -> list[Text]:
    """Say more about one task: what it is, how its last run was, and what keeps it."""
    now = unix_seconds(document["at"])
    words = [f"{task['name']}: {task['summary']}"]
    run = task["last_run"]
    if run is not None:
        facts = [f"{run['outcome']} {_ago(run['started_at'], now)} ago", run["trigger"]]
        if run["dry_run"]:
            facts.append("dry run")
        if run["duration_seconds"] is not None:
            facts.append(f"took {_seconds(run['duration_seconds'])}")
        if (run["lateness_seconds"] or 0.0) >= 1.0:
            facts.append(f"{durations.in_words(run['lateness_seconds'])} late")
        told = run["error"] or _counted(task) or "it counted nothing"
        words.append(f"{', '.join(facts)}: {told}")
    if task["pause"] is not None:
        words.append(paused(task["pause"]))
    return [
        Text(shapes.clean(line), "bold" if number == 0 else "") for number, line in enumerate(words)
    ]


def kind_of(task: Document) -> str:
    """Return the kind of a task: what it does now, else what its last run was."""
    if task["status"] in _STATUSES:
        return _STATUSES[task["status"]]
    run = task["last_run"]
    return OUTCOMES.get(run["outcome"], "error") if run is not None else "nothing"


def _state(task: Document, now: float, shapes: Shapes) -> Text:
    kind = kind_of(task)
    if task["run"] is not None:
        dry = " (dry)" if task["run"]["dry_run"] else ""
        return Text(f"{task['status']}{dry} {_ago(task['run']['started_at'], now)}", STYLES[kind])
    if task["status"] in _STATUSES:
        return Text(task["status"], STYLES[kind])
    run = task["last_run"]
    if run is None:
        return Text("-", STYLES["nothing"])
    return Text(f"{shapes.clean(run['outcome'])}{' (dry)' if run['dry_run'] else ''}", STYLES[kind])


def _timeline(
    document: Document, task: Document, rows: Sequence[Any], now: float, shapes: Shapes
) -> Timeline | Bar:
    run = task["run"]
    if run is not None and run["done"] is not None:
        return Bar(run["done"], run["total"], shapes)
    return Timeline(rows, now, document["runs"]["seconds"], shapes)


def _last_run(task: Document, now: float) -> Iterable[str]:
    run = task["last_run"]
    if run is None:
        return "never", ""
    return f"{_ago(run['started_at'], now)} ago", _seconds(run["duration_seconds"])


def _next(task: Document, now: float) -> str:
    if task["next_run_at"] is None:
        return ""
    return durations.in_words(max(0.0, unix_seconds(task["next_run_at"]) - now))


def _every(task: Document) -> str:
    seconds = task["spacing_seconds"]
    return "" if seconds is None else durations.exactly(seconds)


def _counted(task: Document) -> str:
    run = task["last_run"]
    return "" if run is None else wording.counters(run["counters"])


def _ago(at: str, now: float) -> str:
    return durations.in_words(max(0.0, now - unix_seconds(at)))


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds < 10 else durations.in_words(seconds)
