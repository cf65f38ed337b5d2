# SPDX-License-Identifier: Apache-2.0
"""Two hundred agents on one database: started in one second, and after ten minutes without it."""

from __future__ import annotations

import bisect
import contextlib
import heapq
import itertools
import logging
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from benchmarks.floors import CASES
from benchmarks.host import Host, volume_of
from benchmarks.measure import Timings
from benchmarks.passes import run_bare
from benchmarks.report import Report, Table
from cepheid import config, periodic_task
from cepheid.task import Task
from cepheid.testing.clock import FakeClock
from cepheid.timers import Timer
from cepheid_plugins.database import models
from tests.functional import servers
from tests.worlds import uuid_of

AGENTS, INSTANCES = 200, 20
#: Seconds of the fleet's time: until the outage, of it, and after it.
BEFORE, OUTAGE, AFTER = 200, 600, 240
#: Seconds at either end of the outage that are played. In between every run would find no database,
#: and nobody remembers that it did.
PLAYED = 60
#: How much faster than in life all passes, so the server has as many times the load.
FACTOR = 6
#: Threads that send the statements of all agents.
THREADS = 24
#: Tasks that are about what is in these tables have rows there that no other agent has.
COPIED = (
    models.instances, models.instance_extra, models.instance_info_caches,
    models.block_device_mapping,
)  # fmt: skip
#: Seconds of the fleet's time over which statements are counted together.
WINDOW = 10


@dataclass(frozen=True)
class Statement:
    """What an agent sent in a pass of a task: SQL and its parameters, of one or many rows."""

    text: str
    parameters: Any
    is_many: bool


@dataclass
class Sent:
    """A run of a task as its client saw it, in seconds of the fleet's time since the start."""

    due: float
    begun: float
    statements: int
    seconds: list[float]
    failed: bool


def report(quick: bool) -> Report:
    """Replay the fleet on both servers."""
    logging.getLogger("cepheid").setLevel(logging.CRITICAL)
    agents, times = (10, (40, 30, 70)) if quick else (AGENTS, (BEFORE, OUTAGE, AFTER))
    tasks = {case.name: case.factory for case in CASES}
    schedule = plan(list(tasks.values()), agents, sum(times))
    found = {}
    for name, options in SERVERS.items():
        with getattr(servers, name)(options=options) as server:
            found[name] = replay(server, schedule, agents, times)
    figures = {name: summary(sent, times) for name, sent in found.items()}
    return Report(
        _notes(figures, agents, times),
        [_table(figures, times)],
        figures,
        lambda figure: _draw(figure, figures, times),
    )


#: An agent keeps a connection; this many are more than the servers take by default. Without a name
#: to look up, MariaDB does not wait for a resolver at each connection.
SERVERS = {
    "mariadb": [f"--max-connections={AGENTS * 2}", "--skip-name-resolve"],
    "postgresql": ["-c", f"max_connections={AGENTS * 2}"],
}


# When the agents run what.


def plan(tasks: Sequence[type[Task]], agents: int, seconds: float) -> list[tuple[float, int, str]]:
    """Return when which agent runs which task, in seconds since all were started at once.

    The timers, their random delays and the boundaries of spacings are Cepheid's own, as a service
    sets them up whose journal is empty; the clock is played.
    """
    conf = config.load([])
    runs: list[tuple[float, int, str]] = []
    for agent in range(agents):
        clock, chance = FakeClock(), random.Random(agent)
        start = clock.monotonic()
        timers: list[tuple[float, int, Timer]] = []
        number = itertools.count()
        for factory in tasks:
            delay = chance.uniform(0, conf.periodic_fuzzy_delay)
            planned = _Planned(factory, clock, chance, delay)
            timer = Timer(planned.turn, initial_delay=delay, clock=clock)
            timers.append((timer.due, next(number), timer))
            planned.note = lambda name, agent=agent, clock=clock, start=start: runs.append(  # type: ignore[misc]
                (clock.monotonic() - start, agent, name)
            )
        heapq.heapify(timers)
        while timers[0][0] <= start + seconds:
            due, _, timer = heapq.heappop(timers)
            clock.jump(max(0.0, due - clock.monotonic()))
            timer.turn()
            heapq.heappush(timers, (timer.due, next(number), timer))
    return sorted(runs)


