# SPDX-License-Identifier: Apache-2.0
"""The chain of seals: whatever is done to the file afterwards is found, and named."""

import datetime
import sqlite3
import threading
import tracemalloc

import pytest

from cepheid import errors
from cepheid.journal import Head, Journal
from cepheid.run import Change, Run
from tests.fake_agent import FakeClock

NOON = datetime.datetime(2026, 11, 23, 12, 0)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite", FakeClock(NOON))
    yield journal
    journal.close()


def make_run(journal, task="act", targets=("i1", "i2"), end=True):
    """Record a run that stops each of its targets."""
    run = Run(task, "cepheid", "timer", False, journal._clock.utcnow())
    journal.start_run(run)
    changes = [Change(t, {"n": 1.5}, None, "why", "stop", "started") for t in targets]
    if changes:
        journal.add_changes(run, changes)
        for change in changes:
            change.outcome = "done"
        journal.complete_changes(changes)
    if end:
        run.outcome, run.duration_seconds, run.counters = "ok", 1, {"done": len(changes)}
        journal.end_run(run)
    return run


@pytest.fixture
def used(journal):
    """A journal with runs 1 to 4, changes 1 to 8 and pauses 1 and 2."""
    for task in ("a", "b", "a"):
        make_run(journal, task)
    journal.pauses.pause("a", NOON, None, "a new switch", "alice")
    journal.pauses.resume("a", NOON, "", "alice")
    make_run(journal, "b")
    return journal


def edit(journal, *statements):
    """Edit the file as somebody who has SQLite at hand would."""
    connection = sqlite3.connect(journal.path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def first_flaw(journal):
    flaws = journal.verify().flaws
    return flaws[0].message if flaws else None


def test_a_journal_that_was_left_alone_is_intact(used):
    verdict = used.verify()
    assert verdict.flaws == []
    assert (verdict.anchor.id, verdict.head) == (0, used.head())
    assert verdict.records == 4 + 8 + 2 + 1
    assert verdict.seals == verdict.head.id == 2 * 4 + 2 * 8 + 2 + 1


def test_an_empty_journal_is_intact(journal):
    assert first_flaw(journal) is None


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE changes SET target = 'i9' WHERE id = 3",
            "change 3 of run 2 (stop of i9) was edited after it was sealed",
        ),
        (
            "UPDATE changes SET outcome = 'refused' WHERE id > 4",
            "change 5 of run 3 (stop of i1) was edited after it was sealed",
        ),
        (
            "UPDATE runs SET counters = '{}' WHERE id = 2",
            "run 2 (b, 2026-11-23T12:00:00) was edited after it was sealed",
        ),
        (
            "UPDATE pauses SET who = 'bob' WHERE id = 1",
            "pause 1 (pause, 2026-11-23T12:00:00) was edited after it was sealed",
        ),
        (
            "UPDATE anchor SET change_id = 7",
            "the anchor was edited: what came before it was not removed by Cepheid",
        ),
        (
            "DELETE FROM changes WHERE id = 4",
            "change 4, sealed at 2026-11-23 12:00:00 UTC, was removed",
        ),
        ("DELETE FROM runs WHERE id = 4", "run 4, sealed at 2026-11-23 12:00:00 UTC, was removed"),
        (
            "INSERT INTO changes (run_id, kind, target, reason, outcome)"
            " VALUES (2, 'stop', 'i7', '', 'done')",
            "change 9 of run 2 (stop of i7) was put in: it has no seal of its own",
        ),
        (
            "INSERT INTO changes SELECT 9, run_id, kind, 'i7', before, after, reason, outcome,"
            " error, seal FROM changes WHERE id = 2",
            "change 9 of run 1 (stop of i7) was put in: it has no seal of its own",
        ),
        (
            "UPDATE changes SET seal = NULL WHERE id = 2",
            "change 2, sealed at 2026-11-23 12:00:00 UTC, was removed",
        ),
        (
            "UPDATE changes SET outcome = 'started',"
            " seal = (SELECT min(id) FROM seals WHERE record = 'changes' AND record_id = 2)"
            " WHERE id = 2",
            "change 2 was set back to what it was before 2026-11-23 12:00:00 UTC",
        ),
    ],
)
def test_what_is_edited_removed_or_put_in_is_named(used, statement, message):
    edit(used, statement)
    assert first_flaw(used) == message


def test_removing_a_record_with_its_seals_breaks_the_chain(used):
    edit(
        used,
        "DELETE FROM changes WHERE id = 2",
        "DELETE FROM seals WHERE record = 'changes' AND record_id = 2",
    )
    assert first_flaw(used).startswith("the chain breaks at seal 5, that of change 1 at 2026-11-23")


def test_a_seal_made_to_fit_an_edited_record_breaks_the_chain(used):
    from cepheid.journal import seals

    edit(used, "UPDATE changes SET target = 'i9' WHERE id = 2")
    (row,) = used._store.rows("SELECT * FROM changes WHERE id = 2")
    digest = seals.digest_of("changes", row).hex()
    edit(used, f"UPDATE seals SET digest = x'{digest}' WHERE id = {row['seal']}")
    assert first_flaw(used).startswith(f"the chain breaks at seal {row['seal']}, that of change 2")


def test_cutting_off_the_beginning_as_retention_does_is_found(used):
    (row,) = used._store.rows("SELECT hash FROM seals WHERE id = 7")
    edit(
        used,
        "DELETE FROM seals WHERE id <= 7",
        "DELETE FROM changes WHERE run_id = 1",
        "DELETE FROM runs WHERE id = 1",
        f"UPDATE anchor SET seal_id = 7, hash = x'{row['hash'].hex()}'",
    )
    assert first_flaw(used).startswith("the anchor was edited")


