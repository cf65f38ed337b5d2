# SPDX-License-Identifier: Apache-2.0
"""A journal of an earlier version becomes one of this: nothing is lost, whatever happens."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from cepheid import errors, host_lock
from cepheid.journal import SCHEMA_VERSION, Journal

#: What the first version of the journal made, word for word.
VERSION_1 = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    distribution TEXT NOT NULL,
    trigger TEXT NOT NULL,
    dry_run INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    started_at TEXT NOT NULL,
    lateness_seconds REAL NOT NULL,
    duration_seconds REAL,
    outcome TEXT NOT NULL,
    counters TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX runs_task_id ON runs (task, id);
CREATE INDEX runs_request_id ON runs (request_id);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,
    after TEXT,
    reason TEXT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX changes_run_id ON changes (run_id);
CREATE TABLE last_runs (
    task TEXT PRIMARY KEY,
    at TEXT NOT NULL
);
PRAGMA user_version = 1;
"""


def contents(path):
    """Return the rows of the first version's tables, without what later versions have added."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = {}
    for table in ("runs", "changes", "last_runs"):
        rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]
        for row in rows:
            row.pop("seal", None)
        found[table] = rows
    connection.close()
    return found


@pytest.fixture
def old(tmp_path):
    """A journal of version 1 with 1,200 runs, some of them open, and 2,400 changes."""
    path = tmp_path / "cepheid-journal.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    for n in range(1, 1201):
        ended = (1.5, "ok", '{"done": 2}') if n % 100 else (None, "running", "{}")
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, 'cepheid', 'timer', 0, ?, ?, 0.25, ?, ?, ?, '')",
            (n, f"task{n % 7}", f"req-{n}", f"2026-11-{1 + n // 60:02}T12:{n % 60:02}:00.000000",
             *ended),
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO changes (run_id, kind, target, before, after, reason, outcome)"
            " VALUES (?, 'stop', ?, '\"on\"', 'null', 'why', 'done')",
            [(n, f"i{m}") for m in range(2)],
        )
    connection.execute("INSERT INTO last_runs VALUES ('task1', '2026-11-20T12:00:00.000000')")
    connection.commit()
    connection.close()
    return path


def version(path):
    connection = sqlite3.connect(path)
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return number


def test_a_migration_loses_nothing_and_seals_what_is_there(old):
    before = contents(old)
    journal = Journal(old)
    verdict = journal.verify()
    assert len(journal.runs(limit=2000)) == 1200
    assert journal.last_run("task1").isoformat() == "2026-11-20T12:00:00"
    journal.close()
    assert contents(old) == before
    assert version(old) == SCHEMA_VERSION
    assert verdict.flaws == []
    assert verdict.seals == verdict.records == 1200 + 2400 + 1


def test_seals_of_a_migration_have_the_records_own_times_so_that_they_grow_old(old):
    journal = Journal(old)
    ats = [row["at"] for row in journal._store.rows("SELECT at FROM seals ORDER BY id LIMIT 3600")]
    assert ats == sorted(ats)
    assert len(set(ats)) > 1000
    journal.close()


def test_changes_whose_run_somebody_had_deleted_are_kept_too(old):
    connection = sqlite3.connect(old)
    connection.execute("DELETE FROM runs WHERE id = 7")
    connection.commit()
    connection.close()
    journal = Journal(old)
    assert len(journal.changes([7])) == 2
    assert journal.verify().flaws == []
    journal.close()


def test_a_new_journal_and_a_migrated_one_are_alike(old, tmp_path):
    def tables(path):
        Journal(path).close()
        connection = sqlite3.connect(path)
        found = set(connection.execute("SELECT name, sql FROM sqlite_master"))
        connection.close()
        return found

    assert tables(old) == tables(tmp_path / "new.sqlite")


def test_a_journal_without_a_record_is_migrated(tmp_path):
    path = tmp_path / "journal.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.close()
    journal = Journal(path)
    assert journal.runs() == []
    assert journal.verify().flaws == []
    journal.close()


def in_a_process(script, path, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **options,
    )


#: Opens the journal once it is told to.
OPEN = """
    import sys
    from cepheid.journal import Journal
    print("ready", flush=True)
    sys.stdin.readline()
    journal = Journal(sys.argv[1])
    print(len(journal.runs(limit=2000)), journal.head())
"""


def test_two_processes_that_migrate_at_once_migrate_once(old):
    processes = [in_a_process(OPEN, old) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1]
    assert answers[0].startswith("1200 3601:")


#: Kills itself, as nothing but the kernel can, when it has sealed 1,500 of 3,600 records.
DIE = """
    import os, signal, sqlite3, sys
    real = sqlite3.connect
    seals = 0

    def trace(statement):
        global seals
        seals += statement.startswith("INSERT INTO seals")
        if seals == 1500:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*args, **kwargs):
        connection = real(*args, **kwargs)
        connection.set_trace_callback(trace)
        return connection

    sqlite3.connect = connect
    from cepheid.journal import Journal
    Journal(sys.argv[1])
"""


def test_a_migration_that_was_killed_in_the_middle_is_made_anew(old):
    before = contents(old)
    killed = in_a_process(DIE, old)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert version(old) == 1
    assert contents(old) == before
    journal = Journal(old)
    assert journal.verify().flaws == []
    journal.close()
    assert contents(old) == before


def test_a_journal_that_an_earlier_agent_uses_is_left_to_it(old, tmp_path):
    """It would go on writing records without seals."""
    before = contents(old)
    lock = host_lock.acquire(tmp_path)
    with pytest.raises(errors.JournalError, match=r"has version 1 .* \(process \d+\)\. Restart"):
        Journal(old)
    assert (version(old), contents(old)) == (1, before)
    os.close(lock)
    Journal(old).close()
    assert version(old) == SCHEMA_VERSION


def test_an_agent_of_this_version_does_not_keep_others_from_the_journal(tmp_path):
    first = Journal(tmp_path / "journal.sqlite")
    lock = host_lock.acquire(tmp_path)
    Journal(tmp_path / "journal.sqlite").close()
    first.close()
    os.close(lock)
