# SPDX-License-Identifier: Apache-2.0
"""What a service says of timers that do not turn, and of a journal that is not in its place."""

import pytest

from cepheid.attention import LATE_SECONDS
from cepheid.service import Service
from cepheid.systemd import Notifier
from cepheid.timers import Timer


@pytest.fixture
def service(agent):
    """A service with a watchdog, and a timer that nothing turns."""
    notifier = Notifier({"WATCHDOG_USEC": "60000000"})
    service = Service(agent, lambda: agent.conf, notifier)
    service.timers.timers.append(Timer(lambda: None, name="stuck", clock=agent.clock))
    return service


def test_a_timer_that_does_not_turn_is_named_once_and_when_it_turns_again(service, clock, caplog):
    caplog.set_level("INFO")
    clock.advance(LATE_SECONDS + 1)
    for _ in range(3):
        service.supervise()
    service.timers.timers[0].turn()
    service.supervise()
    said = "These timers do not turn, the watchdog is not fed: stuck"
    assert [record.getMessage() for record in caplog.records] == [said, f"Over: {said}"]


def test_a_journal_that_was_moved_away_is_named_once_and_in_what_the_agent_is(
    service, agent, caplog
):
    service.timers.timers.clear()
    agent.journal.path.rename(agent.state_path / "away")
    for _ in range(3):
        service.supervise()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("It is not known what is paused: The journal ")
    assert said.endswith("does not reach the agent. Restart it.")
    assert "was moved, removed or replaced" in service.status()["journal_failure"]
