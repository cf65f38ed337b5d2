# SPDX-License-Identifier: Apache-2.0
import datetime
import sqlite3
import threading

import pytest

from cepheid import errors
from cepheid.journal import Journal
from cepheid.run import Change, Run

NOON = datetime.datetime(2026, 11, 23, 12, 0)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def new_run(journal, task="act"):
    run = Run(task, "cepheid", "timer", False, NOON)
    journal.start_run(run)
    return run


def test_a_run_has_its_whole_story(journal):
    run = new_run(journal)
    run.outcome, run.duration_seconds, run.error = "failed", 1.5, "ValueError: bad"
    run.counters = {"done": 2}
    journal.end_run(run)
    assert journal.runs() == [
        {
            "id": run.id,
            "task": "act",
            "distribution": "cepheid",
            "trigger": "timer",
            "dry_run": 0,
            "request_id": "",
            "started_at": "2026-11-23T12:00:00.000000",
            "lateness_seconds": 0.0,
            "duration_seconds": 1.5,
            "outcome": "failed",
            "counters": {"done": 2},
            "error": "ValueError: bad",
        }
    ]


def test_runs_come_newest_first_of_one_task_or_of_all_and_not_too_many(journal):
    ids = [new_run(journal, task).id for task in ("a", "b", "a", "b", "a")]
    assert [run["id"] for run in journal.runs()] == ids[::-1]
    assert [run["id"] for run in journal.runs(limit=2)] == ids[:-3:-1]
    assert [run["id"] for run in journal.runs("b")] == [ids[3], ids[1]]
    assert journal.runs("c") == []


def test_runs_with_changes_are_found_behind_any_number_without(journal):
    changed = []
    for task in ("a", "b", "a"):
        run = new_run(journal, task)
        journal.add_changes(run, [Change(name, 1, 2, "", "set", "done") for name in "xy"])
        changed.append(run.id)
        for _ in range(5):
            new_run(journal, task)
    assert [run["id"] for run in journal.changed_runs()] == changed[::-1]
    assert [run["id"] for run in journal.changed_runs(limit=2)] == changed[:0:-1]
    assert [run["id"] for run in journal.changed_runs("a", 1)] == changed[2:]
    assert [run["id"] for run in journal.changed_runs("b")] == [changed[1]]


def test_to_find_runs_with_changes_costs_nothing_for_those_without(journal):
    def steps():
        count = 0

        def count_one():
            nonlocal count
            count += 1

        connection = journal._store.connection
        connection.set_progress_handler(count_one, 1)
        try:
            assert len(journal.changed_runs(limit=1)) == 1
        finally:
            connection.set_progress_handler(None, 1)
        return count

    run = new_run(journal)
    journal.add_changes(run, [Change("x", 1, 2, "", "set", "done")])
    few = steps()
    for _ in range(100):
        new_run(journal)
    assert steps() == few


def test_tells_the_newest_run_of_each_task(journal):
    ids = [new_run(journal, task).id for task in ("a", "b", "a")]
    newest = journal.newest_runs()
    assert {task: run["id"] for task, run in newest.items()} == {"a": ids[2], "b": ids[1]}


def test_changes_keep_their_order_and_values(journal):
    run = new_run(journal)
    changes = [
        Change("i1", {"vm_state": "active"}, {"vm_state": "stopped"}, "why", "sync", "started"),
        Change("i2", None, 4, "", "sync", "planned"),
    ]
    journal.add_changes(run, changes)
    changes[0].outcome, changes[0].error = "failed", "no"
    journal.complete_changes(changes[:1])
    rows = journal.changes([run.id])
    assert [row["id"] for row in rows] == [change.id for change in changes]
    assert [(row["target"], row["outcome"], row["error"]) for row in rows] == [
        ("i1", "failed", "no"), ("i2", "planned", ""),
    ]  # fmt: skip
    assert rows[0]["before"] == {"vm_state": "active"}
    assert (rows[1]["before"], rows[1]["after"]) == (None, 4)


def test_changes_of_no_run_are_none(journal):
    assert journal.changes([]) == []


def test_remembers_the_last_run_of_each_task(journal):
    assert journal.last_run("a") is None
    journal.set_last_run("a", NOON)
    journal.set_last_run("b", NOON + datetime.timedelta(microseconds=1))
    journal.set_last_run("a", NOON + datetime.timedelta(days=1))
    assert journal.last_run("a") == NOON + datetime.timedelta(days=1)
    assert journal.last_run("b") == NOON + datetime.timedelta(microseconds=1)


def test_a_run_and_its_time_in_the_schedule_are_written_together(journal):
    run = Run("a", "cepheid", "timer", False, NOON)
    journal._store.connection.execute("DROP TABLE last_runs")
    with pytest.raises(errors.JournalError):
        journal.start_run(run, scheduled_at=NOON)
    assert journal.runs() == []


def test_an_overdue_run_that_has_ended_keeps_its_outcome(journal):
    run = new_run(journal)
    run.outcome = "overdue"
    journal.set_outcome(run)
    assert journal.runs()[0]["outcome"] == "overdue"
    run.outcome, run.duration_seconds = "failed", 9
    journal.end_run(run)
    run.outcome = "overdue"
    journal.set_outcome(run)
    assert journal.runs()[0]["outcome"] == "failed"


