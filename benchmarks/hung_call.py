# SPDX-License-Identifier: Apache-2.0
"""One hypervisor call hangs for ever: how late the sixteen other tasks are.

An agent process each, side by side, with a second of spacing for every task.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.agents import SPACINGS, installed, lateness
from benchmarks.measure import Timings
from benchmarks.report import Report, Table

INSTANCES = 100
SECONDS, QUICK_SECONDS = 40, 6
#: Seconds after the start that are not counted: connecting, first runs.
SETTLING = 5
#: Whose call hangs.
VICTIM = "update_available_resource"
MODES = {"hung": "benchmarks.hanging", "not hung": "cepheid"}


def report(quick: bool) -> Report:
    """Run both agents at the same time; read from their journals how late runs began."""
    spacings = dict.fromkeys(SPACINGS, 1)
    found: dict[str, dict[str, list[float]]] = {}
    with (
        installed(INSTANCES, spacings) as hung,
        installed(INSTANCES, spacings) as well,
    ):
        agents = {"hung": hung, "not hung": well}
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", MODES[name], "--config-file", one.conf, "agent"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, one in agents.items()
        }
        try:
            for one in agents.values():
                _wait_for(one)
            time.sleep(SETTLING)
            before = {name: lateness(one.path) for name, one in agents.items()}
            time.sleep(QUICK_SECONDS if quick else SECONDS)
            for name, one in agents.items():
                found[name] = {
                    task: seconds[len(before[name].get(task, ())) :]
                    for task, seconds in lateness(one.path).items()
                }
        finally:
            for process in processes.values():
                process.terminate()
            ends = [process.wait(60) for process in processes.values()]
    assert ends == [1, 0], f"the agents ended with {ends}; 1 says that a run was left behind"
    assert not found["hung"].get(VICTIM), f"{VICTIM} ran again, so nothing hung"
    rows = {name: _row(name, of_agent) for name, of_agent in found.items()}
    table = Table(
        "How late runs of the sixteen other tasks began, in milliseconds",
        ("Agent", "Runs", "p50", "p95", "max", "Latest task"),
        list(rows.values()),
    )
    notes = [
        f"Two agents side by side for {QUICK_SECONDS if quick else SECONDS} seconds, {INSTANCES} "
        "instances each, every task with a spacing of 1 second, concurrency as it is by default. "
        f"In one of them a native libvirt call of ``{VICTIM}`` never returns.",
        "Both ended at SIGTERM within their grace period. The hung one says with its exit status "
        "that it left a run behind.",
    ]
    return Report(notes, [table], found, lambda figure: _draw(figure, found))


def _wait_for(one: Any) -> None:
    """Wait until every task of an agent has run."""
    until = time.monotonic() + 120
    while True:
        try:
            if len(lateness(one.path)) == len(SPACINGS):
                return
        except Exception:  # noqa: BLE001 - the journal is not made yet
            pass
        assert time.monotonic() < until, one.read_log()
        time.sleep(0.2)


def _others(of_agent: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {task: seconds for task, seconds in of_agent.items() if task != VICTIM and seconds}


def _row(name: str, of_agent: Mapping[str, list[float]]) -> list[Any]:
    others = _others(of_agent)
    assert len(others) == len(SPACINGS) - 1, sorted(others)
    late = Timings([seconds for of_task in others.values() for seconds in of_task])
    latest = max(others, key=lambda task: max(others[task]))
    parts = [late.quantile(part) * 1e3 for part in (0.5, 0.95, 1)]
    return [name, len(late.seconds), *parts, latest]


def _draw(figure: Any, found: Mapping[str, Mapping[str, list[float]]]) -> None:
    axes = figure.add_subplot()
    for name, of_agent in found.items():
        late = sorted(1e3 * one for of_task in _others(of_agent).values() for one in of_task)
        axes.plot(late, [(n + 1) / len(late) for n in range(len(late))], label=name)
    axes.set(xlabel="milliseconds late", ylabel="part of all runs", xscale="symlog")
    axes.legend()
