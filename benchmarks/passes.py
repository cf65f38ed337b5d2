# SPDX-License-Identifier: Apache-2.0
"""What a pass of each task costs beside its floor: 10 to 10,000 instances, SQLite and MariaDB."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa

import cepheid
from benchmarks.floors import CASES, Case
from benchmarks.host import Host
from benchmarks.measure import counting, in_turn
from benchmarks.report import Report, Table
from cepheid.periodic_task import periodic_task
from cepheid.run import Notices, Run, RunContext
from cepheid.task import Task
from tests.functional import servers

NUMBERS = (10, 100, 1_000, 10_000)
QUICK_NUMBERS = (10, 1_000)
#: The number of instances at which a pass is to be within :data:`AIM` times its floor.
AIMED_AT, AIM = 1_000, 2.0
#: Seconds for which a task is measured at one size on one database.
SECONDS = 1.2


@dataclass
class Cost:
    """What a pass in which nothing changes costs. Times are medians, in milliseconds.

    :param first_rows: rows that the first pass wrote
    :param ratio: the pass over its floor, the median over the rounds
    :param ratio_with_bulk: likewise, where the floor has libvirt's bulk call in any case
    :param run_ms: the pass together with its record in the journal and its lock
    """

    task: str
    database: str
    instances: int
    first_rows: int
    rows: int
    statements: int
    calls: int
    floor_statements: int
    floor_calls: int
    floor_ms: float
    pass_ms: float
    ratio: float
    ratio_with_bulk: float
    run_ms: float


class DoNothing(cepheid.Task):
    """Do nothing, to measure what surrounds each run."""

    name = "do_nothing"

    @periodic_task
    def do_nothing(self, context: RunContext) -> None:
        pass


def report(quick: bool) -> Report:
    """Measure all tasks at all sizes on both databases."""
    logging.getLogger("cepheid").setLevel(logging.ERROR)
    numbers, seconds = (QUICK_NUMBERS, 0.0) if quick else (NUMBERS, SECONDS)
    costs: list[Cost] = []
    empty_runs: list[float] = []
    with databases() as found:
        for database, make_url in found.items():
            for number in numbers:
                with opened(number, make_url) as host:
                    empty_runs.append(surroundings(host))
                    costs += [measure(host, case, database, seconds) for case in CASES]
    return Report(
        notes(costs, statistics.median(empty_runs)),
        [at_size(costs, number) for number in numbers if number == AIMED_AT or quick]
        + [over_sizes(costs, database, numbers) for database in found],
        [asdict(cost) for cost in costs],
        lambda figure: draw(figure, costs, list(found)),
    )


@contextlib.contextmanager
def databases() -> Iterator[dict[str, Callable[[], sa.URL | None]]]:
    """Start what is measured on; give for each what makes an empty database."""
    with servers.mariadb() as server:
        yield {"SQLite": lambda: None, "MariaDB": lambda: servers.new_database(server, "bench")}


@contextlib.contextmanager
def opened(number: int, make_url: Callable[[], sa.URL | None]) -> Iterator[Host]:
    """Give a host of so many instances."""
    with tempfile.TemporaryDirectory(prefix="cepheid-bench-") as directory:
        host = Host(Path(directory), number, make_url())
        try:
            with still_disk(directory):
                yield host
        finally:
            host.close()


@contextlib.contextmanager
def still_disk(path: str) -> Iterator[None]:
    """Let the disk be as full as it is now: what others write meanwhile would be a change."""
    ask, now = os.statvfs, os.statvfs(path)

    def ask_all_the_same(path: Any) -> os.statvfs_result:
        ask(path)
        return now

    with mock.patch.object(os, "statvfs", ask_all_the_same):
        yield


def measure(host: Host, case: Case, database: str, seconds: float) -> Cost:
    """Measure a task on a host, and leave the host as it was."""
    host.set_all(**{**host.columns(), **case.state(host)})
    case.arrange(host)
    task = host.agent.build(case.factory)
    host.agent.set(task.name, **case.options)
    first = host.agent.run(task)
    assert first.outcome == "ok", f"{first.task}: {first.outcome} {first.error} {first.counters}"
    before = host.statements()
    with counting(calls=host.hypervisor.calls) as counted:
        steady = run_bare(task)
    statements = host.statements() - before

    def floor() -> None:
        host.raw.begin()
        case.floor(host)
        host.raw.end()

    with counting(
        statements=host.raw.statements, calls=host.raw.calls, bulk=host.raw.bulk_calls
    ) as of_floor:
        floor()

    taken = in_turn(
        {
            "floor": floor,
            "bulk": host.raw.domains,
            "pass": lambda: run_bare(task),
            "run": lambda: host.agent.run(task),
        },
        seconds,
        least=3,
    )
    has_bulk = of_floor.totals["bulk"] > 0
    with_bulk = taken["floor"] if has_bulk else taken["floor"].plus(taken["bulk"])
    for table in case.tables:
        host.empty(table)
    return Cost(
        case.name,
        database,
        host.number,
        first_rows=rows_written(first),
        rows=rows_written(steady),
        statements=statements,
        calls=counted.totals["calls"],
        floor_statements=of_floor.totals["statements"],
        floor_calls=of_floor.totals["calls"],
        floor_ms=taken["floor"].median * 1e3,
        pass_ms=taken["pass"].median * 1e3,
        ratio=taken["pass"].ratio_to(taken["floor"]),
        ratio_with_bulk=taken["pass"].ratio_to(with_bulk),
        run_ms=taken["run"].median * 1e3,
    )


def bare_context(task: Task) -> RunContext:
    """Return the context of a pass that is not recorded."""
    run = Run(task.name, "", "bench", False, task.agent.clock.utcnow())
    notices = Notices(logging.getLogger("cepheid.bench"))
    # A change would need the record of its run, so this fails should a steady pass make one.
    return RunContext(run, task.agent.journal, notices, task.conf.max_changes)


def run_bare(task: Task, context: RunContext | None = None) -> Run:
    """Carry out a pass without what surrounds it: the lock, and the record of the run.

    :param context: where it is there already
    """
    context = context or bare_context(task)
    task._periodic_declared[task.name](task, context)
    return context.run


def rows_written(run: Run) -> int:
    """Return the changes that a run has made; one of many rows says how many they are."""
    done = [change for change in run.changes if change.outcome == "done"]
    return sum(change.after if isinstance(change.after, int) else 1 for change in done)


def surroundings(host: Host) -> float:
    """Return the milliseconds of a run whose task does nothing."""
    task = host.agent.build(DoNothing)
    return in_turn({"run": lambda: host.agent.run(task)}, 0.0, 30)["run"].median * 1e3


def notes(costs: Sequence[Cost], empty_run_ms: float) -> list[str]:
    """Say how it was measured, and what is beyond the aim."""
    remarks = {case.name: case.remark for case in CASES if case.remark}
    at_aim = [cost for cost in costs if cost.instances == AIMED_AT]
    aim = (
        f"The aim is a pass within {AIM:g} times its floor at {AIMED_AT:,} instances. Beyond it "
        "where each floor has libvirt's bulk call and the SELECTs: "
        + beyond({f"``{one.task}`` on {one.database}": one.ratio_with_bulk for one in at_aim})
        + ". Beyond it where, as in the columns of these tables, only the floors of tasks that ask "
        "of all domains have that call: "
        + beyond({f"``{one.task}`` on {one.database}": one.ratio for one in at_aim})
        + "."
    )
    return [
        "A pass in which nothing changes, all instances being in the state that the task is "
        "about. The floor is the raw SELECTs with the database's own module and the raw calls of "
        "libvirt-python for the same columns and rows, written by hand in "
        "``benchmarks/floors.py``; nothing is decided there. Both take turns in one process, with "
        "libvirt's test driver; times are medians. The connection to MariaDB is kept by both. "
        "SQLite's file is opened and closed by the floor once a pass, and by the agent for each "
        "transaction: whoever keeps it open does not see that a backup has been put in its place.",
        f"Each run has, besides its pass, a lock and two records in the journal, each synced to "
        f"the disk: {empty_run_ms:.1f} ms here, whatever the task and the number of instances.",
        aim,
        "Of some tasks the floor needs a word: "
        + "; ".join(f"``{name}``: {remark}" for name, remark in remarks.items())
        + ".",
    ]


def beyond(ratios: Mapping[str, float]) -> str:
    """Return a sentence that names those beyond the aim, the farthest first."""
    found = sorted(((r, name) for name, r in ratios.items() if r > AIM), reverse=True)
    return ", ".join(f"{name} ({ratio:.1f})" for ratio, name in found) or "none"


def at_size(costs: Sequence[Cost], number: int) -> Table:
    """Return all that is known of passes over so many instances."""
    headings = (
        "Task", "Database", "Rows written, first pass", "Rows written", "SQL statements (floor)",
        "libvirt calls (floor)", "Floor, ms", "Pass, ms", "Pass : floor",
        "Pass : floor and bulk call", "Run, ms",
    )  # fmt: skip
    rows = [
        (
            cost.task, cost.database, cost.first_rows, cost.rows,
            f"{cost.statements:,} ({cost.floor_statements:,})",
            f"{cost.calls:,} ({cost.floor_calls:,})",
            cost.floor_ms, cost.pass_ms, cost.ratio, cost.ratio_with_bulk, cost.run_ms,
        )
        for cost in sorted(costs, key=lambda cost: cost.task)
        if cost.instances == number
    ]  # fmt: skip
    return Table(f"A pass over {number:,} instances", headings, rows)


def over_sizes(costs: Sequence[Cost], database: str, numbers: Sequence[int]) -> Table:
    """Return how passes grow on one database."""
    headings = [
        "Task",
        *(f"{n:,}" for n in numbers),
        *(f"Statements, calls at {n:,}" for n in numbers),
    ]
    rows = []
    for case in CASES:
        of_task = {c.instances: c for c in costs if (c.task, c.database) == (case.name, database)}
        rows.append(
            [
                case.name,
                *(f"{of_task[n].pass_ms:.3g} ({of_task[n].ratio:.2f})" for n in numbers),
                *(f"{of_task[n].statements}, {of_task[n].calls}" for n in numbers),
            ]
        )
    return Table(f"Passes on {database}: milliseconds (times the floor)", headings, rows)


def draw(figure: Any, costs: Sequence[Cost], names: Sequence[str]) -> None:
    """Draw how many times its floor each pass takes, by size."""
    for place, database in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        for number, case in enumerate(CASES):
            of_task = [c for c in costs if (c.task, c.database) == (case.name, database)]
            axes.plot(
                [cost.instances for cost in of_task],
                [cost.ratio for cost in of_task],
                marker="os^"[number // 6],
                markersize=3,
                linewidth=1,
                label=case.name,
            )
        axes.axhline(AIM, color="grey", linestyle="--", linewidth=1)
        axes.set(xscale="log", yscale="log", title=database, xlabel="instances")
        axes.set_ylabel("pass : floor")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right", fontsize="x-small")
