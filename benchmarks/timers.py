# SPDX-License-Identifier: Apache-2.0
"""Thousands of timers of one second: how late they are and what a call costs, beside peers."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Report, Table, shown
from benchmarks.timer_subjects import OURS, SUBJECTS, is_green

NUMBERS = (17, 1_000, 10_000)
#: Rounds in which all take turns, by the number of timers. Few timers let the processor fall asleep
#: between two calls, and what a call costs then is another thing each time.
ROUNDS = {17: 9, 1_000: 3, 10_000: 3}
#: Seconds for which each is measured in a round.
SECONDS = 3.0
#: Seconds after which a process has failed: it cannot even start so many timers.
PATIENCE_SECONDS = 30.0
#: A run with all that belongs to it syncs the disk; a thousand in a second no disk can do.
MOST_TASKS = 17

COLUMNS = {
    "lateness_p50_ms": "Lateness p50, ms",
    "lateness_p99_ms": "p99, ms",
    "lateness_max_ms": "max, ms",
    "cpu_us_per_call": "CPU per call, µs",
}


def report(quick: bool) -> Report:
    """Measure all subjects with each number of timers."""
    numbers, seconds = (NUMBERS[:1], 1.0) if quick else (NUMBERS, SECONDS)
    rounds = dict.fromkeys(numbers, 1) if quick else ROUNDS
    medians = []
    for number in numbers:
        found: dict[str, list[dict[str, Any] | None]] = {name: [] for name in SUBJECTS}
        for turn in range(rounds[number]):
            names = list(SUBJECTS)
            for name in names if turn % 2 == 0 else reversed(names):
                # What could not do it once is not asked again.
                if None not in found[name] and (name != "cepheid-task" or number <= MOST_TASKS):
                    found[name].append(_measure(name, number, seconds))
        medians += [_median(name, number, found[name]) for name in SUBJECTS if found[name]]
    return Report(
        _notes(medians, rounds, seconds),
        [_table(medians, number) for number in numbers],
        medians,
        lambda figure: _draw(figure, medians, numbers),
    )


def _measure(name: str, timers: int, seconds: float) -> dict[str, Any] | None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.timer_subjects", name]
    try:
        done = subprocess.run(
            [*command, str(timers), str(seconds)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parents[1],
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        # It says "can't start new thread" or the like.
        print(f"{name} with {timers} timers: {done.stderr[-300:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(name: str, number: int, found: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    rounds = [one for one in found if one is not None]
    of_all: dict[str, Any] = {"subject": name, "timers": number, "rounds": rounds}
    if len(rounds) == len(found):
        for column in (*COLUMNS, "calls_made", "calls_due", "adding_seconds"):
            of_all[column] = statistics.median(one[column] for one in rounds)
    return of_all


def _table(medians: Sequence[dict[str, Any]], number: int) -> Table:
    of_size = [one for one in medians if one["timers"] == number]
    rows = [
        [
            one["subject"],
            *(one.get(column) for column in COLUMNS),
            _share(one),
            one.get("adding_seconds"),
        ]
        for one in of_size
    ]
    headings = ["Timers of", *COLUMNS.values(), "Calls made of those due", "Adding them, s"]
    return Table(f"{number:,} timers of one second", headings, rows)


def _share(one: dict[str, Any]) -> str | None:
    return f"{one['calls_made'] / one['calls_due']:.1%}" if "calls_due" in one else None


def _notes(medians: Sequence[dict[str, Any]], rounds: dict[int, int], seconds: float) -> list[str]:
    of_each = ", ".join(f"{count} with {number:,}" for number, count in rounds.items())
    notes = [
        "Each row is a process of its own; they take turns, and a figure is the median of all "
        f"rounds ({of_each}) of {seconds:g} s. All call the same function, which notes the time. "
        "The timers are added evenly over a second. A timer is due one second after it was added, "
        "and every second from then on; lateness is how long after its time the n-th call began, "
        "so what a scheduler adds up by waiting a second after each call counts. CPU is the whole "
        "process's. A dash: it could not start so many timers within "
        f"{PATIENCE_SECONDS:g} s.",
        "``futurist`` as it comes calls one function after another in one thread: one that hangs "
        "stops all others. ``futurist-pool`` and ``apscheduler`` have 20 and 10 threads for that; "
        "as many that hang stop them. The others have a thread for each timer, green or native. "
        "Cepheid has two, and one more for each that does not return at once, without a limit. "
        "``cepheid-task`` is the whole way of a run: the task's lock, its record in the journal, "
        "synced to the disk, and its place in the schedule. No peer does that, so it is not "
        "compared.",
    ]
    aim = "The aim is to be no worse than the best peer with the same kind of threads in any column"
    behind, level = _behind(medians)
    notes.append(f"{aim}. Behind: {'; '.join(behind)}." if behind else f"{aim}: so it is.")
    if level:
        notes.append(
            "Where that peer's median is the smaller one, and some of its rounds were worse than "
            f"the median of ours, neither counts as the better: {'; '.join(level)}."
        )
    return notes


def _behind(medians: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Tell where a peer is better than we are, and where only its median is."""
    behind, level = [], []
    for ours in (one for one in medians if one["subject"] in OURS):
        peers = [
            one
            for one in medians
            if one["timers"] == ours["timers"]
            and one["subject"] not in OURS
            and one["subject"] != "cepheid-task"
            and is_green(one["subject"]) == is_green(ours["subject"])
        ]
        for column, title in COLUMNS.items():
            place = f"{ours['subject']}, {ours['timers']:,} timers, {title}"
            best = min((one for one in peers if column in one), key=lambda one: one[column])
            if column not in ours:
                behind.append(f"{place}: {best['subject']}")
            elif ours[column] > best[column]:
                is_level = ours[column] <= max(one[column] for one in best["rounds"])
                (level if is_level else behind).append(
                    f"{place}: {shown(ours[column])}, {best['subject']} {shown(best[column])}"
                )
    return behind, level


def _draw(figure: Any, medians: Sequence[dict[str, Any]], numbers: Sequence[int]) -> None:
    for place, column in enumerate(("lateness_p99_ms", "cpu_us_per_call"), 1):
        axes = figure.add_subplot(1, 2, place)
        for name in SUBJECTS:
            of_one = [one for one in medians if one["subject"] == name and column in one]
            axes.plot(
                [one["timers"] for one in of_one],
                [one[column] for one in of_one],
                marker="o" if name in OURS else "s",
                linewidth=2 if name in OURS else 1,
                linestyle="--" if is_green(name) else "-",
                label=name,
            )
        axes.set(xscale="log", yscale="log", title=COLUMNS[column], xlabel="timers of one second")
        axes.set_xticks(list(numbers), [f"{number:,}" for number in numbers])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right", fontsize="small")
