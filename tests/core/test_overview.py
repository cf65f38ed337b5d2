# SPDX-License-Identifier: Apache-2.0
import datetime
import json

import pytest

from cepheid import overview
from cepheid.journal import Journal
from cepheid.run import Change, Run
from tests.journals import fill

NOON = datetime.datetime(2026, 11, 23, 12, 0)
NAMES = [f"task_{n:02}" for n in range(17)]


def task(name="far", **values):
    return {
        "name": name,
        "summary": "Say how far it is.",
        "distribution": "cepheid",
        "version": "0.1.0",
        "state": "enabled",
        "reason": "",
        "spacing_seconds": 60.0,
        "next_run_seconds": 12.0,
        "late_seconds": 0.0,
        "dry_run": False,
        "running": False,
        "run": None,
        "pause": None,
        **values,
    }


def under_way(name="far", **values):
    return {
        "id": 7,
        "task": name,
        "trigger": "timer",
        "dry_run": False,
        "request_id": "req-1",
        "started_at": "2026-11-23T11:58:00.000000",
        "seconds": 120.0,
        "time_limit_seconds": None,
        "outcome": "running",
        "counters": {},
        "progress": None,
        **values,
    }


def pause(name="far", until="2026-11-23T14:00:00.000000", reason="a new switch"):
    return {
        "task": name,
        "at": "2026-11-23T11:00:00.000000",
        "until": until,
        "reason": reason,
        "who": "alice",
    }


def state(*tasks, **values):
    return {
        "host": "host1",
        "pid": 4711,
        "version": "0.1.0",
        "concurrency": "threading",
        "at": "2026-11-23T12:00:00.000000",
        "started_at": "2026-11-23T08:00:00.000000",
        "drivers": [],
        "tasks": list(tasks),
        "runs": [],
        "native_calls": [],
        "native_calls_queued": 0,
        "pauses": [],
        **values,
    }


@pytest.fixture
def journal(tmp_path, clock):
    journal = Journal(tmp_path / "journal.sqlite", clock)
    yield journal
    journal.close()


def record(journal, name="far", minutes_ago=1.0, outcome="ok", counters=None, error="", dry=False):
    """Record a run that took two seconds."""
    started_at = NOON - datetime.timedelta(minutes=minutes_ago)
    run = Run(name, "cepheid", "timer", dry, started_at, lateness_seconds=0.25)
    journal.start_run(run)
    run.outcome, run.counters, run.error = outcome, counters or {}, error
    if outcome not in ("running", "interrupted"):
        run.duration_seconds = 2.0
        journal.end_run(run)
    elif outcome == "interrupted":
        journal.mark_interrupted()
    return run


def points(document):
    return [
        (point["level"], point["task"], point["text"]) for point in document["health"]["points"]
    ]


def rows(document):
    runs = document["runs"]
    return [dict(zip(runs["columns"], row, strict=True)) for row in runs["rows"]]


def test_a_healthy_agent_is_told_as_one(journal):
    record(journal, counters={"done": 2, "seen": 5})
    document = overview.take(state(task()), journal.path)
    json.dumps(document)
    assert (document["host"], document["at"], document["started_at"]) == (
        "host1", "2026-11-23T12:00:00.000Z", "2026-11-23T08:00:00.000Z"
    )  # fmt: skip
    assert document["health"] == {"state": "ok", "points": []}
    (far,) = document["tasks"]
    assert (far["status"], far["next_run_at"]) == ("waiting", "2026-11-23T12:00:12.000Z")
    assert far["last_run"]["counters"] == {"done": 2, "seen": 5}
    assert far["last_run"]["duration_seconds"] == 2.0
    assert document["totals"] == {
        "seconds": 3600,
        "runs": 1,
        "outcomes": {"ok": 1},
        "counters": {"done": 2, "seen": 5},
    }


def test_the_runs_of_the_last_hour_are_told_oldest_first(journal):
    record(journal, minutes_ago=61)
    first = record(journal, "near", minutes_ago=60, outcome="failed", error="No.")
    second = record(journal, minutes_ago=3, counters={"planned": 2, "done": 1}, dry=True)
    third = record(journal, minutes_ago=1, outcome="running")
    document = overview.take(state(task()), journal.path)
    told = rows(document)
    assert [row["id"] for row in told] == [first.id, second.id, third.id]
    assert told[0] == {
        "id": first.id,
        "task": 0,
        "started_unix_seconds": 1795431600.0,
        "duration_seconds": 2.0,
        "lateness_seconds": 0.25,
        "outcome": "failed",
        "dry_run": 0,
        "trigger": "timer",
        "changes": 0,
        "error": 0,
    }
    assert document["runs"]["tasks"] == ["near", "far"]
    assert document["runs"]["errors"] == ["No."]
    assert (told[1]["changes"], told[1]["dry_run"], told[1]["error"]) == (3, 1, None)
    assert (told[2]["duration_seconds"], told[2]["outcome"]) == (None, "running")


