# SPDX-License-Identifier: Apache-2.0
"""What an agent does about a pause."""

import datetime
import logging

import pytest

import cepheid
from cepheid import errors
from cepheid.journal.pauses import ALL
from cepheid.periodic_task import periodic_task
from tests.fake_agent import FakeAgent, FakeClock

HOUR = datetime.timedelta(hours=1)


class Beat(cepheid.Task):
    """Note when it runs."""

    def __init__(self, agent):
        super().__init__(agent)
        self.ran_at = []

    @periodic_task(spacing=600)
    def beat(self, context):
        self.ran_at.append(self.agent.clock.monotonic())


@pytest.fixture
def beat(agent):
    return agent.build(Beat)


def live(task, seconds):
    """Do what the task's timer does, for so long."""
    clock = task.agent.clock
    ends_at = clock.monotonic() + seconds
    while clock.monotonic() < ends_at:
        clock.sleep(min(task.periodic_tasks(), ends_at - clock.monotonic()))


def pause(agent, task="beat", hours=None):
    now = agent.clock.utcnow()
    until = None if hours is None else now + hours * HOUR
    return agent.journal.pauses.pause(task, now, until, "a new switch", "alice")


def said(agent):
    return [record["action"] for record in reversed(agent.journal.pauses.said(limit=100))]


@pytest.mark.parametrize("task", ["beat", ALL])
def test_what_is_paused_is_not_run_and_that_is_on_record_once(agent, beat, task):
    pause(agent, task)
    live(beat, 86400)
    assert beat.ran_at == []
    assert agent.journal.runs() == []
    assert said(agent) == ["pause", "held"]


def test_another_tasks_pause_is_its_own(agent, beat):
    pause(agent, "other")
    live(beat, 1200)
    assert len(beat.ran_at) == 1


def test_a_run_that_was_held_is_made_once_when_the_pause_is_over(agent, beat):
    pause(agent, hours=10)
    live(beat, 10 * 3600 - 1)
    assert beat.ran_at == []
    live(beat, 2)
    assert beat.ran_at == [1000 + 10 * 3600]
    live(beat, 600)
    assert len(beat.ran_at) == 2  # its schedule went on: a boundary every 600 seconds


def test_a_held_run_is_not_late_by_the_time_it_was_held(agent, beat):
    pause(agent, hours=10)
    live(beat, 10 * 3600 + 1)
    assert agent.journal.runs()[0]["lateness_seconds"] <= 60


def test_a_resume_is_heeded_at_the_next_look(agent, beat):
    pause(agent)
    live(beat, 3600)
    agent.journal.pauses.resume("beat", agent.clock.utcnow())
    live(beat, 61)
    assert len(beat.ran_at) == 1


def test_a_pause_outlives_the_agent(agent, beat):
    pause(agent, hours=10)
    live(beat, 3600)
    agent.close()
    again = FakeAgent(agent.state_path, clock=FakeClock(agent.clock.utcnow()))
    beat = again.build(Beat)
    live(beat, 3600)
    assert beat.ran_at == []
    assert said(again) == ["pause", "held"]  # not said again
    again.close()


def test_an_operators_run_is_refused_with_the_reason_unless_it_is_forced(agent, beat):
    pause(agent)
    with pytest.raises(
        errors.Paused, match=r"beat is not run: paused by alice until resumed: a new switch\."
    ):
        beat.run_now("operator")
    assert beat.ran_at == []
    assert beat.run_now("operator", force=True).outcome == "ok"


def test_a_dry_run_is_made_though_the_task_is_paused(agent, beat):
    pause(agent)
    assert beat.run_now("operator", dry_run=True).outcome == "ok"
    agent.set("beat", dry_run=True)
    assert beat.run_now("operator").outcome == "ok"
    with pytest.raises(errors.Paused):
        beat.run_now("operator", dry_run=False)


def test_nothing_is_run_while_it_is_not_known_what_is_paused(agent, beat, caplog):
    agent.journal._store.connection.execute("ALTER TABLE pauses RENAME TO lost")
    live(beat, 1200)
    assert beat.ran_at == []
    assert "beat was not run: The journal" in caplog.text


def test_begin_and_end_are_each_in_the_log_once(agent, caplog):
    caplog.set_level(logging.INFO, "cepheid.pausing")
    watch = agent.pauses
    pause(agent, "beat", hours=1)
    pause(agent, ALL)
    looks = []
    for _ in range(3):
        looks.append(watch.look())
    agent.clock.sleep(3600)
    looks.append(watch.look())
    agent.journal.pauses.resume(ALL, agent.clock.utcnow())
    looks += [watch.look(), watch.look()]
    assert looks == [False, False, False, False, True, False]  # only the last was resumed early
    assert [record.getMessage() for record in caplog.records] == [
        "beat: paused by alice until 2026-11-23 13:00:00 UTC: a new switch",
        "Pause: all tasks are paused by alice until resumed: a new switch",
        "beat: the pause is over",
        "All tasks: the pause was ended",
    ]


def test_a_look_costs_one_query_however_long_the_history(agent, beat):
    for _ in range(50):
        pause(agent, hours=1)
    sent = []
    agent.journal._store.connection.set_trace_callback(sent.append)
    assert agent.pauses.of("beat") is not None
    assert len(sent) == 1