def test_the_first_bad_record_comes_first_whatever_was_done_to_it(used):
    edit(
        used,
        "UPDATE runs SET task = 'c' WHERE id = 4",
        "DELETE FROM changes WHERE id = 5",
        "UPDATE changes SET reason = '' WHERE id = 4",
    )
    messages = [flaw.message for flaw in used.verify().flaws]
    assert [message.partition(",")[0].split(" of ")[0] for message in messages] == [
        "change 4", "change 5", "run 4 (c"
    ]  # fmt: skip


def test_cutting_off_the_end_shows_by_a_seal_that_was_noted(used):
    noted = used.head()
    assert used.verify(noted).expected is True
    edit(
        used,
        "DELETE FROM changes WHERE run_id = 4",
        "DELETE FROM runs WHERE id = 4",
        f"DELETE FROM seals WHERE id > {noted.id - 6}",
    )
    verdict = used.verify(noted)
    assert verdict.flaws == []  # the chain alone does not show it
    assert verdict.expected is False


def test_a_chain_that_was_made_anew_shows_by_a_seal_that_was_noted(tmp_path, used):
    noted = used.head()
    forged = Journal(tmp_path / "forged.sqlite", FakeClock(NOON))
    for task in "abcdefgh":
        make_run(forged, task)
    verdict = forged.verify(noted)
    forged.close()
    assert (verdict.flaws, verdict.expected) == ([], False)


def test_a_noted_seal_stays_in_the_chain(used):
    noted = used.head()
    for _ in range(5):
        make_run(used)
    assert used.verify(noted).expected is True


def test_a_seal_is_read_as_it_is_written(used):
    head = used.head()
    assert Head.parse(str(head)) == head
    for text in ("", "12", "x:00", f"-1:{'0' * 64}", f"1:{'0' * 63}"):
        with pytest.raises(errors.CepheidError, match=r"is not a seal as .* \(PLACE:HASH\)"):
            Head.parse(text)


def test_what_is_not_ended_is_sealed_as_well(journal):
    run = make_run(journal, end=False)
    run.outcome = "overdue"
    journal.set_outcome(run)
    journal.add_changes(run, [Change("i3", kind="stop", outcome="started")])
    assert first_flaw(journal) is None
    edit(journal, "DELETE FROM changes WHERE id = 3")
    assert first_flaw(journal).startswith("change 3, sealed")


def test_an_interrupted_run_is_sealed_as_interrupted(journal):
    run = make_run(journal, end=False)
    journal.add_changes(run, [Change(f"i{n}", kind="stop", outcome="started") for n in range(9)])
    assert journal.mark_interrupted() == 1
    assert journal.mark_interrupted() == 0
    assert first_flaw(journal) is None
    edit(journal, "UPDATE changes SET outcome = 'done' WHERE outcome = 'unknown'")
    assert "was edited" in first_flaw(journal)


def test_what_is_sealed_is_what_is_stored(journal):
    """SQLite turns a number in a text column into text, and a plugin may write one."""
    run = Run("act", "cepheid", "timer", True, NOON, lateness_seconds=3)
    journal.start_run(run)
    change = Change(17, {"when": NOON}, "\0ä€😀", 4.0, "stop", "started")
    journal.add_changes(run, [change])
    change.before["when"] = "changed meanwhile"
    change.outcome, change.error = "failed", 5
    journal.complete_changes([change])
    run.duration_seconds = 2
    journal.end_run(run)
    assert first_flaw(journal) is None


def test_two_processes_and_many_threads_make_one_chain(journal):
    other = Journal(journal.path, FakeClock(NOON))

    def write(own):
        for _ in range(10):
            make_run(own)

    threads = [threading.Thread(target=write, args=[own]) for own in (journal, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = other.verify()
    other.close()
    assert verdict.flaws == []
    assert verdict.seals == 1 + 40 * (2 + 4)


def test_a_transaction_that_fails_leaves_no_seal(journal):
    run = make_run(journal, end=False)
    before = journal.head()
    with pytest.raises(TypeError):
        journal.add_changes(run, [Change("t"), Change("t", before={(1, 2): 3})])
    assert journal.head() == before
    assert first_flaw(journal) is None


def statements_of(journal, act):
    """Return the statements that `act` sends, and how many of them begin a transaction."""
    sent = []
    journal._store.connection.set_trace_callback(sent.append)
    act()
    journal._store.connection.set_trace_callback(None)
    return sent, sum(statement.startswith("BEGIN") for statement in sent)


def test_sealing_needs_no_transaction_of_its_own_and_two_reads_a_batch(journal):
    counted = {}
    for size in (1, 1000):
        run = make_run(journal, targets=(), end=False)
        changes = [Change(f"i{n}", kind="stop", outcome="started") for n in range(size)]
        sent, transactions = statements_of(
            journal, lambda run=run, changes=changes: journal.add_changes(run, changes)
        )
        assert transactions == 1
        reads = [s for s in sent if s.startswith("SELECT")]
        writes = [s for s in sent if s.startswith("INSERT")]
        assert len(writes) == 2 * size
        counted[size] = len(reads)
        sent, transactions = statements_of(
            journal, lambda changes=changes: journal.complete_changes(changes)
        )
        assert transactions == 1
        assert len([s for s in sent if s.startswith("SELECT")]) == 2
    assert counted[1] == counted[1000] == 3


def test_verifying_takes_no_more_memory_for_more_records(journal):
    peaks = []
    for size in (200, 4000):
        for _ in range(size // 100):
            make_run(journal, targets=range(100))
        tracemalloc.start()
        assert first_flaw(journal) is None
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 50_000
