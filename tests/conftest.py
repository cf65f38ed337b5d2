# SPDX-License-Identifier: Apache-2.0
"""Both concurrency modes: CEPHEID_TEST_CONCURRENCY says which one this run has."""

import logging
import os
import signal

from cepheid import concurrency

# A script's job in the background ignores Ctrl-C, and so would every program that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.get("CEPHEID_TEST_CONCURRENCY", "threading") == "eventlet":
    concurrency.patch()

import pytest

from cepheid import config
from cepheid.run import RunContext
from tests.distributions import Distributions
from tests.fake_agent import FakeAgent, FakeClock


@pytest.fixture(autouse=True)
def quiet_log():
    """The log as a process begins with it, whatever a test before has set up."""
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture
def clock():
    """A clock that stands still until it is told."""
    return FakeClock()


@pytest.fixture
def agent(tmp_path, clock):
    """An agent without drivers, on a directory of its own."""
    agent = FakeAgent(tmp_path, clock=clock)
    yield agent
    agent.close()


@pytest.fixture
def reports(monkeypatch):
    """All that runs tell of how far they are, as (done, total)."""
    told = []
    tell = RunContext.progress

    def listen(context, done, total=None):
        told.append((done, total))
        tell(context, done, total)

    monkeypatch.setattr(RunContext, "progress", listen)
    return told


@pytest.fixture
def conf(tmp_path):
    """The core's configuration, with state_path in a temporary directory."""
    file = tmp_path / "only.conf"
    file.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\nhost = host1\n")
    return config.load([str(file)])


@pytest.fixture
def distributions(tmp_path):
    """Installed packages, in a directory of their own."""
    path = tmp_path / "site"
    path.mkdir()
    made = Distributions(path)
    yield made
    made.remove()
