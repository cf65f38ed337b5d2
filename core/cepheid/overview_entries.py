# SPDX-License-Identifier: Apache-2.0
"""The entries of an overview: one task, run, change, pause as they are shown.

See :mod:`cepheid.overview` for the whole.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from cepheid.attention import LATE_SECONDS
from cepheid.journal.pauses import ALL
from cepheid.run import plugin_of
from cepheid.wording import shown, value

Entry = dict[str, Any]


def task(found: Entry, at: datetime.datetime, last_runs: Mapping[str, Entry]) -> Entry:
    """Return one task that the agent runs: as :func:`plugin`, and more.

    ``status`` is one word: ``overdue`` (longer than its limit), ``running``, ``paused``, ``off``
    (no spacing), ``late`` (its timer does not turn) or ``waiting``. ``run`` is the run under way
    (see :func:`under_way`), ``last_run`` the newest that has ended (:func:`ended`), ``pause`` what
    keeps it (:func:`pause`), each or None. ``next_run_at`` is None where it is not known: it
    runs, is off, or is paused until it is resumed. ``spacing_seconds`` is None while it is off.
    ``dry_run`` tells how it is configured.

    :param found: as :func:`cepheid.snapshot.of_task` returns it
    :param last_runs: by their names
    """
    seconds = found["next_run_seconds"] if found["spacing_seconds"] is not None else None
    own = [run for name, run in last_runs.items() if plugin_of(name) == found["name"]]
    return {
        **plugin(found),
        "summary": shown(found["summary"]),
        "status": status(found),
        "spacing_seconds": found["spacing_seconds"],
        "next_run_at": None if seconds is None else whole_seconds(at, seconds),
        "late_seconds": round(found["late_seconds"] or 0.0),
        "dry_run": found["dry_run"],
        "run": under_way(found["run"]) if found["run"] else None,
        "last_run": ended(max(own, key=lambda run: int(run["id"]))) if own else None,
        "pause": pause(found["pause"]) if found["pause"] else None,
    }


def status(found: Entry) -> str:
    """Return what a task does now, in one word."""
    if found["run"]:
        return "overdue" if found["run"]["outcome"] == "overdue" else "running"
    if found["pause"]:
        return "paused"
    if found["spacing_seconds"] is None:
        return "off"
    return "late" if (found["late_seconds"] or 0.0) > LATE_SECONDS else "waiting"


def plugin(found: Entry) -> Entry:
    """Return what a plugin is: ``name``, ``distribution``, ``version``, ``state``, ``reason``."""
    return {
        **{name: found[name] for name in ("name", "distribution", "version", "state")},
        "reason": shown(found["reason"]),
    }


def under_way(run: Entry) -> Entry:
    """Return a run that goes on; it has done ``done`` of ``total``, each None if not known.

    ``time_limit_seconds`` is None where there is no limit.
    """
    done, total = run["progress"] or (None, None)
    return {
        **{name: run[name] for name in ("id", "task", "trigger", "dry_run", "outcome")},
        "started_at": text(time(run["started_at"])),
        "time_limit_seconds": run["time_limit_seconds"],
        "done": done,
        "total": total,
    }


def ended(run: Entry) -> Entry:
    """Return a run that has ended; an interrupted one has no ``duration_seconds``."""
    return {
        **{name: run[name] for name in ("id", "task", "trigger", "outcome", "counters")},
        "dry_run": bool(run["dry_run"]),
        "started_at": text(time(run["started_at"])),
        "duration_seconds": rounded(run["duration_seconds"]),
        "lateness_seconds": rounded(run["lateness_seconds"]),
        "error": shown(run["error"]),
    }


def change(streak: Sequence[Entry]) -> Entry:
    """Return a change: what the journal has of it, and what it has of its run.

    ``task``, ``started_at`` and ``dry_run`` are the run's. ``at`` is when the change was carried
    out, to the second; where the journal does not tell any more, when its run began. ``before``
    and ``after`` are texts, empty for nothing. It came to the same ``times`` times since
    ``first_at``, when the change ``first_id`` did; mostly that is once.

    :param streak: one of :func:`cepheid.repetition.streaks`
    """
    made, first = streak[0], streak[-1]
    return {
        **{name: made[name] for name in ("id", "run_id", "task", "kind", "outcome")},
        "target": shown(made["target"]),
        "at": text(_carried_out(made)),
        "times": len(streak),
        "first_at": text(_carried_out(first)),
        "first_id": first["id"],
        "started_at": text(time(made["started_at"])),
        "dry_run": bool(made["dry_run"]),
        "before": value(made["before"]),
        "after": value(made["after"]),
        "reason": shown(made["reason"]),
        "error": shown(made["error"]),
    }


def _carried_out(made: Entry) -> datetime.datetime:
    at = time(made["started_at"])
    if made.get("sealed_at") is None:
        return at
    sealed_at = datetime.datetime.fromtimestamp(made["sealed_at"], datetime.UTC)
    return max(at, sealed_at.replace(tzinfo=None))


def pause(said: Entry) -> Entry:
    """Return a pause; ``all`` tells whether all tasks are, ``until_at`` is None for no end."""
    return {
        "task": said["task"],
        "all": said["task"] == ALL,
        "at": text(time(said["at"])),
        "until_at": text(time(said["until"])) if said["until"] else None,
        "reason": shown(said["reason"]),
        "who": shown(said["who"]),
    }


def native_call(call: Entry, at: datetime.datetime) -> Entry:
    """Return a native call under way: ``name``, ``began_at`` and whether it was ``abandoned``."""
    return {
        "name": shown(call["name"]),
        "began_at": whole_seconds(at, -call["seconds"]),
        "abandoned": call["abandoned"],
    }


def rounded(seconds: float | None) -> float | None:
    """Return seconds to the millisecond."""
    return None if seconds is None else round(seconds, 3)


def time(text: str) -> datetime.datetime:
    """Read a time as snapshots and the journal write it."""
    return datetime.datetime.fromisoformat(text)


def text(at: datetime.datetime) -> str:
    """Write a time as an overview has it."""
    return f"{at.isoformat(timespec='milliseconds')}Z"


def whole_seconds(at: datetime.datetime, seconds: float) -> str:
    """Return the time this far from `at`, in whole seconds.

    So it does not tremble from one overview to the next.
    """
    return text((at + datetime.timedelta(seconds=seconds + 0.5)).replace(microsecond=0))
