# SPDX-License-Identifier: Apache-2.0
"""What is known of the agent itself, as metrics; pure functions of what was read."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cepheid.call_record import CallRecord
from cepheid.metric import Labels, Metric, Summary, Value, gauge
from cepheid.status.health import FAILED, Check, is_ready
from cepheid.status.watch import Room


def of_state(state: Mapping[str, Any]) -> Iterator[Metric]:
    """Give what a snapshot tells: the build, the tasks, native calls.

    :param state: as :func:`cepheid.snapshot.take` returns it
    """
    build = (state["host"], state["version"], platform.python_version(), state["concurrency"])
    yield Metric(
        "cepheid_build_info", "What runs here; always 1.", {build: 1},
        ("host", "version", "python_version", "concurrency"),
    )  # fmt: skip
    yield Metric(
        "cepheid_task_state",
        "The state of each task plugin that is installed: enabled, disabled, failed, in conflict "
        "or replaced; always 1.",
        {(task["name"], task["distribution"], task["state"]): 1 for task in state["tasks"]},
        ("task", "distribution", "state"),
    )
    tasks = {task["name"]: task for task in state["tasks"] if task["state"] == "enabled"}
    yield from _of_tasks(tasks)
    calls = state["native_calls"]
    yield gauge(
        "cepheid_native_calls_running",
        "Native calls under way, those past their deadlines included.",
        len(calls),
    )
    yield gauge(
        "cepheid_native_calls_hanging",
        "Native calls under way that are past their deadlines and were abandoned.",
        sum(call["abandoned"] for call in calls),
    )
    yield gauge(
        "cepheid_native_calls_queued",
        "Native calls that have waited for a thread for a second or longer.",
        state["native_calls_queued"],
    )


def _of_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    def each(name: str, help: str, values: Mapping[str, float | None]) -> Metric:
        known: dict[Labels, Value] = {
            (task,): value for task, value in values.items() if value is not None
        }
        return Metric(name, help, known, ("task",))

    yield each(
        "cepheid_task_spacing_seconds",
        "Seconds between two runs of a task; none while it is switched off.",
        {name: task["spacing_seconds"] for name, task in tasks.items()},
    )
    yield each(
        "cepheid_task_paused",
        "Whether an operator has paused the task.",
        {name: task["pause"] is not None for name, task in tasks.items()},
    )
    yield each(
        "cepheid_task_running",
        "Whether a run of the task is under way.",
        {name: task["run"] is not None for name, task in tasks.items()},
    )
    yield each(
        "cepheid_task_overdue",
        "Whether a run of the task is under way that is past its time_limit.",
        {
            name: task["run"] is not None and task["run"]["outcome"] == "overdue"
            for name, task in tasks.items()
        },
    )
    yield each(
        "cepheid_task_timer_lateness_seconds",
        "Seconds by which the task's timer is late to look what is due.",
        {name: task["late_seconds"] for name, task in tasks.items()},
    )


def of_checks(found: Sequence[Check]) -> Iterator[Metric]:
    """Give what ``/readyz`` tells."""
    yield gauge("cepheid_ready", "Whether /readyz says that the agent is ready.", is_ready(found))
    yield Metric(
        "cepheid_check_passed",
        "Whether a check of /readyz did not fail; a warning is no failure.",
        {(check.name,): check.state != FAILED for check in found},
        ("check",),
    )


def of_process(beat_age: float, abandoned: int, room: Room | None) -> Iterator[Metric]:
    """Give what else is known.

    :param beat_age: seconds since the agent's threads turned
    :param abandoned: native calls that were abandoned since the start
    :param room: what the journal takes and has; None where it is not known
    """
    yield gauge(
        "cepheid_beat_age_seconds",
        "Seconds since the agent's threads turned last; they do so every second.",
        beat_age,
    )
    yield Metric(
        "cepheid_native_calls_abandoned_total",
        "Native calls that had not returned by their deadlines.",
        {(): abandoned},
        kind="counter",
    )
    if room is not None:
        yield gauge(
            "cepheid_journal_size_bytes", "The size of the journal's file.", room.size_bytes
        )
        yield gauge(
            "cepheid_journal_free_bytes", "Free space where the journal is.", room.free_bytes
        )


def of_drivers(records: Mapping[str, CallRecord]) -> Iterable[Metric]:
    """Give what the drivers' calls came to.

    :param records: by kind
    """
    times: dict[Labels, Value] = {}
    failures: dict[Labels, Value] = {}
    for kind, record in records.items():
        for name, totals in record.totals.items():
            times[kind, name] = Summary(totals.calls, totals.seconds)
        for reason, count in record.failures.items():
            failures[kind, reason] = count
    yield Metric(
        "cepheid_driver_call_duration_seconds",
        "How long the calls of a driver took, by the call: a function of libvirt, the first word "
        "of a statement, or a transaction as a whole.",
        times, ("kind", "call"), "summary",
    )  # fmt: skip
    yield Metric(
        "cepheid_driver_call_failures_total",
        "Calls of a driver that failed: refused (an error was the answer) or unanswered.",
        failures, ("kind", "reason"), "counter",
    )  # fmt: skip
