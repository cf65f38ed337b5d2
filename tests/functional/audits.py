# SPDX-License-Identifier: Apache-2.0
"""Usage audits in processes of their own: two at once, and one that kills itself (SIGKILL).

Their notifiers keep what they take in a file, so that it can be read afterwards.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cepheid_plugins.database.driver import Database
from cepheid_plugins.tasks import instance_usage_audit
from tests.fake_agent import FakeAgent, FakeClock
from tests.fakes import FakeHypervisor, FakeNotifier
from tests.functional.processes import PATIENCE_SECONDS
from tests.killing import Steps

NOW = datetime.datetime(2026, 11, 23, 12)
#: Instances that are told of at a time, here.
PAGE = 2


def notifier(path: Path) -> FakeNotifier:
    """Return what the agent of this directory has told."""
    return FakeNotifier(path / "taken")


def make_agent(path: Path, url: str, host: str) -> FakeAgent:
    """Return an agent that audits by the hour."""
    path.mkdir(exist_ok=True)
    settings = (
        f"host = {host}\n[oslo_messaging_notifications]\ndriver = log\n"
        "[instance_usage_audit]\ninstance_usage_audit_period = hour\n"
    )
    agent = FakeAgent(path, {"notifications": notifier(path)}, settings, FakeClock(NOW))
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=url)
    agent.drivers.use("database", Database(agent))
    return agent


def race(paths: list[Path], url: sa.URL, host: str, rounds: int) -> None:
    """Let agents of one name on several machines audit the same period at once, again and again."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(paths))
    processes = [
        context.Process(target=_race, args=(path, _text(url), host, rounds, barrier))
        for path in paths
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS * 2)
        assert process.exitcode == 0


def _race(path: Path, url: str, host: str, rounds: int, barrier: Any) -> None:
    agent = make_agent(path, url, host)
    task = agent.build(instance_usage_audit.InstanceUsageAudit)
    agent.driver("database").audit_logs("nowhere", NOW)  # what a process does but once
    for _ in range(rounds):
        barrier.wait(PATIENCE_SECONDS)
        agent.run(task)
        barrier.wait(PATIENCE_SECONDS)
        agent.clock.sleep(3600)
    agent.close()


def run(path: Path, url: sa.URL, host: str, last: int | None = None) -> bool:
    """Let an agent audit; tell whether it was killed.

    :param last: how many of its steps are carried out; None for all
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(path, _text(url), host, last))
    process.start()
    process.join(PATIENCE_SECONDS)
    assert process.exitcode in (0, -signal.SIGKILL), f"it ended with {process.exitcode}"
    return process.exitcode == -signal.SIGKILL


def _run(path: Path, url: str, host: str, last: int | None) -> None:
    agent = make_agent(path, url, host)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_usage_audit, "PAGE", PAGE)
        Steps(
            patch,
            FakeHypervisor,
            last,
            die=lambda: os.kill(os.getpid(), signal.SIGKILL),
            more=[(FakeNotifier, ("send",))],
        )
        outcome = agent.run(agent.build(instance_usage_audit.InstanceUsageAudit)).outcome
    os._exit(0 if outcome == "ok" else 1)


def _text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)
