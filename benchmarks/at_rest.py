# SPDX-License-Identifier: Apache-2.0
"""The agent at rest with all seventeen tasks: CPU time, memory, and the start of a command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.agents import PATIENCE_SECONDS, SPACINGS, installed, lateness, start
from benchmarks.measure import cpu_seconds, in_turn, resident_bytes
from benchmarks.report import Report, Table
from tests.functional.libvirtd import Libvirtd

NUMBERS, QUICK_NUMBERS = (0, 100, 1_000), (0, 10)
#: An hour's passes are made in a minute: all spacings are so many times as short.
HASTE = 60
HOUR = 3600
#: Seconds until the first passes are over, and seconds in which nothing is due.
SETTLING, IDLE = 6, 12
#: It has the counters of all domains in one answer.
AGENT = "benchmarks.counters"
AIM_MIB, AIM_PERCENT, AIM_MS = 100, 0.5, 400


def report(quick: bool) -> Report:
    """Measure agents, then how long a command takes to start."""
    numbers = QUICK_NUMBERS if quick else NUMBERS
    with Libvirtd() as daemon:
        rows = [at_rest(daemon, number, quick) for number in numbers]
    agents = Table(
        "An agent with all seventeen tasks, SQLite, default spacings",
        ("Instances", "Runs an hour", "CPU seconds an hour", "of them idle", "% of a core",
         "RSS, MiB"),
        rows,
    )  # fmt: skip
    starts = start_up(3 if quick else 12)
    commands = Table("Start of a command, milliseconds", ("Command", "Median", "CPU time"), starts)
    notes = [
        f"An hour's passes are made in {HOUR // HASTE} seconds, every spacing being {HASTE} times "
        "as short, and their CPU time is read from the kernel. What the process uses in "
        f"{IDLE} seconds in which nothing is due is counted for the whole hour, and not twice. The "
        "resident memory is that at the end of it. The domains are those of libvirt's test driver "
        "in a libvirtd, whose memory and CPU time are not the agent's; its answers are filled up "
        "with counters, as QEMU's driver gives them; to receive those is not in it, nor is the "
        "pass of ``run_pending_deletes`` that asks of all files, once in a real hour.",
        f"Aims: {AIM_MIB} MiB, {AIM_PERCENT} % of a core, {AIM_MS} ms for ``cepheid task list`` on "
        f"a quiet machine. {_beyond(rows, starts)}",
    ]
    figures = {
        "agents": [dict(zip(agents.headings, row, strict=True)) for row in rows],
        "starts": [dict(zip(commands.headings, row, strict=True)) for row in starts],
    }
    return Report(notes, [agents, commands], figures, lambda figure: _draw(figure, rows))


def at_rest(daemon: Libvirtd, number: int, quick: bool) -> list[Any]:
    """Return what an agent of so many instances costs, as a row of the table."""
    seconds = HOUR // HASTE // (10 if quick else 1)
    with installed(number, dict.fromkeys(SPACINGS, HOUR), daemon=daemon) as host:
        host.module = AGENT
        start(host)
        idle = _cpu_within(host, SETTLING, SETTLING if quick else IDLE) * HOUR
        host.stop_agent(PATIENCE_SECONDS)
    hasty = {name: max(1, each / HASTE) for name, each in SPACINGS.items()}
    with installed(number, hasty, daemon=daemon) as host:
        host.module = AGENT
        start(host)
        time.sleep(SETTLING)
        before = sum(map(len, lateness(host.path).values()))
        busy = _cpu_within(host, 0, seconds) * HOUR / HASTE
        runs = (sum(map(len, lateness(host.path).values())) - before) * HOUR / HASTE / seconds
        resident = resident_bytes(host.agent.pid) / 2**20
        host.stop_agent(PATIENCE_SECONDS)
    used = busy + idle * (1 - 1 / HASTE)
    return [number, round(runs), used, idle, 100 * used / HOUR, resident]


def start_up(rounds: int) -> list[list[Any]]:
    """Return how long commands take, in turn, as rows of the table."""
    with installed(10, SPACINGS) as host:
        cepheid = [sys.executable, "-m", "cepheid", "--config-file", str(host.conf)]
        commands = {
            "cepheid task list": [*cepheid, "task", "list"],
            "cepheid --version": [*cepheid, "--version"],
            "python -c 'import cliff.app'": [sys.executable, "-c", "import cliff.app"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        # An installed package has its bytecode; of a working copy it may be that none is kept.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{host.path}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        calls = {name: partial(_run, command, environment) for name, command in commands.items()}
        taken = in_turn(calls, 0.0, least=rounds)
        return [
            [name, taken[name].median * 1e3, _cpu_of(command, environment) * 1e3]
            for name, command in commands.items()
        ]


def _cpu_within(host: Any, settling: float, seconds: float) -> float:
    """Return the part of a core that an agent uses, once it has settled."""
    time.sleep(settling)
    before, begins = cpu_seconds(host.agent.pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(host.agent.pid) - before) / (time.monotonic() - begins)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment
    )


def _cpu_of(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the CPU time of a command: what a busy machine leaves as it is."""
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    return float(done.stdout)


def _beyond(rows: Sequence[Sequence[Any]], starts: Sequence[Sequence[Any]]) -> str:
    found = []
    for number, _, _, _, percent, mib in rows:
        if percent > AIM_PERCENT:
            found.append(f"{percent:.2f} % of a core at {number:,} instances")
        if mib > AIM_MIB:
            found.append(f"{mib:.0f} MiB at {number:,} instances")
    found += [f"{name}: {ms:.0f} ms" for name, ms, _ in starts[:1] if ms > AIM_MS]
    return f"Beyond them: {'; '.join(found)}." if found else "All were reached."


def _draw(figure: Any, rows: Sequence[Sequence[Any]]) -> None:
    names = [f"{row[0]:,}" for row in rows]
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    left.bar(names, [row[4] for row in rows])
    left.axhline(AIM_PERCENT, color="grey", linestyle="--", linewidth=1)
    left.set(xlabel="instances", ylabel="% of a core")
    right.bar(names, [row[5] for row in rows])
    right.axhline(AIM_MIB, color="grey", linestyle="--", linewidth=1)
    right.set(xlabel="instances", ylabel="RSS, MiB")
