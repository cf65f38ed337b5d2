# SPDX-License-Identifier: Apache-2.0
"""The part of an agent that is asked over HTTP how it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from cepheid import concurrency, errors, overview, overview_entries
from cepheid.agent import Agent
from cepheid.journal.view import view
from cepheid.status import endpoints, health
from cepheid.status.acting import TaskRuns
from cepheid.status.page import PAGE, Page
from cepheid.status.server import HttpServer, Request, Response
from cepheid.status.token import FILE_NAME as TOKEN_FILE_NAME
from cepheid.status.token import TokenFile
from cepheid.timers import TimerGroup

LOG = logging.getLogger(__name__)

#: Seconds between two beats of the agent's threads.
BEAT_SECONDS = 1.0

#: What an overview finds out for itself.
TOLD_CHECKS = ("runs", "tasks")

#: How often a look from outside is tried again that met with others writing.
LOOKS = 5


class Monitor:
    """Answers on native threads; what it must know of the agent's threads, a timer tells it.

    :param timers: the agent's own
    :param look: gives :func:`cepheid.snapshot.take` from memory alone
    :raises ConfigError: it cannot work as it is configured
    """

    name = "status"

    def __init__(
        self, agent: Agent, timers: TimerGroup, look: Callable[[], dict[str, Any]]
    ) -> None:
        options = agent.conf.status
        self._agent = agent
        self._timers = timers
        self._look_once = look
        self._monotonic = concurrency.original("time").monotonic
        self._beat = self._monotonic()
        self._is_stopping = False
        if not (endpoints.is_loopback(str(options.listen_address)) or options.allow_remote):
            raise errors.ConfigError(
                f"[status] listen_address = {options.listen_address} can be reached by other "
                "machines. Set [status] allow_remote = true if that is wanted, or 127.0.0.1."
            )
        path = options.token_file or agent.state_path / TOKEN_FILE_NAME
        reads: dict[str, endpoints.Answer] = {
            "/overview.json": self._overview,
            "/healthz": endpoints.healthz,
            "/readyz": self._readyz,
        }
        if PAGE.is_file():
            reads["/"] = Page(PAGE.read_bytes()).answer
        self._endpoints = endpoints.Endpoints(
            agent.conf,
            TokenFile(path),
            reads,
            TaskRuns(agent.state_path, self.look).run,
        )
        self._server = HttpServer(str(options.listen_address), options.port, self._endpoints.answer)
        LOG.info("Listening on http://%s:%d/", options.listen_address, self._server.port)

    def start(self) -> None:
        """Begin to answer."""
        self._timers.add_timer(BEAT_SECONDS, self.beat)
        self._server.start()

    def stop(self) -> None:
        """Answer from now on that the agent is stopping."""
        self._is_stopping = True

    def close(self) -> None:
        """Answer no more."""
        self._server.close()

    def beat(self) -> None:
        """Show that the agent's threads turn, and log what a native thread could not."""
        self._beat = self._monotonic()
        failure, self._endpoints.failure = self._endpoints.failure, None
        if failure is not None:
            LOG.error("A request was not answered", exc_info=failure)

    def look(self) -> dict[str, Any]:
        """Return a snapshot of the agent, which goes on meanwhile."""
        for _ in range(LOOKS):
            try:
                return self._look_once()
            except RuntimeError:  # a dictionary changed its size while it was read
                continue
        return self._look_once()

    def checks(self, state: dict[str, Any] | None = None) -> list[health.Check]:
        """Return how the agent is."""
        state = state or self.look()
        late = {timer.name: timer.lateness() for timer in list(self._timers.timers)}
        return health.checks(
            health.Facts(
                now=self._monotonic(),
                beat=self._beat,
                is_stopping=self._is_stopping,
                late_seconds=late,
                runs=state["runs"],
                tasks=state["tasks"],
                hanging=self._agent.native.abandoned,
                max_hanging=self._agent.native.max_abandoned,
            )
        )

    def _readyz(self, request: Request) -> Response:
        return endpoints.readyz(request, self.checks())

    def _overview(self, request: Request) -> Response:
        state = self.look()
        failed = [check for check in self.checks(state) if check.name not in TOLD_CHECKS]
        try:
            with view(self._agent.journal.path) as journal:
                records = overview.read(journal, overview_entries.time(state["at"]))
        except errors.JournalError as err:
            records = overview.Records(error=str(err))
        document = overview.build(state, records, list(health.sentences(failed)))
        after = request.query.get("after", "")
        if after.isascii() and after.isdigit():
            document = overview.newer(document, int(after))
        return endpoints.tagged(request, document, without=["at"])
