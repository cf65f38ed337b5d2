# SPDX-License-Identifier: Apache-2.0
"""The rows of ``cepheid task list``: words for people, numbers and whole texts for scripts."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oslo_config import cfg

from cepheid import durations, loading, periodic_task
from cepheid.cli import cells, lists
from cepheid.journal import Pause


@dataclass(frozen=True)
class Facts:
    """What is told of a task in one way or the other.

    :param has_spacing: whether it has options, and so a spacing
    :param spacing_seconds: None where it is off
    :param started_at: of its newest run, as the journal has it; None where there is none
    :param next_run_seconds: until its next run; None where that is not known
    """

    plugin: loading.Plugin
    has_spacing: bool
    spacing_seconds: float | None
    started_at: str | None
    next_run_seconds: float | None


#: Gives spacing, last run, next run and summary.
Write = Callable[[Facts], tuple[Any, Any, Any, Any]]


def for_people(facts: Facts) -> tuple[str, str, str, str]:
    """Return spacing, last run, next run and summary in words."""
    seconds, next_run = facts.spacing_seconds, facts.next_run_seconds
    spacing = "off" if seconds is None else durations.exactly(seconds)
    return (
        spacing if facts.has_spacing else "",
        _ago(facts.started_at) if facts.started_at else "",
        "" if next_run is None else f"in {durations.in_words(next_run)}",
        lists.summary(facts.plugin),
    )


def for_scripts(facts: Facts) -> tuple[float | None, str | None, str | None, str]:
    """Return spacing in seconds, last and next run as times, and the whole summary."""
    next_run = None
    if facts.next_run_seconds is not None:
        at = utcnow() + datetime.timedelta(seconds=facts.next_run_seconds)
        next_run = cells.time(at.isoformat())
    return (
        facts.spacing_seconds,
        cells.time(facts.started_at) if facts.started_at else None,
        next_run,
        facts.plugin.summary,
    )


def row(
    write: Write,
    conf: cfg.ConfigOpts,
    plugin: loading.Plugin,
    live: dict[str, Any] | None,
    newest: dict[str, dict[str, Any]],
    pause: Pause | None,
) -> tuple[Any, ...]:
    """Return a task's row.

    :param live: what the running agent says of it
    :param newest: the newest run of each task
    """
    state, reason = plugin.state, plugin.reason
    if live is not None:
        state, reason = live["state"], live["reason"]
    if pause is not None and state == "enabled":
        state, reason = "paused", str(pause)
    has_spacing = plugin.state in ("enabled", "disabled") and plugin.name in conf
    seconds = periodic_task.effective_spacing(conf[plugin.name].spacing) if has_spacing else None
    run = newest.get(plugin.name) if state not in ("replaced", "in conflict") else None
    spacing, last_run, next_run, summary = write(
        Facts(
            plugin,
            has_spacing,
            seconds,
            run["started_at"] if run else None,
            live["next_run_seconds"] if live is not None else None,
        )
    )
    return (
        plugin.name,
        cells.running(live["run"]) if live is not None and live["running"] else state,
        reason,
        spacing,
        last_run,
        run["outcome"] if run else "",
        next_run,
        plugin.distribution,
        plugin.version,
        summary,
    )


def utcnow() -> datetime.datetime:
    """Return the time as the journal has it: UTC, naive."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def _ago(started_at: str) -> str:
    elapsed = (utcnow() - datetime.datetime.fromisoformat(started_at)).total_seconds()
    return f"{durations.in_words(max(0.0, elapsed))} ago"