class _Planned(periodic_task.PeriodicTasks):
    """The schedule of a task, which only notes when it would run."""

    def __init__(
        self, factory: type[Task], clock: FakeClock, chance: random.Random, delay: float
    ) -> None:
        self._name, self._clock, self._chance = factory.task_name(), clock, chance
        options = {option.name: option.default for option in factory.all_options()}
        self._spacing = periodic_task.effective_spacing(options["spacing"] or 0)
        self._immediate, self._delay = options["run_immediately"], delay
        self.note: Any = None
        conf = cfg.ConfigOpts()
        conf([])
        super().__init__(conf)

        @periodic_task.periodic_task(spacing=self._spacing or 60, name=self._name)
        def run(task: Any, context: Any) -> None:
            task.note(task._name)

        if self._spacing is not None:
            self.add_periodic_task(run)

    def turn(self) -> float:
        """Run what is due; return the seconds until there is something again."""
        return self.run_periodic_tasks(None)

    def _now(self) -> float:
        return self._clock.monotonic()

    def _uniform(self) -> float:
        return self._chance.random()

    def _let_others_run(self) -> None:
        """Nobody else runs here."""

    def _start_counting(self, name: str, task: Any) -> None:
        begins = None if self._immediate else self._now() + self._delay
        self._periodic_last_run[name] = begins


# What they send.


def record(host: Host) -> dict[str, list[Statement]]:
    """Return the statements of a steady pass of each task, as they go to the database's module."""
    sent: list[Statement] = []

    @sa.event.listens_for(host.database._engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, text: str, parameters: Any, _x: Any, is_many: bool) -> None:
        sent.append(Statement(text, parameters, is_many))

    found = {}
    for case in CASES:
        host.set_all(**{**host.columns(), **case.state(host)})
        case.arrange(host)
        task = host.agent.build(case.factory)
        host.agent.set(task.name, **case.options)
        host.agent.run(task)
        sent.clear()
        run_bare(task)
        found[case.name] = list(sent)
        for table in case.tables:
            host.empty(table)
    host.set_all(**host.columns())
    return found


def multiply(host: Host, agents: int) -> None:
    """Give every agent as many rows as the first has, of its own."""
    for table in COPIED:
        rows = [dict(row._mapping) for row in host.rows(table)]
        for row in rows:
            del row["id"]
        copies = [_mapped(row, of(agent)) for agent in range(1, agents) for row in rows]
        with host.engine.begin() as connection:
            for begin in range(0, len(copies), 2000):
                connection.execute(sa.insert(table), copies[begin : begin + 2000])


def of(agent: int) -> dict[Any, Any]:
    """Return what stands for the first agent's host, instances and volumes with another."""
    numbers = [(n, agent * INSTANCES + n) for n in range(INSTANCES)]
    return {
        "host1": f"host{agent + 1}",
        **{uuid_of(mine): uuid_of(its) for mine, its in numbers},
        **{volume_of(mine): volume_of(its) for mine, its in numbers},
    }


def _mapped(values: Any, names: dict[Any, Any]) -> Any:
    if isinstance(values, dict):
        return {name: _mapped(value, names) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_mapped(value, names) for value in values)
    return names.get(values, values) if isinstance(values, str) else values


class Client:
    """An agent as the database sees it: a connection that it keeps, and makes anew if it breaks."""

    def __init__(self, number: int, url: sa.URL, statements: dict[str, list[Statement]]) -> None:
        self._url = url
        names = of(number)
        self._statements = {
            task: [Statement(s.text, _mapped(s.parameters, names), s.is_many) for s in sent]
            for task, sent in statements.items()
        }
        self._connection: Any = None
        self._lock = threading.Lock()

    def run(self, task: str, clock: _Clock, due: float) -> Sent:
        """Send what a pass sends; one that fails is over, as the agent's is."""
        with self._lock:
            sent = Sent(due, clock.now(), 0, [], False)
            try:
                kept = self._connection is not None
                for one in self._statements[task]:
                    begins = time.perf_counter()
                    try:
                        self._send(one)
                    except Exception:
                        # A transaction that finds the connection lost is carried out on another.
                        if sent.statements or not kept:
                            raise
                        self.close()
                        self._send(one)
                    sent.seconds.append(time.perf_counter() - begins)
                    sent.statements += 1
            except Exception:  # noqa: BLE001 - each module has its own errors
                sent.failed = True
                self.close()
            return sent

    def _send(self, one: Statement) -> None:
        if self._connection is None:
            self._connection = _connect(self._url)
        with self._connection.cursor() as cursor:
            if one.is_many:
                cursor.executemany(one.text, one.parameters)
            else:
                cursor.execute(one.text, one.parameters)
            if cursor.description:
                cursor.fetchall()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _connect(url: sa.URL) -> Any:
    options = {"host": url.host, "port": url.port, "user": url.username}
    if url.get_backend_name() == "mysql":
        import pymysql

        # To read the system's certificates, for which there is no use here, takes 40 ms of the one
        # process that is all the clients.
        return pymysql.connect(
            **options, password=url.password, database=url.database, charset="utf8",
            autocommit=True, ssl_disabled=True,
        )  # fmt: skip
    import psycopg2

    connection = psycopg2.connect(**options, password=url.password, dbname=url.database)
    connection.autocommit = True
    return connection


