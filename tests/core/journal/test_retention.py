# SPDX-License-Identifier: Apache-2.0
import datetime

import pytest

from cepheid import errors
from cepheid.journal import Journal
from cepheid.journal.retention import BATCH
from cepheid.run import Change, Run
from tests.fake_agent import FakeClock

DAY = 86400.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def journal(tmp_path, clock):
    journal = Journal(tmp_path / "journal.sqlite", clock)
    yield journal
    journal.close()


def make_run(journal, task, targets=("i1",), end=True, outcome="ok"):
    run = Run(task, "cepheid", "timer", False, journal._clock.utcnow())
    journal.start_run(run)
    changes = [Change(t, kind="stop", outcome="started") for t in targets]
    if changes:
        journal.add_changes(run, changes)
        for change in changes:
            change.outcome = "done"
        journal.complete_changes(changes)
    if end:
        run.outcome, run.duration_seconds = outcome, 1
        journal.end_run(run)
    return run


def prune(journal, days=90):
    """Remove all that may go; return how many transactions that took."""
    count = 0
    while journal.prune(days):
        count += 1
    return count


def grow_old(journal, clock, days=91):
    """Let so many days go by, at the end of which something is on record each day; no run is."""
    clock.sleep((days - 1) * DAY)
    with journal._sealing() as (_, chain):
        chain.reseal("anchor", [1])
    clock.sleep(DAY)


def ids(journal):
    return sorted(run["id"] for run in journal.runs(limit=100_000))


def test_what_is_older_goes_with_its_changes_and_the_rest_stays(journal, clock):
    for _ in range(10):
        make_run(journal, "a")
        clock.sleep(DAY)
    assert prune(journal, days=3.5) == 1
    assert ids(journal) == [8, 9, 10]
    assert sorted(c["run_id"] for c in journal.changes(range(1, 11))) == [8, 9, 10]
    assert journal.verify().flaws == []


def test_the_newest_run_of_each_task_stays_with_its_changes_whatever_its_age(journal, clock):
    make_run(journal, "rare", ["i1", "i2"])
    make_run(journal, "often")
    make_run(journal, "often")
    grow_old(journal, clock, 400)
    prune(journal)
    assert ids(journal) == [1, 3]
    assert [change["target"] for change in journal.changes([1])] == ["i1", "i2"]
    assert journal.verify().flaws == []


def test_a_run_that_goes_on_stays(journal, clock):
    run = make_run(journal, "a", end=False)
    make_run(journal, "a")
    grow_old(journal, clock, 400)
    prune(journal)
    assert ids(journal) == [1, 2]
    run.outcome, run.duration_seconds = "overdue", 400 * DAY
    journal.end_run(run)
    assert journal.verify().flaws == []


def test_an_interrupted_run_grows_old(journal, clock):
    make_run(journal, "a", end=False)
    journal.mark_interrupted()
    make_run(journal, "a")
    grow_old(journal, clock)
    prune(journal)
    assert ids(journal) == [2]


def test_last_runs_and_what_is_said_last_of_each_pause_stay(journal, clock):
    journal.set_last_run("a", clock.utcnow())
    now = clock.utcnow()
    pause = journal.pauses.pause("a", now, None, "first", "alice")
    journal.pauses.hold("a", pause, now)
    journal.pauses.pause("a", now, None, "second", "alice")
    journal.pauses.pause("b", now, now + datetime.timedelta(days=1000), "", "bob")
    grow_old(journal, clock, 400)
    prune(journal)
    assert [said["reason"] for said in journal.pauses.said()] == ["", "second"]
    assert set(journal.pauses.in_force(clock.utcnow())) == {"a", "b"}
    assert journal.last_run("a") == now
    assert journal.verify().flaws == []


def test_a_pass_over_what_stays_is_not_made_again(journal, clock):
    for task in "abcdef":
        make_run(journal, task)
    grow_old(journal, clock)
    assert prune(journal) == 1
    before = journal.head()
    assert prune(journal) == 0
    grow_old(journal, clock, 80)
    assert prune(journal) == 0
    assert journal.head().id == before.id + 1  # that of the record of each day


def test_a_transaction_removes_a_bounded_number_and_costs_a_fixed_number_of_reads(journal, clock):
    for _ in range(BATCH):
        make_run(journal, "a", ())
    grow_old(journal, clock)
    make_run(journal, "a")
    sent = []
    journal._store.connection.set_trace_callback(sent.append)
    assert journal.prune(90)
    journal._store.connection.set_trace_callback(None)
    assert len(ids(journal)) == 1 + BATCH - BATCH // 2 + 1
    # One short of half of them: the anchor's first seal was among those that went.
    assert sum(s.startswith("DELETE FROM runs") for s in sent) == BATCH // 2 - 1
    assert sum(s.startswith("SELECT") for s in sent) <= 12
    assert journal.verify().flaws == []


def test_the_file_does_not_grow_without_end(journal, clock):
    pages = []
    for _ in range(6):
        for _ in range(30):
            make_run(journal, "a", [f"i{n}" for n in range(20)])
            clock.sleep(DAY)
            prune(journal, days=30)
        (size,) = journal._store.connection.execute("PRAGMA page_count").fetchone()
        pages.append(size)
    assert pages[-1] <= 1.1 * pages[1]
    assert journal.verify().flaws == []


