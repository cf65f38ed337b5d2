# SPDX-License-Identifier: Apache-2.0
import logging

import pytest

from cepheid.journal_keeper import JournalKeeper
from cepheid.run import Run

DAY = 86400.0


@pytest.fixture
def keeper(agent):
    return JournalKeeper(agent)


def make_runs(agent, count):
    for _ in range(count):
        run = Run("act", "cepheid", "timer", False, agent.clock.utcnow())
        agent.journal.start_run(run)
        run.outcome, run.duration_seconds = "ok", 1
        agent.journal.end_run(run)


def grow_old(agent, days):
    """Let so many days go by, with a run on the last but one."""
    agent.clock.sleep((days - 1) * DAY)
    make_runs(agent, 1)
    agent.clock.sleep(DAY)


def ids(agent):
    return len(agent.journal.runs(limit=10_000))


def test_a_backlog_goes_in_batches_with_pauses_between(agent, keeper):
    make_runs(agent, 600)
    grow_old(agent, 91)
    assert keeper.keep() == JournalKeeper.PAUSE_SECONDS
    assert 1 < ids(agent) < 600
    while keeper.keep() == JournalKeeper.PAUSE_SECONDS:
        pass
    assert ids(agent) == 1


def test_what_is_kept_for_ever_stays(agent, keeper):
    agent.set(None, journal_retention_days=0)
    make_runs(agent, 10)
    agent.clock.sleep(10_000 * DAY)
    assert keeper.keep() == JournalKeeper.INTERVAL_SECONDS
    assert ids(agent) == 10


def test_a_changed_option_counts_from_the_next_look_on(agent, keeper):
    make_runs(agent, 10)
    grow_old(agent, 10)
    keeper.keep()
    assert ids(agent) == 11
    agent.set(None, journal_retention_days=9)
    keeper.keep()
    assert ids(agent) == 1


def test_the_newest_seal_is_in_the_log_at_the_start_and_once_a_day(agent, keeper, caplog):
    caplog.set_level(logging.INFO, "cepheid.journal_keeper")
    for _ in range(49):
        keeper.keep()
        agent.clock.sleep(3600)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"The journal is sealed up to {agent.journal.head()}"] * 3


def test_a_journal_that_cannot_be_written_is_named_once(agent, keeper, caplog):
    agent.journal._store.connection.execute("ALTER TABLE anchor RENAME TO lost")
    for _ in range(3):
        assert keeper.keep() == JournalKeeper.INTERVAL_SECONDS
    assert caplog.text.count("Old records stay in the journal for now") <= 1


def test_a_time_of_day_that_is_doubted_is_named_once_and_so_is_its_end(agent, keeper, caplog):
    caplog.set_level(logging.INFO, "cepheid.journal_keeper")
    make_runs(agent, 10)
    now = agent.clock.utcnow()
    agent.clock.set_utc(now.replace(year=2099))
    for _ in range(3):
        assert keeper.keep() == JournalKeeper.INTERVAL_SECONDS
    agent.clock.set_utc(now)
    keeper.keep()
    assert ids(agent) == 10
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("Old records stay in the journal for now: It is 2099-11-23 by this")
    assert told[1:] == [
        f"The journal is sealed up to {agent.journal.head()}",  # it is told all the same
        "Over: Old records stay in the journal for now",
    ]
