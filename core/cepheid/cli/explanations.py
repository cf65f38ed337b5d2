# SPDX-License-Identifier: Apache-2.0
"""Explanations as a page in the terminal."""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cepheid import durations
from cepheid.cli import cells
from cepheid.cli.printable import printable
from cepheid.explaining import Explanation, told
from cepheid.explanation import Kind, Subject, Verdict, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Characters of a line where no terminal says how many it has.
WIDTH = 100

STYLES = {
    Kind.ACTS: "bold red",
    Kind.REFUSED: "red",
    Kind.WARNS: "yellow",
    Kind.SKIPS: "yellow",
    Kind.UNKNOWN: "magenta",
    Kind.COUNTS: "cyan",
    Kind.LEAVES: "green",
}

#: What heads those that have nothing to say of the object.
REST = {Kind.OFF: "Do nothing at all", Kind.UNCONCERNED: "Have nothing to do with it, but with"}

#: How a fact's name is written where replacing its underlines is not enough.
NAMES = {"is_of_this_host": "of this host", "vm_state": "vm_state", "task_state": "task_state"}


def show(
    subject: Subject,
    explanations: Sequence[Explanation],
    others: Sequence[Mapping[str, Any]],
    now: datetime.datetime,
    is_live: bool,
) -> None:
    """Print what the object is, then what each task says of it.

    :param others: changes that were made by no task
    :param now: UTC, naive
    :param is_live: whether an agent runs, and has said when the next runs are
    """
    console = _console()
    with console.capture() as capture:
        _print(console, subject, explanations, now, is_live)
        for change in others:
            command = change["task"].replace("_", " ")
            console.print(_plain(f"\nBy 'cepheid {command}': {_change(change, now)}"))
    # rich fills the lines of a table up.
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _print(
    console: Console,
    subject: Subject,
    explanations: Sequence[Explanation],
    now: datetime.datetime,
    is_live: bool,
) -> None:
    console.print(_styled(f"{subject.name}, {_article(subject.kind)}", "bold"))
    _print_facts(console, subject.facts, now)
    speaking = told(explanations)
    table = _grid()
    for one in speaking:
        kind = one.kind or Kind.UNCONCERNED
        table.add_row(_styled(kind.value, STYLES.get(kind, "dim")), _styled(one.task, "bold"))
        lines = [line for verdict in one.verdicts or () for line in _lines(verdict, now)]
        for line in [*lines, *_background(one, now)]:
            table.add_row("", _plain(line))
    if speaking:
        console.print()
        console.print(table)
    _print_rest(console, [one for one in explanations if one not in speaking])
    if not is_live:
        console.print(_plain("\nNo agent runs here, so nothing is done by itself."))


def _print_rest(console: Console, rest: Sequence[Explanation]) -> None:
    """Print in one line each what has nothing to say of this object."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in rest:
        title = REST.get(one.kind or Kind.LEAVES, "Do not explain themselves")
        if one.state == "disabled":
            title = "Are disabled"
        elif one.state != "enabled":
            title = "Cannot be used"
        told = [
            verdict.text + (f" ({verdict.rule})" if verdict.rule else "")
            for verdict in one.verdicts or ()
            if verdict.kind is one.kind
        ]
        if one.state != "enabled":
            kind = one.kind
            heard = kind is not None and kind not in REST
            told = [one.reason, *(f"else {kind.value}: {text}" for text in told if kind and heard)]
        groups.setdefault(title, []).append((one.task, "; ".join(told)))
    for title, members in groups.items():
        table = _grid()
        for task, why in members:
            table.add_row(_plain(task), _plain(why))
        console.print(_plain(f"\n{title}:"))
        console.print(table)


def _lines(verdict: Verdict, now: datetime.datetime) -> list[str]:
    """Return a verdict in lines."""
    evidence = verdict.evidence
    lines = []
    if "change" in evidence:
        lines.append(
            f"{evidence['change']}: {cells.value(plain(evidence['before']))} → "
            f"{cells.value(plain(evidence['after']))}"
        )
    lines.append(verdict.text)
    if verdict.rule:
        lines.append(f"rule: {verdict.rule}")
    if verdict.changes_at is not None:
        ahead = (verdict.changes_at - now).total_seconds()
        when = f"in {durations.in_words(ahead)}" if ahead > 0 else "by now"
        lines.append(f"changes at {verdict.changes_at:%Y-%m-%d %H:%M:%S} UTC, {when}")
    if verdict.until:
        lines.append(f"until: {verdict.until}")
    return lines


def _background(one: Explanation, now: datetime.datetime) -> list[str]:
    """Return in lines what stands above a task's verdicts, and what it has done."""
    lines = [note for note in [_state(one), *one.notes] if note]
    schedule = []
    if one.last_run is not None:
        started = datetime.datetime.fromisoformat(one.last_run["started_at"])
        kind = " (dry run)" if one.last_run["dry_run"] else ""
        schedule.append(f"last run{kind} {_ago(started, now)}: {one.last_run['outcome']}")
    else:
        schedule.append("no run on record")
    if one.next_run_seconds is not None:
        schedule.append(f"next run in {durations.in_words(one.next_run_seconds)}")
    lines.append("; ".join(schedule))
    if one.last_change is not None:
        lines.append(f"last change of it: {_change(one.last_change, now)}")
    return lines


def _state(one: Explanation) -> str:
    return f"the task is {one.state}: {one.reason}" if one.state != "enabled" else ""


def _change(change: Mapping[str, Any], now: datetime.datetime) -> str:
    started = datetime.datetime.fromisoformat(change["started_at"])
    return (
        f"{change['kind']} {cells.value(change['before'])} → {cells.value(change['after'])}, "
        f"{_ago(started, now)}: {cells.outcome(dict(change))} (run {change['run_id']})"
    )


def _ago(then: datetime.datetime, now: datetime.datetime) -> str:
    return f"{durations.in_words(max(0.0, (now - then).total_seconds()))} ago"


def _print_facts(console: Console, facts: Mapping[str, Any], now: datetime.datetime) -> None:
    table = _grid()
    for name, value in facts.items():
        words = NAMES.get(name, name.replace("_", " ").removesuffix(" at"))
        if isinstance(value, datetime.datetime):
            shown = f"{value:%Y-%m-%d %H:%M:%S} UTC, {_ago(value, now)}"
        elif isinstance(value, bool):
            shown = "yes" if value else "no"
        else:
            shown = "NULL" if value is None else str(value)
        table.add_row(_styled(words, "dim"), _plain(shown))
    console.print(table)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _grid() -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    return table


def _styled(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(printable(text), style=style)


def _plain(text: str) -> Any:
    return _styled(text, "")


def _console() -> Console:
    # Imported here: it takes a while.
    from rich.console import Console

    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    return Console(width=width, soft_wrap=False, highlight=False)


def as_dict(
    subject: Subject, explanations: Iterable[Explanation], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return all of it as what JSON can hold."""
    return {
        "kind": subject.kind,
        "name": subject.name,
        "facts": plain(subject.facts),
        "tasks": [one.as_dict() for one in explanations],
        "other_changes": list(others),
    }
