# SPDX-License-Identifier: Apache-2.0
"""Overviews for the tests of what shows them: built as the agent builds them, at noon."""

from __future__ import annotations

import datetime
from typing import Any

from cepheid import overview

NOON = datetime.datetime(2026, 11, 23, 12, 0)


def task(name: str, **values: Any) -> dict[str, Any]:
    """Return a task as a snapshot has it: it waits, runs each minute, and next in 12 s."""
    return {"name": name, "summary": "Do what is to be done.", "distribution": "cepheid",
            "version": "0.1.0", "state": "enabled", "reason": "", "spacing_seconds": 60.0,
            "next_run_seconds": 12.0, "late_seconds": 0.0, "dry_run": False, "running": False,
            "run": None, "pause": None, **values}  # fmt: skip


def under_way(name: str, **values: Any) -> dict[str, Any]:
    """Return a run that has gone on for two minutes, as a snapshot has it."""
    return {"id": 900, "task": name, "trigger": "timer", "dry_run": False,
            "started_at": "2026-11-23T11:58:00.000000", "time_limit_seconds": None,
            "outcome": "running", "progress": None, **values}  # fmt: skip


def pause(name: str, **values: Any) -> dict[str, Any]:
    """Return a pause until two o'clock."""
    return {"task": name, "at": "2026-11-23T11:00:00.000000",
            "until": "2026-11-23T14:00:00.000000", "reason": "a new switch", "who": "alice",
            **values}  # fmt: skip


def run(number: int, name: str, minutes_ago: float = 1.0, **values: Any) -> dict[str, Any]:
    """Return a run of two seconds as the journal has it."""
    started_at = NOON - datetime.timedelta(minutes=minutes_ago)
    return {"id": number, "task": name, "trigger": "timer", "dry_run": 0, "outcome": "ok",
            "started_at": started_at.isoformat(timespec="microseconds"), "duration_seconds": 2.0,
            "lateness_seconds": 0.25, "counters": {}, "error": "", **values}  # fmt: skip


def change(number: int, name: str, **values: Any) -> dict[str, Any]:
    """Return a change of half past eleven as the journal has it."""
    return {"id": number, "run_id": number, "task": name, "kind": "power_state",
            "target": "3f2c1d0e-0000-4000-8000-000000000001", "before": "running",
            "after": "shutdown", "reason": "web-7: its guest is shutdown", "outcome": "done",
            "error": "", "started_at": "2026-11-23T11:30:00.000000", "sealed_at": None,
            "dry_run": 0, **values}  # fmt: skip


def document(
    *tasks: dict[str, Any],
    runs: Any = (),
    changes: Any = (),
    not_ready: Any = (),
    under_way_now: Any = (),
    **values: Any,
) -> dict[str, Any]:
    """Return the overview of an agent that was started four hours ago.

    :param runs: newest first
    :param under_way_now: those that go on
    """
    state = {"host": "host1", "pid": 4711, "version": "0.1.0", "concurrency": "threading",
             "at": "2026-11-23T12:00:00.000000", "started_at": "2026-11-23T08:00:00.000000",
             "drivers": [{"kind": "database", "name": "sqlalchemy", "distribution": "cepheid"}],
             "tasks": list(tasks), "runs": list(under_way_now), "native_calls": [],
             "native_calls_queued": 0, "pauses": [], **values}  # fmt: skip
    newest: dict[str, dict[str, Any]] = {}
    for one in runs:
        if one["outcome"] != "running":
            newest.setdefault(one["task"], one)
    return overview.build(state, overview.Records(list(runs), newest, list(changes)), not_ready)
