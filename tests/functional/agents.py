# SPDX-License-Identifier: Apache-2.0
"""The real program in processes of its own, as an operator runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.functional.processes import PATIENCE_SECONDS, wait_until


class Installation:
    """A configuration file and what is run with it.

    :param settings: further lines of the configuration
    """

    def __init__(self, path: Path, settings: str) -> None:
        self.path = path
        self.conf = path / "cepheid.conf"
        self.log = path / "agent.log"
        self.conf.write_text(
            f"[DEFAULT]\nstate_path = {path}\nhost = host1\nperiodic_fuzzy_delay = 0\n"
            f"log_file = {self.log}\n{settings}"
        )
        (path / "instances").mkdir(exist_ok=True)
        self.agent: subprocess.Popen[bytes] | None = None
        #: Whose cepheid is run.
        self.python = sys.executable
        #: What an agent is started as.
        self.module = "cepheid"
        #: The environment of what is run; None for the tests' own.
        self.environment: dict[str, str] | None = None

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command; return how it ended and what it printed."""
        return subprocess.run(
            [self.python, "-m", "cepheid", "--config-file", self.conf, *words],
            check=check,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            timeout=PATIENCE_SECONDS,
        )

    def popen(self, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command and let it go on; what it says is not read, unless `streams` say so."""
        nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return subprocess.Popen(
            [self.python, "-m", self.module, "--config-file", self.conf, *words],
            env=self.environment,
            **{**nowhere, **streams},
        )

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """Run a command that lists, and return its rows."""
        found: list[dict[str, Any]] = json.loads(self.run(*words, "-f", "json").stdout)
        return found

    def start_agent(self) -> None:
        """Start the agent and wait until it answers."""
        self.agent = self.popen("agent")
        socket = self.path / "cepheid-agent.sock"
        wait_until(lambda: socket.exists() or self.agent.poll() is not None, self.read_log)
        assert self.agent.poll() is None, self.read_log()

    def signal_agent(self, number: int) -> None:
        """Send the agent a signal."""
        assert self.agent is not None
        self.agent.send_signal(number)

    def stop_agent(self, seconds: float = PATIENCE_SECONDS) -> int:
        """End the agent with SIGTERM; return its exit status."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGTERM)
        return self.agent.wait(seconds)

    def close(self) -> None:
        """End the agent if it is still there."""
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait(PATIENCE_SECONDS)

    def read_log(self) -> str:
        """Return what the agent has logged."""
        return self.log.read_text() if self.log.exists() else ""
