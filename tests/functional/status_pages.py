# SPDX-License-Identifier: Apache-2.0
"""An agent's HTTP server, asked as a client would."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from tests.functional.processes import wait_until

#: Seconds within which any answer must come.
ANSWER_SECONDS = 15


class Answer:
    """What a server answered."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class StatusServer:
    """The server of an agent that was told to listen on a port of the system's choice.

    :param log: the agent's log, which tells the port
    """

    def __init__(self, state_path: Path, log: Path) -> None:
        self._state_path = state_path
        self._log = log
        self._port = 0

    @property
    def port(self) -> int:
        if not self._port:
            wait_until(lambda: self._lines(), self._log.read_text)
            self._port = int(self._lines()[-1].rpartition(":")[2].strip("/"))
        return self._port

    def _lines(self) -> list[str]:
        text = self._log.read_text() if self._log.exists() else ""
        return [line for line in text.splitlines() if "Listening on http://" in line]

    def forget(self) -> None:
        """Look for the port again: another agent has started."""
        self._port = 0

    @property
    def token(self) -> str:
        return (self._state_path / "cepheid-status-token").read_text().strip()

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a path."""
        return self.ask("GET", path, headers=headers)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(
                method, path, body, {k.replace("_", "-"): v for k, v in (headers or {}).items()}
            )
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def run(self, task: str, dry_run: bool = False, token: str | None = None) -> Answer:
        """Have a task run."""
        headers = {
            "Authorization": f"Bearer {self.token if token is None else token}",
            "Content-Type": "application/json",
        }
        return self.ask("POST", f"/tasks/{task}/run", json.dumps({"dry_run": dry_run}), headers)

    def checks(self) -> dict[str, tuple[str, str]]:
        """Return what /readyz tells: by check, its state and why."""
        found = self.get("/readyz", Accept="application/json").json["checks"]
        return {check["name"]: (check["state"], check["text"]) for check in found}
