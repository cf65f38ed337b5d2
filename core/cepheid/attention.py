# SPDX-License-Identifier: Apache-2.0
"""What an operator should look at, told from an overview of the agent."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from cepheid import durations, wording
from cepheid.journal.pauses import resume_command

#: Seconds by which a timer may be late before it counts as stuck; systemd's watchdog is then not
#: fed any more.
LATE_SECONDS = 30.0

#: What an outcome of a task's last run says. Not "ok".
_OUTCOMES = {
    "failed": ("error", "its last run failed: {error}"),
    "partial": ("warning", "its last run left items out: {counters}"),
    "limited": ("warning", "its last run reached max_changes: {counters}"),
    "overdue": ("warning", "its last run took {duration}, longer than its time_limit"),
    "interrupted": ("warning", "the agent ended in its last run"),
}

Point = dict[str, str]


def health(overview: dict[str, Any], at: datetime.datetime, not_ready: Sequence[str]) -> Any:
    """Return ``health`` of :mod:`cepheid.overview`.

    :param overview: the rest of the document
    :param at: when it was made
    :param not_ready: what else is wrong, a sentence each
    """
    points = [_point("error", "", text) for text in not_ready]
    points += _of_agent(overview)
    for task in overview["tasks"]:
        points += _of_task(task, at)
    points.sort(key=lambda point: point["level"] != "error")  # stable: their order stays
    levels = {point["level"] for point in points}
    state = "failing" if "error" in levels else "attention" if levels else "ok"
    return {"state": state, "points": points}


def _of_agent(overview: dict[str, Any]) -> Iterator[Point]:
    if overview["journal_error"]:
        yield _point("error", "", overview["journal_error"])
    for plugin in overview["not_loaded"]:
        yield _point("error", plugin["name"], f"{plugin['state']}: {plugin['reason']}")
    abandoned = sum(call["abandoned"] for call in overview["native_calls"])
    if abandoned:
        calls = "1 native call hangs past its deadline"
        if abandoned > 1:
            calls = f"{abandoned} native calls hang past their deadlines"
        yield _point("warning", "", calls)
    queued = overview["native_calls_queued"]
    if queued:
        calls = "1 native call waits" if queued == 1 else f"{queued} native calls wait"
        yield _point("warning", "", f"{calls} for a thread")
    for pause in overview["pauses"]:
        text = paused(pause)
        if not pause["until_at"]:
            text = f"{text.rstrip('.')}. '{resume_command(pause['task'])}' ends it."
        yield _point("warning", pause["task"], text)


def _of_task(task: dict[str, Any], at: datetime.datetime) -> Iterator[Point]:
    if task["status"] == "overdue":
        run = task["run"]
        seconds = (at - _time(run["started_at"])).total_seconds()
        text = f"has run for {durations.in_words(seconds)}"
        if run["time_limit_seconds"]:
            text += f", its time_limit is {durations.exactly(run['time_limit_seconds'])}"
        yield _point("error", task["name"], text)
    if task["late_seconds"] > LATE_SECONDS:
        text = f"its timer is {durations.in_words(task['late_seconds'])} late"
        yield _point("error", task["name"], text)
    run = task["last_run"]
    if run is not None and run["outcome"] in _OUTCOMES:
        level, text = _OUTCOMES[run["outcome"]]
        yield _point(level, task["name"], text.format(
            error=run["error"],
            counters=wording.counters(run["counters"]),
            duration=durations.in_words(run["duration_seconds"] or 0.0),
        ))  # fmt: skip


def paused(pause: dict[str, Any]) -> str:
    """Say who has paused what, until when, or since when if there is no end, and why."""
    scope = "all tasks are paused" if pause["all"] else "paused"
    by = f" by {pause['who']}" if pause["who"] else ""
    if pause["until_at"]:
        span = f" until {_minute(pause['until_at'])}"
    else:
        span = f" since {_minute(pause['at'])}, until resumed"
    return f"{scope}{by}{span}{': ' + pause['reason'] if pause['reason'] else ''}"


def _point(level: str, task: str, text: str) -> Point:
    return {"level": level, "task": task, "text": text}


def _minute(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC"


def _time(at: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(at).replace(tzinfo=None)
