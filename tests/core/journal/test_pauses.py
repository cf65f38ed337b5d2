# SPDX-License-Identifier: Apache-2.0
import datetime

import pytest

from cepheid.journal import Journal
from cepheid.journal.pauses import ALL, pause_of
from tests.fake_agent import FakeClock

NOON = datetime.datetime(2026, 11, 23, 12, 0)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite", FakeClock(NOON))
    yield journal
    journal.close()


@pytest.fixture
def pauses(journal):
    return journal.pauses


def test_a_pause_is_in_force_until_its_end_and_no_longer(pauses):
    pause = pauses.pause("a", NOON, NOON + HOUR, "a new switch", "alice")
    assert pauses.in_force(NOON) == {"a": pause}
    assert pauses.in_force(NOON + HOUR - datetime.timedelta(seconds=1)) == {"a": pause}
    assert pauses.in_force(NOON + HOUR) == {}


def test_a_pause_without_an_end_stays_in_force_until_it_is_resumed(pauses):
    pause = pauses.pause("a", NOON, None, "", "alice")
    assert pauses.in_force(NOON + 10_000 * HOUR) == {"a": pause}
    assert pauses.resume("a", NOON + HOUR, "", "bob") == pause
    assert pauses.in_force(NOON + HOUR) == {}


def test_a_later_pause_takes_the_place_of_an_earlier_one(pauses):
    pauses.pause("a", NOON, None)
    pauses.pause("a", NOON, NOON + HOUR)
    assert pauses.in_force(NOON + 2 * HOUR) == {}


def test_a_pause_of_all_goes_for_each_and_leaves_those_by_name_alone(pauses):
    everything = pauses.pause(ALL, NOON, None)
    own = pauses.pause("a", NOON, None)
    assert pause_of("a", pauses.in_force(NOON)) == own
    assert pause_of("b", pauses.in_force(NOON)) == everything
    pauses.resume(ALL, NOON)
    assert pause_of("b", pauses.in_force(NOON)) is None
    assert pause_of("a", pauses.in_force(NOON)) == own


def test_resuming_what_is_not_paused_leaves_no_record(pauses):
    pauses.pause("a", NOON, NOON + HOUR)
    assert pauses.resume("b", NOON) is None
    assert pauses.resume("a", NOON + 2 * HOUR) is None
    assert [said["action"] for said in pauses.said()] == ["pause"]


def test_the_first_held_run_of_each_pause_is_on_record(pauses):
    first = pauses.pause("a", NOON, NOON + HOUR, "", "alice")
    for _ in range(3):
        pauses.hold("a", first, NOON)
    second = pauses.pause(ALL, NOON, None, "", "bob")
    pauses.hold("a", second, NOON)
    pauses.hold("b", second, NOON)
    assert [(said["action"], said["task"]) for said in pauses.said()] == [
        ("held", "b"), ("held", "a"), ("pause", ""), ("held", "a"), ("pause", "a"),
    ]  # fmt: skip
    assert [said["action"] for said in pauses.said("b")] == ["held", "pause"]


def test_what_was_said_is_there_when_it_is_opened_again(journal, tmp_path):
    pause = journal.pauses.pause("a", NOON, NOON + HOUR, "a new switch", "alice")
    other = Journal(journal.path)
    assert other.pauses.in_force(NOON) == {"a": pause}
    other.close()


def test_a_pause_says_itself_in_a_line(pauses):
    assert str(pauses.pause("a", NOON, NOON + HOUR, "a new switch", "alice")) == (
        "paused by alice until 2026-11-23 13:00:00 UTC: a new switch"
    )
    endless = pauses.pause(ALL, NOON, None, "", "alice")
    assert str(endless) == "all tasks are paused by alice until resumed"