def test_a_run_marked_as_interrupted_while_another_process_had_it_ends_as_it_did(journal):
    run = new_run(journal)
    changes = [Change("i1", kind="stop", outcome="started")]
    journal.add_changes(run, changes)
    assert journal.mark_interrupted() == 1
    changes[0].outcome, run.outcome, run.duration_seconds = "done", "ok", 3
    journal.complete_changes(changes)
    journal.end_run(run)
    assert journal.runs()[0]["outcome"] == "ok"
    assert journal.changes([run.id])[0]["outcome"] == "done"


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path):
    path = tmp_path / "journal.sqlite"
    first = Journal(path)
    run = new_run(first)
    first.close()
    second = Journal(path)
    assert second.runs()[0]["id"] == run.id
    second.close()


def test_two_processes_may_use_it_at_one_time(journal):
    other = Journal(journal.path)
    runs = [new_run(one).id for _ in range(20) for one in (journal, other)]
    assert len(set(runs)) == 40
    assert len(other.runs(limit=100)) == 40
    other.close()


def test_threads_may_use_it_at_one_time(journal):
    def write(task):
        for _ in range(20):
            run = new_run(journal, task)
            journal.add_changes(run, [Change("t", kind="k", outcome="done")])
            run.duration_seconds = 0
            journal.end_run(run)

    threads = [threading.Thread(target=write, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = journal.runs(limit=1000)
    assert len(runs) == 80
    assert len(journal.changes(run["id"] for run in runs)) == 80


def test_an_error_leaves_no_transaction_open(journal):
    run = Run("a", "cepheid", "timer", False, NOON)
    run.lateness_seconds = object()
    with pytest.raises(errors.JournalError):
        journal.start_run(run)
    with pytest.raises(TypeError):
        journal.add_changes(new_run(journal), [Change("t", before={(1, 2): 3})])
    assert new_run(journal, "b").id is not None
    other = sqlite3.connect(journal.path, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_full_disk_is_an_error_that_names_the_file_and_ends(journal):
    (pages,) = journal._store.connection.execute("PRAGMA page_count").fetchone()
    journal._store.connection.execute(f"PRAGMA max_page_count = {pages}")
    run = new_run(journal)
    with pytest.raises(errors.JournalError, match=r"is full.* free space"):
        journal.add_changes(run, [Change("t" * 100_000, kind="k", outcome="started")])
    journal._store.connection.execute("PRAGMA max_page_count = 1000000")
    journal.add_changes(run, [Change("t" * 100_000, kind="k", outcome="started")])


def test_a_path_that_cannot_be_is_named(tmp_path):
    with pytest.raises(errors.JournalError, match=r"nowhere/journal.sqlite cannot be used"):
        Journal(tmp_path / "nowhere" / "journal.sqlite")


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "journal.sqlite").write_text("something else " * 100)
    with pytest.raises(errors.JournalError, match="not a database"):
        Journal(tmp_path / "journal.sqlite")


def test_a_journal_of_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(errors.JournalError, match=r"version 99, this cepheid knows 2\. Upgrade"):
        Journal(path)


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_file_that_is_not_where_others_look_for_it_is_named(journal, how):
    journal.check_place()
    away = journal.path.with_name("away")
    journal.path.rename(away)
    if how == "removed":
        away.unlink()
    if how == "replaced":
        Journal(journal.path).close()
    with pytest.raises(errors.JournalError, match=r"was moved, removed or replaced.* Restart it"):
        journal.check_place()
    journal.probe()  # it can still be written, which is of no use
    assert "was moved" in journal.failure
    if how != "removed":
        away.rename(journal.path)
        journal.check_place()
        assert journal.failure == ""


def test_opening_a_journal_to_read_it_writes_nothing(tmp_path):
    Journal(tmp_path / "journal.sqlite").close()
    before = (tmp_path / "journal.sqlite").read_bytes()
    journal = Journal(tmp_path / "journal.sqlite")
    assert journal.runs() == []
    journal.close()
    assert (tmp_path / "journal.sqlite").read_bytes() == before


def test_tells_whose_last_try_by_a_task_did_not_succeed_the_longest_ago_first(journal):
    def changes(task, **outcomes):
        run = new_run(journal, task)
        found = [Change(name, 1, 2, kind="k", outcome=one) for name, one in outcomes.items()]
        journal.add_changes(run, found)

    changes("a", late="failed", early="failed", mended="failed", raced="failed", died="done")
    changes("b", early="done", other="failed")
    changes("a", late="failed", early="refused", mended="done", raced="raced", died="unknown")
    changes("a", late="planned", mended="planned", never="refused")
    assert journal.unsuccessful_targets("a") == ["early", "late", "died"]
    assert journal.unsuccessful_targets("c") == []


def test_tells_the_newest_change_of_a_target_by_each_task(journal):
    def change(task, *outcomes, target="x"):
        run = new_run(journal, task)
        for outcome in outcomes:
            journal.add_changes(run, [Change(target, 1, 2, kind="k", outcome=outcome)])

    change("a", "done", "failed", "planned", "refused")
    change("b", "planned")
    change("c", "raced", target="y")
    change("c", "done", target="z")
    found = journal.last_changes_of(["x", "y"])
    assert {task: one["outcome"] for task, one in found.items()} == {"a": "failed", "c": "raced"}
    assert found["a"]["started_at"] == "2026-11-23T12:00:00.000000"
