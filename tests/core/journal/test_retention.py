# SPDX-License-Identifier: Apache-2.0
import datetime

import pytest

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
    clock.sleep(400 * DAY)
    prune(journal)
    assert ids(journal) == [1, 3]
    assert [change["target"] for change in journal.changes([1])] == ["i1", "i2"]
    assert journal.verify().flaws == []


def test_a_run_that_goes_on_stays(journal, clock):
    run = make_run(journal, "a", end=False)
    make_run(journal, "a")
    clock.sleep(400 * DAY)
    prune(journal)
    assert ids(journal) == [1, 2]
    run.outcome, run.duration_seconds = "overdue", 400 * DAY
    journal.end_run(run)
    assert journal.verify().flaws == []


def test_an_interrupted_run_grows_old(journal, clock):
    make_run(journal, "a", end=False)
    journal.mark_interrupted()
    make_run(journal, "a")
    clock.sleep(91 * DAY)
    prune(journal)
    assert ids(journal) == [2]


def test_last_runs_and_what_is_said_last_of_each_pause_stay(journal, clock):
    journal.set_last_run("a", clock.utcnow())
    now = clock.utcnow()
    pause = journal.pauses.pause("a", now, None, "first", "alice")
    journal.pauses.hold("a", pause, now)
    journal.pauses.pause("a", now, None, "second", "alice")
    journal.pauses.pause("b", now, now + datetime.timedelta(days=1000), "", "bob")
    clock.sleep(400 * DAY)
    prune(journal)
    assert [said["reason"] for said in journal.pauses.said()] == ["", "second"]
    assert set(journal.pauses.in_force(clock.utcnow())) == {"a", "b"}
    assert journal.last_run("a") == now
    assert journal.verify().flaws == []


def test_a_pass_over_what_stays_is_not_made_again(journal, clock):
    for task in "abcdef":
        make_run(journal, task)
    clock.sleep(91 * DAY)
    assert prune(journal) == 1
    before = journal.head()
    assert prune(journal) == 0
    clock.sleep(80 * DAY)
    assert prune(journal) == 0
    assert journal.head() == before


def test_a_transaction_removes_a_bounded_number_and_costs_a_fixed_number_of_reads(journal, clock):
    for _ in range(BATCH):
        make_run(journal, "a", ())
    clock.sleep(91 * DAY)
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
    clock.sleep(91 * DAY)
    prune(journal)
    run = make_run(journal, "a", ["i4"])
    assert [change["id"] for change in journal.changes([run.id])] == [4]


def test_a_seal_from_before_the_anchor_can_no_longer_be_compared(journal, clock):
    make_run(journal, "a")
    early = journal.head()
    clock.sleep(91 * DAY)
    make_run(journal, "a")
    late = journal.head()
    prune(journal)
    assert journal.verify(early).expected in (None, True)
    make_run(journal, "a")
    assert journal.verify(late).expected is True
    clock.sleep(91 * DAY)
    prune(journal)
    assert journal.verify(early).expected is None


def test_a_time_of_day_that_was_wrong_for_a_while_holds_nothing_up(journal, clock):
    clock.sleep(10_000 * DAY)
    make_run(journal, "a")
    clock._now -= 10_000 * DAY
    make_run(journal, "a")
    clock.sleep(91 * DAY)
    make_run(journal, "a")
    prune(journal)
    assert ids(journal) == [3]
    assert journal.verify().flaws == []


def test_another_process_may_write_meanwhile(journal, clock):
    for _ in range(50):
        make_run(journal, "a")
    clock.sleep(91 * DAY)
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
    clock.sleep(91 * DAY)
    short = steps()
    make_run(journal, "b", range(10_000))
    assert steps() < 1.5 * short
