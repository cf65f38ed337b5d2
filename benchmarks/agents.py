# SPDX-License-Identifier: Apache-2.0
"""A real agent process with all seventeen tasks, on a host made for measuring."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.floors import CASES
from benchmarks.host import NOTIFICATIONS, Host
from cepheid.journal.journal import FILE_NAME
from cepheid.periodic_task import DEFAULT_INTERVAL
from tests.functional.agents import Installation
from tests.functional.libvirtd import Libvirtd
from tests.functional.processes import wait_until

#: Seconds for an agent to start.
PATIENCE_SECONDS = 120

#: The tasks with their spacings, in seconds, as they are when nothing is configured. Two are off
#: then: they are given a minute.
SPACINGS = {
    case.name: {o.name: o.default for o in case.factory.all_options()}["spacing"]
    or DEFAULT_INTERVAL
    for case in CASES
}


@contextlib.contextmanager
def installed(
    number: int, spacings: Mapping[str, float], settings: str = "", daemon: Libvirtd | None = None
) -> Iterator[Any]:
    """Give an installation of so many instances, in which every task has work to do.

    :param spacings: by task, in seconds
    :param daemon: whose libvirt's test driver is; by default it is in the agent's own process
    """
    with tempfile.TemporaryDirectory(prefix="cepheid-bench-") as directory:
        path = Path(directory)
        path.chmod(0o755)  # the daemon is another user's
        Host(path, number).close()
        uri = f"test:///{path}/node.xml"
        if daemon is not None:
            uri = f"test+unix://{path}/node.xml?socket={daemon.socket}"
        groups = "".join(_group(case, spacings[case.name]) for case in CASES)
        installation = Installation(
            path,
            f"{settings}[hypervisor]\nuri = {uri}\ncall_timeout = 3600\n"
            f"[scheduler]\ndriver = none\n{NOTIFICATIONS}{groups}",
        )
        installation.python = sys.executable
        try:
            yield installation
        finally:
            installation.close()


def start(installation: Any) -> None:
    """Start the agent and wait until it answers, also on a machine that is busy."""
    installation.agent = installation.popen("agent")
    socket = installation.path / "cepheid-agent.sock"
    wait_until(
        lambda: socket.exists() or installation.agent.poll() is not None,
        installation.read_log,
        PATIENCE_SECONDS,
    )
    assert installation.agent.poll() is None, installation.read_log()


def _group(case: Any, spacing: float) -> str:
    lines = [f"[{case.name}]", f"spacing = {round(spacing)}", "enabled = true"]
    lines += [f"{name} = {value}" for name, value in case.options.items() if name != "spacing"]
    return "\n".join(lines) + "\n"


def lateness(path: Path) -> dict[str, list[float]]:
    """Return by task how many seconds late its runs began, from an agent's journal."""
    found: dict[str, list[float]] = {}
    with contextlib.closing(sqlite3.connect(path / FILE_NAME)) as connection:
        for task, seconds in connection.execute("SELECT task, lateness_seconds FROM runs"):
            found.setdefault(task, []).append(seconds)
    return found
