# SPDX-License-Identifier: Apache-2.0
"""The part of an agent that is asked over HTTP how it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cepheid import concurrency, errors, libraries, overview
from cepheid.agent import Agent
from cepheid.call_record import CallRecord
from cepheid.metric import Metric
from cepheid.notices import Notices
from cepheid.status import agent_metrics, endpoints, health
from cepheid.status.acting import TaskRuns
from cepheid.status.messages import Request, Response
from cepheid.status.page import PAGE, Page
from cepheid.status.run_metrics import RunMetrics
from cepheid.status.server import HttpServer
from cepheid.status.token import FILE_NAME as TOKEN_FILE_NAME
from cepheid.status.token import TokenFile
from cepheid.status.watch import DriverWatch, JournalWatch
from cepheid.timers import TimerGroup

LOG = logging.getLogger(__name__)

#: Seconds between two beats of the agent's threads.
BEAT_SECONDS = 1.0

#: The most digits of a run's id, which is a 64-bit number.
MAX_DIGITS = 19

#: How often a snapshot is tried that is spoiled by another thread's writing to what it reads.
LOOKS = 5


class Monitor:
    """Answers HTTP requests on native threads, even while the agent's own threads hang.

    What native threads cannot find out, timers on the agent's threads find out beforehand:
    :meth:`beat`, and the watches of the journal and the drivers.

    :param timers: the agent's own
    :param look: gives :func:`cepheid.snapshot.take` from memory alone
    :raises ConfigError: it cannot work as it is configured
    :raises PluginError: cepheid[status] is not installed
    """

    name = "status"

    def __init__(
        self, agent: Agent, timers: TimerGroup, look: Callable[[], dict[str, Any]]
    ) -> None:
        self._agent = agent
        self._timers = timers
        self._look_once = look
        self._monotonic = concurrency.original("time").monotonic
        self._beat = self._monotonic()
        self._is_stopping = False
        self._journal = JournalWatch(agent)
        self._watches: dict[str, DriverWatch] = {}
        self._runs = RunMetrics(agent)
        self._metrics = libraries.load_part(
            "cepheid.status.metrics", "HTTP requests cannot be answered", "remove [status] enabled"
        ).Exposition(self._sources)
        self._notices = Notices(LOG)
        self._endpoints = self._make_endpoints()
        options = agent.conf.status
        self._server = HttpServer(str(options.listen_address), options.port, self._endpoints.answer)

    def _make_endpoints(self) -> endpoints.Endpoints:
        options = self._agent.conf.status
        if not (endpoints.is_loopback(str(options.listen_address)) or options.allow_remote):
            raise errors.ConfigError(
                f"[status] listen_address = {options.listen_address} can be reached by other "
                "machines. Set [status] allow_remote = true if that is wanted, or 127.0.0.1."
            )
        reads: dict[str, endpoints.Answer] = {
            "/": Page(PAGE.read_bytes()).answer,
            "/overview.json": self._overview,
            "/healthz": endpoints.healthz,
            "/readyz": lambda request: endpoints.readyz(request, self.checks(self.look())),
            "/metrics": self._metrics.answer,
        }
        return endpoints.Endpoints(
            self._agent.conf,
            TokenFile(options.token_file or self._agent.state_path / TOKEN_FILE_NAME),
            reads,
            TaskRuns(self._agent.state_path, self.look).run,
        )

    def start(self) -> None:
        """Begin to answer, and to count runs."""
        self._runs.remember(self._agent.journal.newest_runs(ended=True))
        self._agent.runner.observers = [*self._agent.runner.observers, self._runs]
        self._timers.add_dynamic_timer(self._journal.look)
        self._timers.add_timer(BEAT_SECONDS, self.beat)
        self._server.start()
        address = str(self._agent.conf.status.listen_address)
        host = f"[{address}]" if ":" in address else address
        LOG.info("Listening on http://%s:%d/", host, self._server.port)

    def stop(self) -> None:
        """Answer from now on that the agent is stopping."""
        self._is_stopping = True

    def close(self) -> None:
        """Answer no more."""
        self._server.close()

    def beat(self) -> None:
        """Note that the agent's threads turn, start watches of new drivers, and log failures.

        A timer calls it each :data:`BEAT_SECONDS`, on a thread of the agent.
        """
        self._beat = self._monotonic()
        self._runs.expect(list(self._agent.tasks))
        for kind, driver in self._agent.drivers.built.items():
            if kind not in self._watches and _is_recorded(driver) and hasattr(driver, "probe"):
                watch = self._watches[kind] = DriverWatch(self._agent, kind, driver)
                self._timers.add_dynamic_timer(watch.look)
        failure, self._endpoints.failure = self._endpoints.failure, None
        if failure is not None:
            LOG.error("A request was not answered", exc_info=failure)
        self._notices.begin()
        for source, reason in self._metrics.failures.items():
            self._notices.say(source, f"The metrics of {source} are missing: {reason}")
        self._notices.end(complete=True)

    # What follows runs on native threads.

    def look(self) -> dict[str, Any]:
        """Return a snapshot of the agent, which goes on meanwhile."""
        for _ in range(LOOKS):
            try:
                return self._look_once()
            except RuntimeError:  # a dictionary changed its size while it was read
                continue
        return self._look_once()

    def checks(self, state: dict[str, Any]) -> list[health.Check]:
        """Return how the agent is.

        :param state: a snapshot of it
        """
        return health.checks(self._facts(state))

    def not_ready(self, state: dict[str, Any]) -> list[str]:
        """Return, a sentence each, what keeps the agent from its work and no overview shows."""
        return list(health.sentences(health.checks(health.untold(self._facts(state)))))

    def _facts(self, state: dict[str, Any]) -> health.Facts:
        return health.Facts(
            now=self._monotonic(),
            beat=self._beat,
            is_stopping=self._is_stopping,
            late_seconds={timer.name: timer.lateness() for timer in list(self._timers.timers)},
            runs=state["runs"],
            tasks=state["tasks"],
            drivers={kind: record.standing for kind, record in self._records().items()},
            hanging=self._agent.native.abandoned,
            max_hanging=self._agent.native.max_abandoned,
            journal=self._journal.facts,
        )

    def _records(self) -> dict[str, CallRecord]:
        built = self._agent.drivers.built
        return {kind: driver.record for kind, driver in built.items() if _is_recorded(driver)}

    def _overview(self, request: Request) -> Response:
        state = self.look()
        document = overview.take(state, self._agent.journal.path, self.not_ready(state))
        after = request.query.get("after", "")
        if after.isascii() and after.isdigit() and len(after) <= MAX_DIGITS:
            document = overview.newer(document, int(after))
        return endpoints.tagged(request, document, without=["at"])

    def _sources(self) -> Iterator[tuple[str, Callable[[], Iterable[Metric]]]]:
        """Give all who tell metrics: the agent, its tasks, its drivers and its observers."""
        yield "the agent", self._own_metrics
        named: dict[str, Any] = {
            f"the task {name}": task for name, task in list(self._agent.tasks.items())
        }
        for kind, driver in self._agent.drivers.built.items():
            named[f"the {kind} driver"] = driver
        for observer in self._agent.runner.observers:
            named[f"the observer {type(observer).__name__}"] = observer
        for name, teller in named.items():
            if hasattr(teller, "metrics"):
                yield name, teller.metrics

    def _own_metrics(self) -> Iterator[Metric]:
        state = self.look()
        yield from agent_metrics.of_state(state)
        yield from agent_metrics.of_checks(self.checks(state))
        yield from agent_metrics.of_drivers(self._records())
        yield from agent_metrics.of_process(
            self._monotonic() - self._beat,
            self._agent.native.abandoned_total,
            self._journal.room,
        )


def _is_recorded(driver: Any) -> bool:
    return isinstance(getattr(driver, "record", None), CallRecord)