def test_ids_of_changes_are_not_used_again(journal, clock):
    make_run(journal, "a", ["i1", "i2", "i3"])
    make_run(journal, "a", ())
    grow_old(journal, clock)
    prune(journal)
    run = make_run(journal, "a", ["i4"])
    assert [change["id"] for change in journal.changes([run.id])] == [4]


def test_a_seal_from_before_the_anchor_can_no_longer_be_compared(journal, clock):
    make_run(journal, "a")
    early = journal.head()
    grow_old(journal, clock)
    make_run(journal, "a")
    late = journal.head()
    prune(journal)
    assert journal.verify(early).expected in (None, True)
    make_run(journal, "a")
    assert journal.verify(late).expected is True
    grow_old(journal, clock)
    prune(journal)
    assert journal.verify(early).expected is None


# A wrong time of day


def make_daily_runs(journal, clock, days=30):
    for _ in range(days):
        make_run(journal, "daily")
        clock.sleep(DAY)


def set_year(clock, year):
    clock.set_utc(clock.utcnow().replace(year=year))


@pytest.mark.parametrize("year", [1970, 2000, 2038, 2099])
def test_a_time_of_day_that_is_far_from_all_records_removes_none(journal, clock, year):
    make_daily_runs(journal, clock)
    set_year(clock, year)
    with pytest.raises(errors.DoubtfulTime, match=f"It is {year}-12-23 by this host's clock"):
        journal.prune(90)
    make_run(journal, "daily")  # what is written meanwhile confirms nothing yet
    clock.sleep(0.9 * DAY)
    with pytest.raises(errors.DoubtfulTime, match="the oldest record is of 2026-11-23"):
        journal.prune(90)
    assert len(ids(journal)) == 31
    assert journal.failure == ""  # the journal itself is as it should be


@pytest.mark.parametrize("year", [2000, 2099])
def test_when_the_time_of_day_is_right_again_all_is_kept_as_long_as_before(journal, clock, year):
    make_daily_runs(journal, clock)
    set_year(clock, year)
    make_run(journal, "daily")
    clock.sleep(0.5 * DAY)
    with pytest.raises(errors.DoubtfulTime):
        journal.prune(90)
    set_year(clock, 2026)
    make_daily_runs(journal, clock, 68)
    prune(journal)
    assert ids(journal)[0] == 10  # of noon 90 days ago
    make_daily_runs(journal, clock, 30)
    prune(journal)
    assert ids(journal)[0] > 31  # the one of the wrong year went with the others of its time
    assert journal.verify().flaws == []


def test_a_time_of_day_that_was_set_back_far_removes_nothing_for_as_long_as_records_are_kept(
    journal, clock
):
    make_daily_runs(journal, clock)
    set_year(clock, 2000)
    make_daily_runs(journal, clock, 90)
    assert prune(journal) == 0
    make_daily_runs(journal, clock, 2)
    prune(journal)
    assert ids(journal)[0] > 30
    assert journal.verify().flaws == []


def test_an_agent_that_was_away_for_longer_prunes_when_it_has_been_back_for_a_day(journal, clock):
    make_daily_runs(journal, clock)
    clock.sleep(400 * DAY)
    make_run(journal, "daily")
    with pytest.raises(errors.DoubtfulTime):
        journal.prune(90)
    clock.sleep(DAY)
    prune(journal)
    assert ids(journal) == [31]


def test_what_is_kept_for_a_day_is_confirmed_in_half_of_it(journal, clock):
    make_daily_runs(journal, clock)
    make_run(journal, "daily")
    clock.sleep(DAY / 2)
    prune(journal, days=1)
    assert ids(journal) == [31]


def test_a_time_of_day_that_was_wrong_for_a_while_holds_nothing_up(journal, clock):
    clock.sleep(10_000 * DAY)
    make_run(journal, "a")
    clock._now -= 10_000 * DAY
    make_run(journal, "a")
    grow_old(journal, clock)
    make_run(journal, "a")
    prune(journal)
    assert ids(journal) == [3]
    assert journal.verify().flaws == []


def test_many_records_of_a_time_ahead_go_with_what_follows_them(journal, clock):
    set_year(clock, 2099)
    for _ in range(BATCH):
        make_run(journal, "a", ())
    set_year(clock, 2026)
    make_run(journal, "a")
    clock.sleep(89 * DAY)
    make_run(journal, "a")
    assert prune(journal) == 0
    clock.sleep(2 * DAY)
    assert prune(journal) >= 2
    assert ids(journal) == [BATCH + 2]
    assert journal.verify().flaws == []


# Others, and what it costs


def test_another_process_may_write_meanwhile(journal, clock):
    for _ in range(50):
        make_run(journal, "a")
    grow_old(journal, clock)
    other = Journal(journal.path, clock)
    while journal.prune(90):
        make_run(other, "b")
    other.close()
    assert journal.verify().flaws == []


def test_a_batch_costs_the_same_however_long_the_journal_is(journal, clock):
    def steps():
        counted = []
        journal._store.connection.set_progress_handler(lambda: counted.append(1), 10)
        assert journal.prune(90)
        journal._store.connection.set_progress_handler(None, 0)
        return len(counted)

    make_run(journal, "a", range(2000))
    make_run(journal, "a", range(500))
    clock.sleep(90 * DAY)
    make_run(journal, "b")
    clock.sleep(DAY)
    short = steps()
    make_run(journal, "b", range(10_000))
    clock.sleep(DAY)
    assert steps() < 1.5 * short