def test_who_has_the_older_runs_is_told_the_newer_ones(journal):
    ids = [record(journal, minutes_ago=9 - n).id for n in range(5)]
    document = overview.take(state(task()), journal.path)
    shorter = overview.newer(document, ids[2])
    assert [row[0] for row in shorter["runs"]["rows"]] == ids[3:]
    assert shorter["runs"]["after_id"] == ids[2]
    assert [row[0] for row in document["runs"]["rows"]] == ids
    assert {**shorter, "runs": 0} == {**document, "runs": 0}


def test_a_run_under_way_is_told_with_its_progress_and_the_last_one_that_ended(journal):
    before = record(journal, minutes_ago=5, outcome="partial", counters={"skipped": 1})
    record(journal, minutes_ago=2, outcome="running")
    run = under_way(progress=(30, 120))
    (far,) = overview.take(state(task(run=run), runs=[run]), journal.path)["tasks"]
    assert (far["status"], far["last_run"]["id"]) == ("running", before.id)
    assert (far["run"]["done"], far["run"]["total"]) == (30, 120)
    assert far["run"]["started_at"] == "2026-11-23T11:58:00.000Z"


def test_the_run_of_a_tasks_further_method_is_the_tasks(journal):
    record(journal, minutes_ago=5)
    newest = record(journal, "far.too", minutes_ago=2)
    (far,) = overview.take(state(task()), journal.path)["tasks"]
    assert (far["last_run"]["id"], far["last_run"]["task"]) == (newest.id, "far.too")


def test_an_operators_command_under_way_is_told_apart():
    runs = [under_way("far"), under_way("instance_delete")]
    document = overview.build(state(task(run=runs[0]), runs=runs), overview.Records())
    assert [run["task"] for run in document["operations"]] == ["instance_delete"]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "waiting"),
        ({"run": under_way()}, "running"),
        ({"run": under_way(outcome="overdue")}, "overdue"),
        ({"pause": pause()}, "paused"),
        ({"pause": pause(), "run": under_way()}, "running"),
        ({"spacing_seconds": None}, "off"),
        ({"late_seconds": 31.0}, "late"),
        ({"late_seconds": 29.0}, "waiting"),
        ({"late_seconds": None, "next_run_seconds": None}, "waiting"),
    ],
)
def test_what_a_task_does_is_one_word(values, status):
    (far,) = overview.build(state(task(**values)), overview.Records())["tasks"]
    assert far["status"] == status


def test_a_task_that_is_off_has_no_next_run():
    off = task(spacing_seconds=None)
    (far,) = overview.build(state(off), overview.Records())["tasks"]
    assert far["next_run_at"] is None


def test_the_time_of_the_next_run_does_not_tremble():
    documents = [
        overview.build(
            state(task(next_run_seconds=60.2 - n), at=f"2026-11-23T12:00:0{n}.{n}00000"),
            overview.Records(),
        )
        for n in range(3)
    ]
    assert {document["tasks"][0]["next_run_at"] for document in documents} == {
        "2026-11-23T12:01:00.000Z"
    }
    assert len({json.dumps({**document, "at": ""}) for document in documents}) == 1


def test_what_was_not_loaded_and_what_is_not_wanted_are_told_apart():
    document = overview.build(
        state(
            task("a", state="failed", reason="the Python module libvirt is missing"),
            task("b", state="in conflict", reason="offered by two"),
            task("c", state="disabled", reason="as enabled_tasks says"),
            task("d", state="replaced", reason="by acme"),
            task("e"),
        ),
        overview.Records(),
    )
    assert [plugin["name"] for plugin in document["not_loaded"]] == ["a", "b"]
    assert [plugin["name"] for plugin in document["inactive"]] == ["c", "d"]
    assert [task["name"] for task in document["tasks"]] == ["e"]
    assert points(document) == [
        ("error", "a", "failed: the Python module libvirt is missing"),
        ("error", "b", "in conflict: offered by two"),
    ]


