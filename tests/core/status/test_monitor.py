# SPDX-License-Identifier: Apache-2.0
"""What an agent that answers HTTP says of itself, asked directly."""

import pytest

from cepheid.attention import LATE_SECONDS
from cepheid.status import health
from cepheid.status.monitor import Monitor
from cepheid.timers import Timer, TimerGroup
from tests.overviews import document, task


@pytest.fixture
def timers(agent):
    """Timers of a task and of another that nothing turns."""
    group = TimerGroup(agent.clock)
    group.timers += [
        Timer(lambda: None, name=name, clock=agent.clock) for name in ("mine", "journal")
    ]
    return group


@pytest.fixture
def monitor(agent, timers):
    agent.set("status", port=0)
    monitor = Monitor(agent, timers, dict)
    yield monitor
    monitor.close()


def test_a_late_timer_is_told_once_whether_it_is_a_tasks_or_not(monitor, clock):
    clock.advance(LATE_SECONDS + 10)
    mine = task("mine", late_seconds=LATE_SECONDS + 10)
    state = {"tasks": [mine], "runs": []}
    assert [check.text for check in monitor.checks(state) if check.state == health.FAILED] == [
        "journal is 40 s late; mine is 40 s late"
    ]
    points = document(mine, not_ready=monitor.not_ready(state))["health"]["points"]
    assert [(point["task"], point["text"]) for point in points] == [
        ("", "timers: journal is 40 s late"),
        ("mine", "its timer is 40 s late"),
    ]
