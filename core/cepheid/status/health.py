# SPDX-License-Identifier: Apache-2.0
"""Whether the agent is able to do its work, told from facts: what is wrong, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cepheid import wording
from cepheid.active_run import ENDING_SECONDS
from cepheid.attention import LATE_SECONDS
from cepheid.call_record import Standing
from cepheid.durations import exactly, in_words
from cepheid.native import MAX_ABANDONED

#: Seconds without a turn of the agent's threads after which something blocks all of them. The
#: beat comes every second.
MAX_BEAT_SECONDS = 5.0

#: Seconds for which a driver's call may go on before, with no answer to another meanwhile, what
#: is behind it counts as not answering.
MAX_SILENCE_SECONDS = 20.0

#: Free bytes below which the journal's next write may fail.
MIN_FREE_BYTES = 1024 * 1024

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and why. One that failed makes the agent not ready."""

    name: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """How the journal is.

    :param failure: why the newest write failed; empty where it did not
    :param free_bytes: in its file system; None where it is not known
    """

    failure: str = ""
    free_bytes: int | None = None


@dataclass(frozen=True)
class Facts:
    """What is known, read from memory.

    :param now: of the operating system's monotonic clock, as are all times
    :param beat: when the agent's threads turned last
    :param late_seconds: by timer, those that are late
    :param runs: the runs under way, as in :mod:`cepheid.snapshot`
    :param tasks: the plugins, likewise
    :param drivers: by kind, those that tell
    :param hanging: native calls past their deadlines
    :param max_hanging: so many that no more calls are made
    """

    now: float
    beat: float
    is_stopping: bool = False
    late_seconds: Mapping[str, float] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()
    tasks: Sequence[Mapping[str, Any]] = ()
    drivers: Mapping[str, Standing] = field(default_factory=dict)
    hanging: int = 0
    max_hanging: int = MAX_ABANDONED
    journal: JournalFacts = JournalFacts()


def untold(facts: Facts) -> Facts:
    """Return the facts without those of tasks and runs, which an overview tells of each task."""
    names = {task["name"] for task in facts.tasks}
    late = {name: late for name, late in facts.late_seconds.items() if name not in names}
    return replace(facts, late_seconds=late, runs=(), tasks=())


def checks(facts: Facts) -> list[Check]:
    """Look at everything; each thing is one check, in a fixed order."""
    found = [_timers(facts), _runs(facts)]
    found += [_driver(kind, one, facts.now) for kind, one in sorted(facts.drivers.items())]
    found += [_native_calls(facts), _journal(facts.journal), _tasks(facts)]
    if facts.is_stopping:
        found.insert(0, Check("agent", FAILED, "it is stopping"))
    # Reasons and errors of others, which other machines may ask for.
    return [replace(check, text=wording.shown(check.text)) for check in found]


def _timers(facts: Facts) -> Check:
    if facts.is_stopping:
        return Check("timers", OK, "the agent has stopped them")
    silence = facts.now - facts.beat
    if silence > MAX_BEAT_SECONDS:
        text = f"none has turned for {in_words(silence)}: something blocks the agent's threads"
        return Check("timers", FAILED, text)
    late = [
        f"{name} is {in_words(seconds)} late"
        for name, seconds in sorted(facts.late_seconds.items())
        if seconds > LATE_SECONDS
    ]
    return _verdict("timers", late, "they turn on time")


def _runs(facts: Facts) -> Check:
    overdue = []
    for run in facts.runs:
        limit = run["time_limit_seconds"] or 0
        if run["ended_seconds"] is not None:
            if run["ended_seconds"] >= ENDING_SECONDS:
                text = f"{run['task']} has ended; the journal or an observer hangs over it"
                overdue.append(text)
        elif 0 < limit < run["seconds"]:
            text = f"{run['task']} has run for {in_words(run['seconds'])}, its time_limit is "
            overdue.append(f"{text}{exactly(limit)}")
    return _verdict("runs", overdue, f"{len(facts.runs)} under way, none beyond its time_limit")


def _driver(kind: str, standing: Standing, now: float) -> Check:
    if standing.failed_at is not None:
        return Check(kind, FAILED, standing.failure)
    if standing.under_way is not None:
        name, began = standing.under_way
        is_silent = standing.answered_at is None or standing.answered_at < began
        if is_silent and now - began > MAX_SILENCE_SECONDS:
            return Check(kind, FAILED, f"{name} has not returned for {in_words(now - began)}")
    if standing.answered_at is None:
        return Check(kind, OK, "it was not asked for anything yet")
    return Check(kind, OK, f"it answered {in_words(now - standing.answered_at)} ago")


def _native_calls(facts: Facts) -> Check:
    name, text = "native_calls", f"{facts.hanging} hang past their deadlines"
    if facts.hanging == 1:
        text = "1 hangs past its deadline"
    if facts.hanging >= facts.max_hanging:
        return Check(name, FAILED, f"{text}, and no more are made; restart the agent")
    if facts.hanging:
        return Check(name, WARNING, text)
    return Check(name, OK, "none hangs past its deadline")


def _journal(facts: JournalFacts) -> Check:
    if facts.failure:
        return Check("journal", FAILED, facts.failure)
    if facts.free_bytes is not None and facts.free_bytes < MIN_FREE_BYTES:
        return Check("journal", FAILED, f"{facts.free_bytes} bytes are free where it is")
    return Check("journal", OK, "it can be written")


def _tasks(facts: Facts) -> Check:
    """Tasks that were not loaded are a warning: the others do their work, and a restart is none."""
    bad = [
        f"{task['name']} of {task['distribution']}: {task['state']}: {task['reason']}"
        for task in facts.tasks
        if task["state"] in ("failed", "in conflict")
    ]
    if bad:
        return Check("tasks", WARNING, "; ".join(bad))
    enabled = sum(task["state"] == "enabled" for task in facts.tasks)
    return Check("tasks", OK, f"{enabled} enabled, all of them loaded")


def _verdict(name: str, wrong: Sequence[str], fine: str) -> Check:
    return Check(name, FAILED, "; ".join(wrong)) if wrong else Check(name, OK, fine)


def is_ready(found: Sequence[Check]) -> bool:
    """Tell whether no check failed."""
    return all(check.state != FAILED for check in found)


def sentences(found: Sequence[Check]) -> Iterator[str]:
    """Give what failed, one line each."""
    for check in found:
        if check.state == FAILED:
            yield f"{check.name}: {check.text}"
