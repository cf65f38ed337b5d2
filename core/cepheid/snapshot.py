# SPDX-License-Identifier: Apache-2.0
"""What an agent is doing right now, for the command line, a report and whoever else shows it.

Read from memory alone and without locks, so that a native thread may do it while all else hangs.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

from cepheid import concurrency
from cepheid.active_run import ActiveRun
from cepheid.agent import Agent
from cepheid.journal import Pause
from cepheid.journal.pauses import pause_of
from cepheid.journal.store import text
from cepheid.loading import Plugin
from cepheid.run import plugin_of
from cepheid.task import Task
from cepheid.timers import Timer


def take(agent: Agent, timers: Mapping[Task, Timer], pauses: Mapping[str, Pause]) -> dict[str, Any]:
    """Return the agent's state as what JSON can hold.

    ``tasks`` has every plugin that was found, ``runs`` what goes on (operators' commands
    included), ``native_calls`` the calls under way, ``pauses`` those in force,
    ``journal_failure`` why the journal is not written; empty where it is.

    :param timers: by task
    :param pauses: those in force, by task
    """
    return {
        "host": agent.host,
        "pid": os.getpid(),
        "version": importlib.metadata.version("cepheid"),
        "concurrency": "eventlet" if concurrency.is_green() else "threading",
        "at": text(agent.clock.utcnow()),
        "started_at": text(agent.started_at),
        "drivers": [
            {"kind": kind, "name": plugin.name, "distribution": plugin.distribution}
            for kind, plugin in agent.drivers.in_use.items()
        ],
        "tasks": [of_task(agent, plugin, timers, pauses) for plugin in agent.plugins],
        "runs": [_of_run(agent, active) for active in agent.runner.under_way],
        "native_calls": [
            {"name": name, "seconds": seconds, "abandoned": abandoned}
            for name, seconds, abandoned in agent.native.under_way
        ],
        "native_calls_queued": agent.native.queued,
        "pauses": [pause.as_dict() for pause in pauses.values()],
        "journal_failure": agent.journal.failure,
    }


def of_task(
    agent: Agent,
    plugin: Plugin,
    timers: Mapping[Task, Timer],
    pauses: Mapping[str, Pause],
) -> dict[str, Any]:
    """Return the state of one task.

    ``next_run_seconds`` is None where it is not known: it is running, it has no timer, or it is
    paused until it is resumed.
    """
    task = agent.tasks.get(plugin.name) if plugin.state == "enabled" else None
    timer = timers.get(task) if task else None
    runs = [
        active
        for active in agent.runner.under_way
        if plugin_of(active.run.task) == plugin.name and task is not None
    ]
    pause = pause_of(plugin.name, pauses) if task is not None else None
    return {
        **plugin.as_dict(),
        "spacing_seconds": task.spacing if task is not None else None,
        "next_run_seconds": _next_run(agent, task, timer, pause),
        "late_seconds": timer.lateness() if timer is not None else None,
        "dry_run": agent.runner.is_dry(task, None) if task is not None else None,
        "running": bool(runs),
        "run": _of_run(agent, runs[0]) if runs else None,
        "pause": pause.as_dict() if pause is not None else None,
    }


def _next_run(
    agent: Agent, task: Task | None, timer: Timer | None, pause: Pause | None
) -> float | None:
    if task is None or timer is None or timer.running:
        return None
    next_look = timer.due - agent.clock.monotonic()
    seconds = max(task.seconds_to_next_run(), next_look, 0.0)
    if pause is None:
        return seconds
    if pause.until is None:
        return None
    return max(seconds, (pause.until - agent.clock.utcnow()).total_seconds())


def _of_run(agent: Agent, active: ActiveRun) -> dict[str, Any]:
    """Return the state of a run; ``ended_seconds`` is since it ended and is not recorded yet."""
    run, now = active.run, agent.clock.monotonic()
    return {
        "id": run.id,
        "task": run.task,
        "trigger": run.trigger,
        "dry_run": run.dry_run,
        "request_id": run.request_id,
        "started_at": text(run.started_at),
        "seconds": now - active.started,
        "ended_seconds": None if active.ended is None else now - active.ended,
        "time_limit_seconds": active.time_limit or None,
        "outcome": active.outcome,
        "counters": run.counters,
        "progress": run.progress,
    }