@pytest.mark.parametrize(
    ("outcome", "values", "expected"),
    [
        ("failed", {"error": "Gone."}, ("error", "far", "its last run failed: Gone.")),
        (
            "partial",
            {"counters": {"skipped": 1, "done": 2}},
            ("warning", "far", "its last run left items out: done 2, skipped 1"),
        ),
        (
            "limited",
            {"counters": {"refused": 9}},
            ("warning", "far", "its last run reached max_changes: refused 9"),
        ),
        (
            "overdue",
            {},
            ("warning", "far", "its last run took 2 s, longer than its time_limit"),
        ),
        ("interrupted", {}, ("warning", "far", "the agent ended in its last run")),
    ],
)
def test_health_tells_how_a_last_run_ended(journal, outcome, values, expected):
    record(journal, outcome=outcome, **values)
    document = overview.take(state(task()), journal.path)
    assert points(document) == [expected]
    assert document["health"]["state"] == ("failing" if expected[0] == "error" else "attention")


def test_health_tells_the_worst_first(journal):
    long = under_way("b", outcome="overdue", time_limit_seconds=60)
    document = overview.build(
        state(
            task("a", pause=pause("a")),
            task("b", run=long),
            task("c", late_seconds=600.0),
            runs=[long],
            pauses=[pause("a")],
            native_calls=[{"name": "listAllDomains", "seconds": 90.0, "abandoned": True}],
            native_calls_queued=3,
        ),
        overview.Records(error="The journal cannot be read."),
        not_ready=["The database does not answer."],
    )
    assert document["health"]["state"] == "failing"
    assert points(document) == [
        ("error", "", "The database does not answer."),
        ("error", "", "The journal cannot be read."),
        ("error", "b", "has run for 2 min, its time_limit is 60 s"),
        ("error", "c", "its timer is 10 min late"),
        ("warning", "", "1 native call hangs past its deadline"),
        ("warning", "", "3 native calls wait for a thread"),
        ("warning", "a", "paused by alice until 2026-11-23 14:00 UTC: a new switch"),
    ]


def test_a_pause_without_an_end_is_told_with_its_age_and_what_ends_it():
    document = overview.build(
        state(task("a"), pauses=[pause("a", until=None, reason="")]), overview.Records()
    )
    assert points(document) == [
        ("warning", "a", "paused by alice since 2026-11-23 11:00 UTC, until resumed. "
         "'cepheid resume a' ends it."),
    ]  # fmt: skip


def test_a_pause_of_all_tasks_is_told_once_and_with_each_task():
    said = pause("", until=None)
    document = overview.build(
        state(task("a", pause=said), task("b", pause=said), pauses=[said]), overview.Records()
    )
    assert points(document) == [
        ("warning", "", "all tasks are paused by alice since 2026-11-23 11:00 UTC, until resumed: "
         "a new switch. 'cepheid resume' ends it."),
    ]  # fmt: skip
    assert document["pauses"] == [
        {
            "task": "",
            "all": True,
            "at": "2026-11-23T11:00:00.000Z",
            "until_at": None,
            "reason": "a new switch",
            "who": "alice",
        }
    ]
    assert [task["status"] for task in document["tasks"]] == ["paused", "paused"]


def test_changes_come_newest_first_with_before_and_after(journal):
    run = record(journal, minutes_ago=2)
    changes = [
        Change(f"i{n}", {"vm_state": "active"}, "stopped", "why", "sync", "failed", "no")
        for n in range(overview.MAX_CHANGES + 5)
    ]
    journal.add_changes(run, changes)
    journal.complete_changes(changes)
    told = overview.take(state(task()), journal.path)["changes"]
    journal._store.connection.execute("UPDATE changes SET seal = NULL")
    first, *_ = overview.take(state(task()), journal.path)["changes"]
    assert first["at"] == "2026-11-23T11:58:00.000Z"
    assert len(told) == overview.MAX_CHANGES
    assert told[0] == {
        "id": changes[-1].id,
        "run_id": run.id,
        "task": "far",
        "kind": "sync",
        "target": f"i{overview.MAX_CHANGES + 4}",
        "at": "2026-11-23T12:00:00.000Z",
        "started_at": "2026-11-23T11:58:00.000Z",
        "dry_run": False,
        "before": '{"vm_state": "active"}',
        "after": "stopped",
        "reason": "why",
        "outcome": "failed",
        "error": "no",
        "times": 1,
        "first_at": "2026-11-23T12:00:00.000Z",
        "first_id": changes[-1].id,
    }