class _Clock:
    """The fleet's time, in which everything is :data:`FACTOR` times as fast."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def now(self) -> float:
        return (time.perf_counter() - self._start) * FACTOR

    def wait_until(self, at: float) -> None:
        time.sleep(max(0.0, (at - self.now()) / FACTOR))


def replay(
    server: sa.URL,
    schedule: Sequence[tuple[float, int, str]],
    agents: int,
    times: Sequence[float],
) -> list[Sent]:
    """Let the fleet send its statements; take the database away meanwhile and give it back."""
    url = servers.new_database(server, "fleet")
    with tempfile.TemporaryDirectory(prefix="cepheid-bench-") as directory:
        host = Host(Path(directory), INSTANCES, url)
        try:
            statements = record(host)
            multiply(host, agents)
        finally:
            host.close()
            host.engine.dispose()
    account = servers.new_account(url, "fleet_agent", GRANTS[url.get_backend_name()])
    clients = [Client(number, account, statements) for number in range(agents)]
    before, outage, _ = times
    left_out = range(int(before + PLAYED), int(before + outage - PLAYED))
    skipped = len(left_out)
    sent: list[Sent] = []
    waiting = iter(
        (due - skipped if skipped and due >= left_out.stop else due, agent, task)
        for due, agent, task in schedule
        if not skipped or not left_out.start <= due < left_out.stop
    )
    taking = threading.Lock()
    clock = _Clock()

    def work() -> None:
        while True:
            with taking:
                due, agent, task = next(waiting, (None, 0, ""))
            if due is None:
                return
            clock.wait_until(due)
            one = clients[agent].run(task, clock, due)
            if skipped and one.due >= left_out.start:
                one.due, one.begun = one.due + skipped, one.begun + skipped
            sent.append(one)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    clock.wait_until(before)
    with refused(server, url):
        clock.wait_until(before + outage - skipped)
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    return sent


GRANTS = {
    "mysql": ["GRANT ALL ON fleet.* TO fleet_agent@'%'"],
    "postgresql": ["GRANT ALL ON ALL TABLES IN SCHEMA public TO fleet_agent",
                   "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO fleet_agent"],
}  # fmt: skip


@contextlib.contextmanager
def refused(server: sa.URL, url: sa.URL) -> Iterator[None]:
    """End the agents' sessions, and let them begin none until the block ends."""
    statements = {
        "mysql": (
            ["ALTER USER fleet_agent@'%' ACCOUNT LOCK", "KILL USER fleet_agent"],
            ["ALTER USER fleet_agent@'%' ACCOUNT UNLOCK"],
        ),
        "postgresql": (
            ["ALTER ROLE fleet_agent NOLOGIN",
             "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
             "WHERE usename = 'fleet_agent'"],
            ["ALTER ROLE fleet_agent LOGIN"],
        ),
    }[url.get_backend_name()]  # fmt: skip
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    for place, texts in enumerate(statements):
        with engine.connect() as connection:
            for text in texts:
                connection.execute(sa.text(text))
        if place == 0:
            yield


# What came of it.


