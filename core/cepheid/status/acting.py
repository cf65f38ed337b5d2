# SPDX-License-Identifier: Apache-2.0
"""Having the agent run a task, from a native thread: by its admin socket, with a time limit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cepheid import admin, concurrency, wording
from cepheid.status.messages import Response, data

#: Seconds within which the agent must have begun a run; later, it refuses.
START_SECONDS = 3.0

#: Seconds to wait for a run to end. Longer ones go on without.
ANSWER_SECONDS = 5.0

#: Changes that an answer holds; the journal has all.
MAX_CHANGES = 100

#: What an error of the agent is to a client, by its class.
STATUSES = {
    "Busy": HTTPStatus.CONFLICT,
    "Paused": HTTPStatus.CONFLICT,
    "NoSuchTask": HTTPStatus.NOT_FOUND,
    "PluginError": HTTPStatus.NOT_FOUND,
    "JournalError": HTTPStatus.SERVICE_UNAVAILABLE,
    "TooLate": HTTPStatus.GATEWAY_TIMEOUT,
}


class TaskRuns:
    """Runs tasks as ``cepheid task run`` does.

    :param state_path: where the admin socket is
    :param look: tells of the runs under way, as :func:`cepheid.snapshot.take` does
    """

    def __init__(self, state_path: Path, look: Callable[[], dict[str, Any]]) -> None:
        self._path = state_path / admin.SOCKET_NAME
        self._look = look
        self._socket = concurrency.original("socket")
        self._monotonic = concurrency.original("time").monotonic

    def run(self, task: str, dry_run: bool) -> Response:
        """Run a task now, and answer with the run.

        200 when it has ended, however; 202 while it goes on; 404 where the agent has no such task;
        409 while it runs or is paused; 504 where the agent does not take the request, and then
        it never will.
        """
        known = {run["id"] for run in self._runs(task)}
        request = {
            "command": "run",
            "task": task,
            # A task that is configured to change nothing does not either when it is asked to run.
            "dry_run": dry_run or None,
            "start_by": self._monotonic() + START_SECONDS,
        }
        try:
            answer = json.loads(self._ask(json.dumps(request).encode() + b"\n"))
        except TimeoutError:
            return self._late(task, known)
        except (OSError, ValueError):
            return data(503, {"error": "The agent does not take requests: it is stopping."})
        if "error" in answer:
            status = STATUSES.get(answer.get("type", ""), HTTPStatus.INTERNAL_SERVER_ERROR)
            return data(status, {"error": wording.shown(answer["error"])})
        return data(200, {"state": "ended", "run": _shown(answer["result"])})

    def _ask(self, line: bytes) -> bytes:
        with self._socket.socket(self._socket.AF_UNIX, self._socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(os.fspath(self._path))
            connection.sendall(line)
            ends_at = self._monotonic() + ANSWER_SECONDS
            received = bytearray()
            while not received.endswith(b"\n"):
                connection.settimeout(max(0.001, ends_at - self._monotonic()))
                part = connection.recv(65536)
                if not part:
                    break
                received += part
            return bytes(received)

    def _late(self, task: str, known: set[int]) -> Response:
        begun = [run for run in self._runs(task) if run["id"] not in known]
        if begun:
            return data(202, {"state": "running", "run": begun[0]})
        text = (
            f"The agent did not begin to run {task} within {START_SECONDS:g} seconds, and will "
            "not. /readyz says what keeps it."
        )
        return data(504, {"error": text})

    def _runs(self, task: str) -> list[dict[str, Any]]:
        return [run for run in self._look()["runs"] if run["task"] == task]


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run with its first changes, as an overview shows texts of others."""
    changes = [
        {
            **{name: change[name] for name in ("id", "kind", "outcome")},
            **{name: wording.shown(change[name]) for name in ("target", "reason", "error")},
            **{name: wording.value(change[name]) for name in ("before", "after")},
        }
        for change in run["changes"][:MAX_CHANGES]
    ]
    return {
        **run,
        "error": wording.shown(run["error"]),
        "changes": changes,
        "changes_total": len(run["changes"]),
    }
