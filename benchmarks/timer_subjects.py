# SPDX-License-Identifier: Apache-2.0
"""Run by benchmarks.timers, a process for each measurement: timers of one kind, all of one second.

python -m benchmarks.timer_subjects SUBJECT TIMERS SECONDS

It prints what it measured as JSON. The timers are added evenly over a second, as a fleet's or an
agent's are spread out, and each is due a second after it was added, and every second from then on.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Timings

#: Seconds from one call of a timer to its next.
INTERVAL_SECONDS = 1.0

#: Seconds after the last timer was added that are not measured.
SETTLING_SECONDS = 1.5

#: Directories to remove at the end.
MADE: list[Path] = []

Add = Callable[[Callable[[], None]], None]


def cepheid() -> Add:
    """Cepheid's timers with a plain callable."""
    from cepheid.timers import TimerGroup

    timers = TimerGroup()
    return lambda body: _ignore(timers.add_timer(INTERVAL_SECONDS, body, INTERVAL_SECONDS))


def oslo_service() -> Add:
    """The timers of oslo.service's thread group, with the backend that fits this process."""
    from oslo_service import backend

    from cepheid import concurrency

    kind = backend.BackendType.EVENTLET if concurrency.is_green() else backend.BackendType.THREADING
    backend.init_backend(kind)
    from oslo_service import threadgroup

    group = threadgroup.ThreadGroup()
    return lambda body: _ignore(
        group.add_timer_args(INTERVAL_SECONDS, body, initial_delay=INTERVAL_SECONDS)
    )


def futurist_inline() -> Add:
    """futurist's periodics as they come: one thread that calls them all, one after another."""
    return _futurist(None)


def futurist_pool() -> Add:
    """futurist's periodics with a pool, so that one that hangs does not stop all the others."""
    import futurist

    return _futurist(lambda: futurist.ThreadPoolExecutor(max_workers=20))


def _futurist(executor_factory: Any) -> Add:
    from futurist import periodics

    @periodics.periodic(3600.0)
    def wait_for_the_others() -> None:
        """Nothing: a worker without any callable does not start."""

    worker = periodics.PeriodicWorker(
        [(wait_for_the_others, None, None)], executor_factory=executor_factory
    )
    threading.Thread(target=worker.start, daemon=True).start()

    def add(body: Callable[[], None]) -> None:
        @periodics.periodic(INTERVAL_SECONDS)
        def call() -> None:
            body()

        worker.add(call)

    return add


def apscheduler() -> Add:
    """APScheduler as it comes: a thread that keeps the time and a pool that calls."""
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start()
    return lambda body: _ignore(scheduler.add_job(body, "interval", seconds=INTERVAL_SECONDS))


def cepheid_task() -> Add:
    """Cepheid's tasks: each run takes a lock and is recorded in the journal."""
    import tempfile

    import cepheid
    from cepheid.agent import Agent
    from cepheid.config import load
    from cepheid.periodic_task import periodic_task
    from cepheid.timers import TimerGroup

    directory = Path(tempfile.mkdtemp(prefix="cepheid-bench-"))
    MADE.append(directory)
    (directory / "cepheid.conf").write_text(
        f"[DEFAULT]\nstate_path = {directory}\nhost = host1\nobservers =\n"
    )
    agent = Agent(load([str(directory / "cepheid.conf")]))
    timers = TimerGroup()

    def add(body: Callable[[], None]) -> None:
        def call(self: Any, context: Any) -> None:
            body()

        call.__name__ = f"task{len(timers.timers)}"
        decorated = periodic_task(spacing=1)(call)
        members = {call.__name__: decorated, "__doc__": "Note the time."}
        factory = type("Noting", (cepheid.Task,), members)
        agent.conf.register_opts(factory.all_options(), group=call.__name__)
        task = factory(agent)
        timers.add_dynamic_timer(task.periodic_tasks, initial_delay=INTERVAL_SECONDS)

    return add


def _ignore(_made: object) -> None:
    """Drop what a peer answers."""


#: What can be measured: the name, whether threads are green, what makes it.
SUBJECTS: dict[str, tuple[bool, Callable[[], Add]]] = {
    "cepheid-threading": (False, cepheid),
    "cepheid-eventlet": (True, cepheid),
    "oslo.service-threading": (False, oslo_service),
    "oslo.service-eventlet": (True, oslo_service),
    "futurist": (False, futurist_inline),
    "futurist-pool": (False, futurist_pool),
    "apscheduler": (False, apscheduler),
    "cepheid-task": (False, cepheid_task),
}

#: Those of ours that are compared with the peers.
OURS = ("cepheid-threading", "cepheid-eventlet")


def is_green(name: str) -> bool:
    """Tell whether a subject's threads are green."""
    return SUBJECTS[name][0]


def measure(add: Add, timers: int, seconds: float) -> dict[str, Any]:
    """Add the timers, let them settle, and tell how late they are."""
    called: list[list[float]] = [[] for _ in range(timers)]
    added = []
    begins = time.monotonic()
    for number, calls in enumerate(called):
        ahead = begins + number / timers - time.monotonic()
        if ahead > 0.001:
            time.sleep(ahead)
        added.append(time.monotonic())
        add(_body(calls))
    adding_seconds = time.monotonic() - begins
    time.sleep(SETTLING_SECONDS)
    cpu, measured_from = time.process_time(), time.monotonic()
    time.sleep(seconds)
    cpu, until = time.process_time() - cpu, time.monotonic()
    lateness, made, due = [], 0, 0
    for begin, calls in zip(added, called, strict=True):
        for number, at in enumerate(list(calls), 1):
            if measured_from <= at < until:
                made += 1
                lateness.append(max(0.0, at - begin - number * INTERVAL_SECONDS))
        due += _due(until - begin) - _due(measured_from - begin)
    late = Timings(lateness or [float("inf")])
    return {
        "timers": timers,
        "adding_seconds": adding_seconds,
        "calls_made": made,
        "calls_due": due,
        "lateness_p50_ms": late.quantile(0.5) * 1000,
        "lateness_p99_ms": late.quantile(0.99) * 1000,
        "lateness_max_ms": late.quantile(1) * 1000,
        "cpu_us_per_call": cpu / max(1, made) * 1e6,
        "cpu_ratio": cpu / (until - measured_from),
    }


def _body(calls: list[float]) -> Callable[[], None]:
    clock = time.monotonic
    return lambda: calls.append(clock())


def _due(since_added: float) -> int:
    return max(0, int(since_added / INTERVAL_SECONDS))


def main() -> None:
    name, timers, seconds = sys.argv[1:]
    logging.basicConfig(level=logging.CRITICAL)
    print(json.dumps(measure(SUBJECTS[name][1](), int(timers), float(seconds))), flush=True)
    # The timers go on, and some peers' threads would keep the process.
    for directory in MADE:
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    if SUBJECTS[sys.argv[1]][0]:
        from cepheid import concurrency

        concurrency.patch()
        # What was imported by now holds the threads of before.
        import importlib

        threading, time = importlib.import_module("threading"), importlib.import_module("time")
    main()