def test_a_change_that_fails_at_each_pass_is_told_once_and_leaves_room_for_others(journal, clock):
    made = Change("i0", "on", "off", "why", "sync", "done")
    journal.add_changes(record(journal, minutes_ago=400), [made])
    failed = [Change("i1", "on", "off", f"why {n}", "sync", "failed", "no") for n in range(300)]
    for change in failed:
        clock.sleep(60)
        journal.add_changes(record(journal, minutes_ago=0), [change])
    stuck, other = overview.take(state(task()), journal.path)["changes"]
    assert (stuck["id"], stuck["reason"], stuck["times"]) == (failed[-1].id, "why 299", 300)
    assert stuck["first_id"] == failed[0].id
    assert (stuck["first_at"], stuck["at"]) == (
        "2026-11-23T12:01:00.000Z", "2026-11-23T17:00:00.000Z"
    )  # fmt: skip
    assert (other["target"], other["times"], other["first_at"]) == ("i0", 1, other["at"])


def test_a_journal_that_fails_is_told_and_the_rest_is_there(journal):
    journal._store.connection.execute("DROP TABLE changes")
    document = overview.take(state(task()), journal.path)
    assert "changes" in document["journal_error"]
    assert (document["runs"]["rows"], document["changes"]) == ([], [])
    assert document["health"]["state"] == "failing"
    assert document["tasks"][0]["status"] == "waiting"


@pytest.mark.parametrize("not_ready", [[], ["journal: It was moved."]])
def test_a_journal_that_the_agent_does_not_write_is_told_once(journal, not_ready):
    seen = {**state(task()), "journal_failure": "It was moved."}
    document = overview.take(seen, journal.path, not_ready)
    assert document["health"]["state"] == "failing"
    (point,) = document["health"]["points"]
    assert point["text"].endswith("It was moved.")


def test_no_text_brings_a_password_out(journal):
    secret = "mysql://nova:s3cret@db/nova"
    run = record(journal, outcome="failed", error=secret)
    journal.add_changes(run, [Change(secret, {"url": secret}, secret, secret, "k", "done")])
    said = pause(reason=secret)
    document = overview.take(
        state(
            task(pause=said, summary=secret),
            task("b", state="failed", reason=secret),
            pauses=[said],
            native_calls=[{"name": secret, "seconds": 1.0, "abandoned": False}],
        ),
        journal.path,
        not_ready=[secret],
    )
    assert "s3cret" not in json.dumps(document)
    assert json.dumps(document).count("nova:***@db") >= 10


def measured(journal, document_of):
    """Return a document, the statements it cost and the steps that SQLite took for them."""
    connection = journal._store.connection
    statements, steps = [], []
    connection.set_trace_callback(statements.append)
    connection.set_progress_handler(lambda: steps.append(1) and None, 100)
    document = document_of()
    connection.set_progress_handler(None, 0)
    connection.set_trace_callback(None)
    return document, len(statements), 100 * len(steps)


def test_a_document_costs_the_same_however_long_the_journal_is(journal):
    there_are = state(*[task(name) for name in NAMES])

    def look():
        return overview.build(there_are, overview.read(journal, NOON))

    fill(journal, NAMES, NOON, 60, changes=1000)
    hour, *cost_of_an_hour = measured(journal, look)
    with journal._store.transaction() as connection:
        connection.execute("DELETE FROM changes")
        connection.execute("DELETE FROM runs")
    fill(journal, NAMES, NOON, 24 * 60, changes=5000)
    day, *cost_of_a_day = measured(journal, look)
    assert [len(day["runs"]["rows"]), len(day["changes"])] == [17 * 60, overview.MAX_CHANGES]
    assert [len(hour["runs"]["rows"]), len(hour["changes"])] == [17 * 60, overview.MAX_CHANGES]
    assert {len(task["last_run"]["task"]) for task in day["tasks"]} == {len(NAMES[0])}
    # Three reads, one of them in a transaction of its own.
    assert (cost_of_an_hour[0], cost_of_a_day[0]) == (5, 5)
    assert cost_of_a_day[1] < 1.05 * cost_of_an_hour[1]
    assert len(json.dumps(day, separators=(",", ":"))) < 128 * 1024
    assert len(json.dumps(overview.newer(day, day["runs"]["rows"][-17][0]))) < 32 * 1024


def test_no_more_runs_are_told_than_a_page_can_draw(journal):
    fill(journal, NAMES, NOON, 60)
    for _ in range(3):
        with journal._store.transaction() as connection:
            connection.execute(
                "INSERT INTO runs (task, distribution, trigger, dry_run, request_id, started_at,"
                " lateness_seconds, duration_seconds, outcome)"
                " SELECT task, '', 'timer', 0, '', '2026-11-23T11:59:30.000000', 0, 1, 'ok'"
                " FROM runs WHERE id <= 1020"
            )
    document = overview.take(state(task()), journal.path)
    assert (len(document["runs"]["rows"]), document["runs"]["complete"]) == (
        overview.MAX_RUNS, False
    )  # fmt: skip
