# SPDX-License-Identifier: Apache-2.0
"""What is asked beforehand: whether drivers answer, and whether the journal can be written."""

import sqlite3

import pytest

from cepheid import errors
from cepheid.call_record import CallRecord
from cepheid.journal.view import view
from cepheid.status.watch import LOOK_SECONDS, DriverWatch, JournalWatch


class Driver:
    """A driver whose other end can be away."""

    def __init__(self):
        self.record = CallRecord(errors.CallTimeout)
        self.is_away = False
        self.probes = 0

    def probe(self):
        self.probes += 1
        with self.record.call("probe"):
            if self.is_away:
                raise errors.CallTimeout("nobody there")


def test_a_driver_is_asked_until_it_answers_and_then_left_alone(agent):
    driver = Driver()
    watch = DriverWatch(agent, "x", driver)
    assert watch.look() == LOOK_SECONDS
    assert driver.probes == 1
    watch.look()
    assert driver.probes == 1
    driver.is_away = True
    with pytest.raises(errors.CallTimeout):
        driver.probe()
    watch.look()
    watch.look()
    assert driver.probes == 4
    assert driver.record.standing.failure == "nobody there"
    driver.is_away = False
    watch.look()
    watch.look()
    assert driver.probes == 5
    assert driver.record.standing.failed_at is None


def test_a_driver_that_is_away_is_told_of_once(agent, caplog):
    driver = Driver()
    driver.is_away = True
    watch = DriverWatch(agent, "x", driver)
    for _ in range(3):
        watch.look()
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "The x was asked whether it answers: nobody there"
    ]


def test_the_journals_room_is_measured(agent):
    watch = JournalWatch(agent)
    assert watch.facts.free_bytes is None
    assert watch.look() == LOOK_SECONDS
    assert watch.facts.free_bytes > 0
    assert watch.room.size_bytes == agent.journal.path.stat().st_size


def test_a_journal_that_cannot_be_written_is_tried_again_until_it_can(agent):
    watch = JournalWatch(agent)
    agent.journal._store.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(errors.JournalError):
        agent.journal.pauses.pause("x", agent.clock.utcnow())
    watch.look()
    assert "cannot be used" in watch.facts.failure
    agent.journal._store.connection.execute("PRAGMA query_only = OFF")
    watch.look()
    assert watch.facts.failure == ""


def test_a_journal_that_is_gone_is_told_of(agent):
    watch = JournalWatch(agent)
    agent.journal.path.rename(agent.journal.path.with_suffix(".away"))
    watch.look()
    assert "No such file" in watch.facts.failure
    agent.journal.path.with_suffix(".away").rename(agent.journal.path)
    watch.look()
    assert watch.facts.failure == ""


def test_a_view_reads_while_another_writes_and_writes_nothing(agent):
    agent.journal.pauses.pause("x", agent.clock.utcnow())
    with agent.journal._store.transaction(), view(agent.journal.path) as reader:
        assert reader.newest_runs() == {}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._store.connection.execute("DELETE FROM pauses")


def test_a_view_makes_no_file(tmp_path):
    with pytest.raises(errors.JournalError), view(tmp_path / "none.sqlite"):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.sqlite").touch()
    with (
        pytest.raises(errors.JournalError, match="not of this version"),
        view(tmp_path / "empty.sqlite"),
    ):
        pass
