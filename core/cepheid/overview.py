# SPDX-License-Identifier: Apache-2.0
"""One document of what an agent is and does: what the page, the terminal and others show.

:func:`take` makes it of a snapshot and the journal, :func:`newer` shortens it for a reader who has
the older runs already. It holds what JSON can hold and no password of a URL. It stays small: an
hour's runs as rows of numbers, the newest changes, texts cut.

Times named ``..._at`` are UTC, as in ``2026-11-24T12:03:04.000Z``. What is not known is None.
As long as nothing happens, the document stays the same but for ``at``: it tells when something
began and is due, not how long that is ago.

``at``, ``host``, ``pid``, ``version``, ``concurrency``, ``started_at``
    When it was made, and whose it is.
``health``
    ``state`` (``ok``, ``attention``, ``failing``), and ``points``, the reasons for it, worst
    first: ``level`` (``error``, ``warning``), ``task`` (or empty) and ``text``.
``tasks``
    Those that the agent runs, by name, see :func:`.overview_entries.task`.
``not_loaded``, ``inactive``
    The other plugins, with ``state`` and ``reason``: those that were wanted and cannot be had
    (``failed``, ``in conflict``), and those that were not (``disabled``, ``replaced``).
``operations``
    The runs under way of operators' commands, as ``run`` of a task.
``runs``
    The runs that began in the last ``seconds``, oldest first. ``columns`` names the values of
    each of ``rows``, see :data:`COLUMNS`; in them ``task`` and ``error`` are places in the lists
    ``tasks`` and ``errors``. ``complete`` is false where there are more than :data:`MAX_RUNS`.
    ``after_id``: those up to this id were left out, see :func:`newer`.
``changes``
    The newest :data:`MAX_CHANGES`, newest first, see :func:`.overview_entries.change`. What came
    to the same nothing again and again is one of them, see :func:`cepheid.repetition.streaks`.
``pauses``
    Those in force: ``task``, ``all``, ``at``, ``until_at``, ``reason``, ``who``.
``totals``
    Of the last ``seconds``: ``runs``, ``outcomes`` (how many runs by outcome), ``counters`` (the
    sums of the runs' counters).
``drivers``, ``native_calls``, ``native_calls_queued``
    As in the snapshot; a call with ``began_at`` instead of its seconds.
``journal_error``
    Why runs and changes are missing, or not written; empty where they are there.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cepheid import attention, errors, overview_entries, repetition
from cepheid.journal.reader import Reader
from cepheid.journal.view import view
from cepheid.run import plugin_of
from cepheid.wording import shown

HOUR_SECONDS = 3600

#: The most runs of the last hour that are read: fifty tasks each minute.
MAX_RUNS = 3000

#: The most changes that are told.
MAX_CHANGES = 50

#: The most changes that are read for that: what fails at each pass is told once.
MAX_CHANGES_READ = 500

#: ``dry_run`` is 0 or 1; ``changes`` counts those that were made, or planned in a dry run.
COLUMNS = (
    "id",
    "task",
    "started_unix_seconds",
    "duration_seconds",
    "lateness_seconds",
    "outcome",
    "dry_run",
    "trigger",
    "changes",
    "error",
)

#: The states of plugins that were wanted and cannot be had.
NOT_LOADED = ("failed", "in conflict")

Row = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """What the journal tells.

    :param runs: those of the last hour, newest first, :data:`MAX_RUNS` at most
    :param last_runs: the newest run that has ended, by task
    :param changes: the newest, newest first, :data:`MAX_CHANGES_READ` at most
    :param error: why there is nothing, or nothing new
    """

    runs: Sequence[Row] = ()
    last_runs: Mapping[str, Row] = field(default_factory=dict)
    changes: Sequence[Row] = ()
    error: str = ""


def take(state: Row, path: Path, not_ready: Sequence[str] = ()) -> Row:
    """Return the document of an agent; why its journal cannot be read is told in it.

    :param state: as :func:`cepheid.snapshot.take` returns it, or the agent's ``status`` command
    :param path: the journal's; it is read on the calling thread, which may be a native one
    :param not_ready: what else keeps the agent from its work, a sentence each
    """
    try:
        with view(path) as journal:
            records = read(journal, overview_entries.time(state["at"]))
    except errors.JournalError as err:
        records = Records(error=str(err))
    # An agent of an earlier version does not tell, and one that answers over HTTP has told of it.
    failure = state.get("journal_failure", "")
    if failure and not any(failure in text for text in not_ready):
        records = replace(records, error=failure)
    return build(state, records, not_ready)


def read(journal: Reader, now: datetime.datetime, seconds: float = HOUR_SECONDS) -> Records:
    """Read what the journal tells of the last `seconds`.

    It costs three statements, which read the runs of that time, one run of each task and
    :data:`MAX_CHANGES_READ` changes, however long the journal is.

    :raises JournalError: it cannot be read
    """
    return Records(
        journal.runs_since(now - datetime.timedelta(seconds=seconds), MAX_RUNS),
        journal.newest_runs(ended=True),
        journal.newest_changes(MAX_CHANGES_READ),
    )


def build(state: Row, records: Records, not_ready: Sequence[str] = ()) -> Row:
    """Put the document together."""
    at = overview_entries.time(state["at"])
    mine = [task for task in state["tasks"] if task["state"] == "enabled"]
    others = [overview_entries.plugin(task) for task in state["tasks"] if task not in mine]
    names = {task["name"] for task in mine}
    document = {
        **{name: state[name] for name in ("host", "pid", "version", "concurrency")},
        "at": overview_entries.text(at),
        "started_at": overview_entries.text(overview_entries.time(state["started_at"])),
        "tasks": [
            overview_entries.task(task, at, records.last_runs)
            for task in sorted(mine, key=lambda task: str(task["name"]))
        ],
        "not_loaded": [plugin for plugin in others if plugin["state"] in NOT_LOADED],
        "inactive": [plugin for plugin in others if plugin["state"] not in NOT_LOADED],
        "operations": [
            overview_entries.under_way(run)
            for run in state["runs"]
            if plugin_of(run["task"]) not in names
        ],
        "runs": _runs(records.runs),
        "changes": [
            overview_entries.change(streak)
            for streak in repetition.streaks(records.changes)[:MAX_CHANGES]
        ],
        "pauses": [overview_entries.pause(pause) for pause in state["pauses"]],
        "totals": _totals(records.runs),
        "drivers": state["drivers"],
        "native_calls": [overview_entries.native_call(call, at) for call in state["native_calls"]],
        "native_calls_queued": state["native_calls_queued"],
        "journal_error": shown(records.error),
    }
    document["health"] = attention.health(document, at, [shown(text) for text in not_ready])
    return document


def newer(document: Row, run_id: int) -> Row:
    """Return the document without the runs up to `run_id`, for a reader who has them.

    A reader asks with the highest id up to which all of its runs have ended.
    """
    runs = document["runs"]
    rows = [row for row in runs["rows"] if row[0] > run_id]
    return {**document, "runs": {**runs, "rows": rows, "after_id": run_id}}


def _runs(runs: Sequence[Row]) -> Row:
    tasks, texts = _Places(), _Places()
    rows = [
        [
            run["id"],
            tasks.of(run["task"]),
            round(_unix_seconds(run["started_at"]), 1),
            overview_entries.rounded(run["duration_seconds"]),
            overview_entries.rounded(run["lateness_seconds"]),
            run["outcome"],
            int(run["dry_run"]),
            run["trigger"],
            run["counters"].get("done", 0) + run["counters"].get("planned", 0),
            texts.of(shown(run["error"])) if run["error"] else None,
        ]
        for run in reversed(runs)
    ]
    return {
        "seconds": HOUR_SECONDS,
        "complete": len(runs) < MAX_RUNS,
        "after_id": 0,
        "columns": list(COLUMNS),
        "tasks": tasks.all,
        "errors": texts.all,
        "rows": rows,
    }


class _Places:
    """Gives equal texts one place in a list."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def all(self) -> list[str]:
        return list(self._places)

    def of(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places))


def _totals(runs: Iterable[Row]) -> Row:
    outcomes: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    for run in runs:
        outcomes[run["outcome"]] += 1
        counters.update(run["counters"])
    return {
        "seconds": HOUR_SECONDS,
        "runs": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "counters": dict(sorted(counters.items())),
    }


def _unix_seconds(text: str) -> float:
    return overview_entries.time(text).replace(tzinfo=datetime.UTC).timestamp()
