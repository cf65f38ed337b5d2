# SPDX-License-Identifier: Apache-2.0
"""What ``cepheid status`` and ``cepheid top`` show of an overview but for its tasks, as lines."""

from __future__ import annotations

import re
from typing import Any

from rich.text import Text

from cepheid import durations
from cepheid.terminal.shapes import STYLES, Shapes
from cepheid.terminal.timeline import unix_seconds

Document = dict[str, Any]

#: Characters from which on a change has room on one line.
WIDE = 150

#: The kind of each outcome of a change; those that are not here are warnings.
_OUTCOMES = {"done": "ok", "planned": "off", "failed": "error"}

#: A field in JSON, which an overview may have cut.
_FIELD = re.compile(r'"(\w+)": ("[^"\\]*"|[^\s,"{}\[\]]+)(?=[,}])')

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_STATES = {
    "ok": ("ok", "{host}: all is well"),
    "attention": ("warning", "{host} needs a look: {points}"),
    "failing": ("error", "{host} is failing: {points}"),
    "unknown": ("error", "{host}: no agent answers"),
}


def headline(document: Document, shapes: Shapes) -> Text:
    """Say in one line whether all is well, and if not, how much is not."""
    points = document["health"]["points"]
    kind, words = _STATES[document["health"]["state"]]
    counted = [
        _number(sum(point["level"] == level for point in points), level)
        for level in ("error", "warning")
    ]
    words = words.format(
        host=document["host"], points=", ".join(part for part in counted if part[0] != "0")
    )
    line = shapes.mark(kind).append(f" {shapes.clean(words)}", f"{STYLES[kind]} bold")
    return line


def brief(document: Document, shapes: Shapes) -> str:
    """Say in one line whether all is well, and if not, what is not: for monitoring."""
    points = document["health"]["points"]
    line = headline(document, shapes).plain
    if not points:
        return line
    first = shapes.clean(_named(points[0]))
    if len(points) > 1:
        first = f"{first.rstrip('.')}; and {len(points) - 1} more"
    return f"{line}: {first}"


def facts(document: Document, shapes: Shapes) -> Text:
    """Say what the agent is, and what it did in the last hour."""
    parts = [f"version {document['version']}"]
    if document["pid"] is not None:
        up = unix_seconds(document["at"]) - unix_seconds(document["started_at"])
        parts += [f"pid {document['pid']}", f"up {durations.in_words(up)}"]
    totals = document["totals"]
    since = f"last {span(totals['seconds'])}" if document["runs"]["complete"] else "of late"
    parts.append(
        f"{since}: {_number(totals['runs'], 'run')}, "
        f"{_number(totals['counters'].get('done', 0), 'change')}"
    )
    parts.append(f"{document['at'][11:19]} UTC")
    return Text(shapes.clean(", ".join(parts)), "dim")


def points(document: Document, shapes: Shapes) -> list[Text]:
    """Say what is not well, worst first, one each."""
    lines = []
    for point in document["health"]["points"]:
        line = Text("  ").append_text(shapes.mark(point["level"])).append(" ")
        if point["task"]:
            line.append(shapes.clean(point["task"]), "bold").append(": ")
        lines.append(line.append(shapes.clean(point["text"])))
    return lines


def operations(document: Document, shapes: Shapes, width: int) -> list[Text]:
    """Say what operators' commands do now, one line each."""
    now = unix_seconds(document["at"])
    lines = []
    for run in document["operations"]:
        seconds = durations.in_words(max(0.0, now - unix_seconds(run["started_at"])))
        dry = " (dry run)" if run["dry_run"] else ""
        line = shapes.mark("running").append(f" {shapes.clean(run['task'])}{dry}, {seconds} ")
        if run["total"]:
            line.append_text(shapes.bar(run["done"], run["total"], min(40, width // 3)))
            line.append(f" {run['done']}/{run['total']}")
        lines.append(line)
    return lines


def changes(document: Document, shapes: Shapes, width: int, limit: int) -> list[Text]:
    """Return the newest changes; one line each where it is wide, else two."""
    found = document["changes"][:limit]
    times = [_time(change["at"], document["at"]) for change in found]
    room = max(map(len, times), default=0)
    lines = []
    for change, at in zip(found, times, strict=True):
        kind = _OUTCOMES.get(change["outcome"], "warning")
        first = Text(f"{at:<{room}} ").append_text(shapes.mark(kind))
        first.append(f" {shapes.clean(change['kind'])} ", "bold")
        first.append(shapes.clean(values(change, shapes)), "cyan")
        if change["outcome"] != "done":
            first.append(f" ({shapes.clean(_result(change, document['at']))})", STYLES[kind])
        first.append(f"  {shapes.clean(change['task'])}", "dim")
        if width >= WIDE:
            first.append(f"  {shapes.clean(change['target'] + '  ' + change['reason'])}", "dim")
            lines.append(first)
        else:
            about = f"{_short(change['target'])}  {change['reason']}"
            lines += [first, Text(" " * (room + 3) + shapes.clean(about), "dim")]
    return lines


def _result(change: Document, now: str) -> str:
    """Say what came of a change, and how often the same."""
    words = str(change["outcome"])
    if change["times"] > 1:
        words += f" {change['times']} times since {_time(change['first_at'], now)}"
    return f"{words}: {change['error']}" if change["error"] else words


def values(change: Document, shapes: Shapes) -> str:
    """Return what a change was from and to; where that is many fields, each that differs."""
    before, after = change["before"] or "-", change["after"] or "-"
    old, new = _fields(before), _fields(after)
    both = [name for name in new if name in old]
    if both:
        return ", ".join(f"{name} {old[name]} {shapes.arrow} {new[name]}" for name in both)
    return f"{before} {shapes.arrow} {after}"


def rest(document: Document, shapes: Shapes) -> list[Text]:
    """Say which drivers there are, what hangs, and which tasks are not active and why."""
    lines = []
    drivers = ", ".join(f"{driver['kind']} {driver['name']}" for driver in document["drivers"])
    if drivers:
        lines.append(f"Drivers: {drivers}")
    calls = document["native_calls"]
    if calls or document["native_calls_queued"]:
        abandoned = sum(call["abandoned"] for call in calls)
        lines.append(
            f"Native calls: {len(calls)} under way, {abandoned} of them abandoned, "
            f"{document['native_calls_queued']} waiting"
        )
    alike: dict[str, list[str]] = {}
    for plugin in document["inactive"]:
        alike.setdefault(f"{plugin['state']}, {plugin['reason']}", []).append(plugin["name"])
    lines += [f"Not active ({why}): {', '.join(names)}" for why, names in alike.items()]
    return [Text(shapes.clean(line), "dim") for line in lines]


def _named(point: Document) -> str:
    return f"{point['task']}: {point['text']}" if point["task"] else str(point["text"])


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def span(seconds: float) -> str:
    """Return a stretch of time in words: ``hour``, ``6 h``."""
    return "hour" if seconds == 3600 else durations.in_words(seconds)


def _time(at: str, now: str) -> str:
    """Return the time of day, or the day where it is not today's."""
    return at[11:19] if at[:10] == now[:10] else f"{at[5:10]} {at[11:16]}"


def _fields(text: str) -> dict[str, str]:
    """Return the plain fields of a JSON object, as far as it goes."""
    return dict(_FIELD.findall(text)) if text.startswith("{") else {}


def _short(target: str) -> str:
    """Return what is enough to know an instance by, where the room is scarce."""
    return target[:8] if _UUID.fullmatch(target) else target