def summary(sent: Sequence[Sent], times: Sequence[float]) -> dict[str, Any]:
    """Return the load over time, and its figures before the outage and after it."""
    before, outage, after = times
    windows: Counter[int] = Counter()
    for one in sent:
        windows[int(one.begun // WINDOW)] += one.statements
    ends = before + outage
    parts = {
        "before": (min(before / 2, 120), before),
        "start": (0, min(before / 2, 120)),
        "after": (ends, ends + after),
        "first_minute_after": (ends, ends + min(60, after)),
    }
    begun = sorted(sent, key=lambda one: one.begun)
    begins = [one.begun for one in begun]
    figures: dict[str, Any] = {"per_second": [], "window_seconds": WINDOW}
    for window in range(int(sum(times) // WINDOW)):
        figures["per_second"].append(windows[window] / WINDOW)
    for name, (begin, end) in parts.items():
        within = begun[bisect.bisect_left(begins, begin) : bisect.bisect_left(begins, end)]
        per_window = [windows[n] / WINDOW for n in range(int(begin // WINDOW), int(end // WINDOW))]
        seconds = Timings([s for one in within for s in one.seconds] or [0.0])
        mean = statistics.mean(per_window) if per_window else 0.0
        figures[name] = {
            "statements": sum(one.statements for one in within),
            "mean_per_second": mean,
            "peak_per_second": max(per_window, default=0.0),
            "peak_to_mean": max(per_window, default=0.0) / mean if mean else None,
            "p50_ms": seconds.quantile(0.5) * 1e3,
            "p99_ms": seconds.quantile(0.99) * 1e3,
            "failed_runs": sum(one.failed for one in within),
            "late_p99_seconds": Timings([one.begun - one.due for one in within] or [0.0]).quantile(
                0.99
            ),
        }
    in_outage = [one for one in sent if before <= one.due < ends]
    figures["refused_runs"] = sum(one.failed for one in in_outage)
    return figures


NAMES = {
    "start": "First two minutes",
    "before": "From then on",
    "first_minute_after": "First minute after the outage",
    "after": "All that is after it",
}


def _table(figures: dict[str, Any], times: Sequence[float]) -> Table:
    headings = (
        "Server", "Time", "Statements", "A second, mean", "Peak", "Peak : mean",
        "Statement p50, ms", "p99, ms", "Failed runs", "Replay behind p99, s",
    )  # fmt: skip
    rows: list[Sequence[Any]] = []
    for server, found in figures.items():
        for name, title in NAMES.items():
            one = found[name]
            rows.append(
                (
                    server, title, one["statements"], one["mean_per_second"],
                    one["peak_per_second"], one["peak_to_mean"], one["p50_ms"], one["p99_ms"],
                    one["failed_runs"], one["late_p99_seconds"],
                )
            )  # fmt: skip
    return Table(f"The fleet's load (in its time; peaks are over {WINDOW} s)", headings, rows)


def _notes(figures: dict[str, Any], agents: int, times: Sequence[float]) -> list[str]:
    before, outage, after = times
    rises = [
        f"{server} {found['first_minute_after']['peak_per_second'] / steady:.2f}"
        for server, found in figures.items()
        if (steady := found["before"]["mean_per_second"])
    ]
    return [
        f"{agents} simulated agents with {INSTANCES} instances each, started in the same second "
        f"with empty journals. When they run what is computed by Cepheid's own timers, random "
        "delays and spacings, on a clock that is played; what they send are the statements that "
        "real passes of the seventeen tasks sent, in a host and uuids of each agent's own. So the "
        "statements, rows and server are real; the agents' own work is left out.",
        f"All passes {FACTOR} times as fast as in life, so that the server has {FACTOR} times the "
        f"load: {before:g} s, then {outage:g} s in which sessions are ended and new ones refused, "
        f"then {after:g} s. Of the outage the first and the last {PLAYED} s are played. Rates are "
        f"per second of the fleet's time. {THREADS} threads of one process send everything; a "
        "latency is of one statement at its client, and includes waiting for that process's "
        "interpreter. Where the replay is behind by seconds, what it caught up with is in its "
        "peak.",
        "A run that finds no database fails at once and is tried again one spacing later, at the "
        "time it has anyway: nobody retries in between, so nothing gathers. Peak of the first "
        f"minute after the outage to the mean before it: {', '.join(rises)}. "
        + "Runs refused in the outage: "
        + ", ".join(f"{server} {found['refused_runs']:,}" for server, found in figures.items())
        + ".",
    ]


def _draw(figure: Any, figures: dict[str, Any], times: Sequence[float]) -> None:
    axes = figure.add_subplot()
    for server, found in figures.items():
        at = [n * WINDOW for n in range(len(found["per_second"]))]
        axes.step(at, found["per_second"], where="post", label=server, linewidth=1)
    axes.axvspan(times[0], times[0] + times[1], color="lightgrey", label="no database")
    axes.set(xlabel="seconds since all agents were started", ylabel="statements a second")
    axes.legend()
