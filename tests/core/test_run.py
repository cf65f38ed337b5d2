# SPDX-License-Identifier: Apache-2.0
import asyncio
import logging
import os
import subprocess
import sys
import threading

import pytest
from oslo_context import context as oslo_context

import cepheid
from cepheid import concurrency, errors, snapshot
from cepheid.active_run import ENDING_SECONDS
from cepheid.observers import LogObserver, Observer
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, Raced, Run
from tests.fake_agent import FakeAgent, eventually


class Act(cepheid.Task):
    """Do what a test wants."""

    @periodic_task(spacing=600)
    def act(self, context):
        self.do(context)


@pytest.fixture
def act(agent):
    """A function that runs a task whose body is given; the run is returned."""
    task = agent.build(Act)

    def run(body, dry_run=None):
        task.do = body
        return agent.run(task, dry_run)

    return run


def recorded(agent, *columns):
    """The changes in the journal, newest run first."""
    rows = agent.journal.changes(run["id"] for run in agent.journal.runs(limit=100))
    return [tuple(row[column] for column in columns) for row in rows]


class World:
    """Where changes are made."""

    def __init__(self):
        self.changed = []
        self.calls = 0

    def change(self, *targets):
        def do(*_):
            self.calls += 1
            self.changed += targets

        return do

    def change_all(self, changes):
        self.calls += 1
        self.changed += [change.target for change in changes]


@pytest.fixture
def world():
    return World()


def fail(*_):
    raise OSError(28, "No space left on device")


# The door: one change


def test_a_change_is_made_recorded_and_counted(agent, act, world):
    results = []

    def body(context):
        results.append(
            context.change("power_state", target="i1", before=1, after=4, reason="it is off",
                           do=world.change("i1"))
        )  # fmt: skip

    run = act(body)
    assert world.changed == ["i1"]
    assert results[0].outcome == "done"
    assert (run.outcome, run.counters) == ("ok", {"done": 1})
    assert recorded(agent, "kind", "target", "before", "after", "reason", "outcome", "error") == [
        ("power_state", "i1", 1, 4, "it is off", "done", "")
    ]


def test_an_error_of_one_change_is_recorded_and_the_pass_goes_on(agent, act, world):
    def body(context):
        context.change("stop", target="i1", do=fail)
        context.change("stop", target="i2", do=world.change("i2"))

    run = act(body)
    assert world.changed == ["i2"]
    assert (run.outcome, run.counters) == ("partial", {"failed": 1, "done": 1})
    assert recorded(agent, "target", "outcome", "error") == [
        ("i1", "failed", "OSError: [Errno 28] No space left on device"),
        ("i2", "done", ""),
    ]


def test_an_error_of_ours_is_recorded_by_its_text_alone(agent, act):
    def time_out():
        raise errors.CallTimeout("virDomainDestroy did not return within 60 seconds")

    act(lambda context: context.change("stop", target="i1", do=time_out))
    assert recorded(agent, "error") == [("virDomainDestroy did not return within 60 seconds",)]


def test_a_name_that_is_no_text_is_written_out_wherever_it_stands(agent, act, caplog):
    name = os.fsdecode(b"disk-\xff")

    def change(context):
        def fail(changes):
            raise errors.CepheidError(f"{name} cannot be removed")

        context.skip(name, f"{name} is in the way")
        context.change_many("delete", [Change(name, name, reason=f"{name} is old")], fail)
        raise errors.CepheidError(f"{name} ends it")

    act(change)
    shown = "disk-\\udcff"
    assert recorded(agent, "outcome", "target", "error", "reason") == [
        ("failed", shown, f"{shown} cannot be removed", f"{shown} is old")
    ]
    assert agent.journal.runs()[0]["error"] == f"{shown} ends it"
    assert f"{shown} is in the way" in caplog.text


def test_a_target_that_moved_on_is_raced_and_no_failure(agent, act):
    def lose():
        raise Raced

    run = act(lambda context: context.change("stop", target="i1", do=lose))
    assert (run.outcome, run.counters) == ("ok", {"raced": 1})
    assert recorded(agent, "outcome", "error") == [("raced", "")]


def test_one_that_has_raced_after_something_was_done_says_what(agent, act):
    def lose():
        raise Raced("it was stopped, and somebody has deleted it")

    act(lambda context: context.change("stop", target="i1", do=lose))
    assert recorded(agent, "outcome", "error") == [
        ("raced", "it was stopped, and somebody has deleted it")
    ]


def test_what_is_settled_stays_so_where_the_change_of_many_is_cut_short(agent, act):
    def cut_short(context):
        context.settle({"i1": None, "i2": OSError("no space")})
        raise RuntimeError("no more")

    run = act(
        lambda context: context.change_many(
            "stop", [Change(target) for target in ("i1", "i2", "i3")], lambda _: cut_short(context)
        )
    )
    assert run.counters == {"done": 1, "failed": 2}
    assert recorded(agent, "target", "outcome", "error") == [
        ("i1", "done", ""),
        ("i2", "failed", "OSError: no space"),
        ("i3", "failed", "RuntimeError: no more"),
    ]


def test_what_ctrl_c_leaves_unsettled_is_not_known(agent, act):
    def cut_short(context):
        context.settle({"i1": None})
        raise KeyboardInterrupt

    def body(context):
        context.change("stop", target="i0", do=lambda: None)
        context.settle({"i0": "raced"})
        context.change_many("stop", [Change("i1"), Change("i2")], lambda _: cut_short(context))

    with pytest.raises(KeyboardInterrupt):
        act(body)
    assert recorded(agent, "target", "outcome") == [
        ("i0", "done"),
        ("i1", "done"),
        ("i2", "unknown"),
    ]


def test_what_a_change_returns_does_not_matter(act):
    run = act(lambda context: context.change("stop", target="i1", do=lambda: False))
    assert run.counters == {"done": 1}


def test_a_change_holds_what_json_cannot(agent, act):
    import uuid

    target = uuid.UUID(int=1)
    act(
        lambda context: context.change(
            "stop", target=target, before={"at": agent.clock.utcnow()}, do=lambda: None
        )
    )
    assert recorded(agent, "target", "before") == [(str(target), {"at": "2026-11-23 12:00:00"})]


# The door: a batch


def batch(context, do, n=3):
    return context.change_many("sync", [Change(f"i{i}", after=i) for i in range(n)], do)


def test_a_batch_is_made_in_one_call_and_recorded_one_by_one(agent, act, world):
    made = []
    run = act(lambda context: made.extend(batch(context, world.change_all)))
    assert (world.calls, world.changed) == (1, ["i0", "i1", "i2"])
    assert [change.target for change in made] == world.changed
    assert run.counters == {"done": 3}
    assert recorded(agent, "target", "after", "outcome") == [
        ("i0", 0, "done"), ("i1", 1, "done"), ("i2", 2, "done"),
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [{"i1"}, ["i1"], (t for t in ["i1"])])
def test_a_batch_may_answer_with_the_targets_it_changed_and_the_others_are_raced(
    agent, act, answer
):
    made = []
    run = act(lambda context: made.extend(batch(context, lambda _: answer)))
    assert [change.target for change in made] == ["i1"]
    assert (run.outcome, run.counters) == ("ok", {"done": 1, "raced": 2})


def test_a_batch_that_changed_nothing_is_raced_as_a_whole(act):
    assert act(lambda context: batch(context, lambda _: set())).counters == {"raced": 3}


def test_a_batch_may_answer_for_each_target(agent, act):
    answer = {"i0": None, "i1": "raced", "i2": ValueError("bad")}
    run = act(lambda context: batch(context, lambda _: answer))
    assert (run.outcome, run.counters) == ("partial", {"done": 1, "raced": 1, "failed": 1})
    assert recorded(agent, "outcome", "error") == [
        ("done", ""), ("raced", ""), ("failed", "ValueError: bad"),
    ]  # fmt: skip


def test_a_batch_that_fails_has_failed_for_every_target(agent, act):
    run = act(lambda context: batch(context, fail))
    assert (run.outcome, run.counters) == ("partial", {"failed": 3})
    assert {row[0] for row in recorded(agent, "outcome")} == {"failed"}


def test_what_came_of_a_batch_that_answers_nonsense_is_not_known(agent, act):
    run = act(lambda context: batch(context, lambda _: 17))
    assert (run.outcome, run.counters) == ("failed", {"unknown": 3})
    assert "not iterable" in run.error
    assert recorded(agent, "outcome", "error") == [("unknown", "")] * 3


def test_a_batch_that_answers_while_it_changes_fails_as_any_other(agent, act):
    def change(changes):
        yield changes[0].target
        fail()

    assert act(lambda context: batch(context, change)).counters == {"failed": 3}


def test_a_target_that_failed_and_was_done_after_all_has_no_error(agent, act):
    def change(changes):
        # Both are of one target, which the answer goes for.
        context.settle({"i0": OSError("busy")})
        return {change.target for change in changes}

    def body(it):
        nonlocal context
        context = it
        batch(it, change)

    context = None
    act(body)
    assert recorded(agent, "outcome", "error") == [("done", "")] * 3


def test_a_journal_that_fails_does_not_hide_what_ends_a_run(agent, act, monkeypatch, caplog):
    def refuse(changes):
        raise errors.JournalError("The journal is full")

    def interrupt(changes):
        monkeypatch.setattr(agent.journal, "complete_changes", refuse)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        act(lambda context: batch(context, interrupt))
    assert "What came of changes (sync) is not recorded: The journal is full" in caplog.text


def test_an_empty_batch_is_nothing(agent, act, world):
    run = act(lambda context: context.change_many("sync", [], world.change_all))
    assert (world.calls, run.counters, recorded(agent, "id")) == (0, {}, [])


# Dry run and limit


def test_a_dry_run_plans_and_acts_not(agent, act, world):
    def body(context):
        assert context.dry_run
        assert context.change("stop", target="a", do=world.change("a")).outcome == "planned"
        assert batch(context, world.change_all) == []

    run = act(body, dry_run=True)
    assert world.calls == 0
    assert (run.outcome, run.counters, run.dry_run) == ("ok", {"planned": 4}, True)
    assert {row[0] for row in recorded(agent, "outcome")} == {"planned"}


@pytest.mark.parametrize(("dry_run", "outcome"), [(False, "done"), (True, "planned")])
def test_past_max_changes_the_rest_is_refused_and_recorded(
    agent, act, world, caplog, dry_run, outcome
):
    agent.set("act", max_changes=4)

    def body(context):
        batch(context, world.change_all)
        batch(context, world.change_all)
        assert context.change("sync", target="x", do=world.change("x")).outcome == "refused"

    run = act(body, dry_run)
    assert (run.outcome, run.counters) == ("limited", {outcome: 4, "refused": 3})
    assert world.changed == ([] if dry_run else ["i0", "i1", "i2", "i0"])
    assert [row[0] for row in recorded(agent, "outcome")] == [outcome] * 4 + ["refused"] * 3
    assert "2 changes (sync) refused, the first of them i1" in caplog.text
    assert "max_changes = 4" in caplog.text


def test_a_change_that_failed_counts_towards_the_limit(agent, act):
    agent.set("act", max_changes=1)

    def body(context):
        context.change("stop", target="i1", do=fail)
        context.change("stop", target="i2", do=lambda: None)

    assert act(body).counters == {"failed": 1, "refused": 1}


def test_each_run_has_the_limit_to_itself(agent, act):
    agent.set("act", max_changes=1)
    for _ in range(2):
        run = act(lambda context: context.change("stop", target="i1", do=lambda: None))
        assert run.counters == {"done": 1}


# Written before it is carried out


def test_a_change_is_in_the_journal_before_it_is_carried_out(agent, act):
    seen = []

    def look(*_):
        seen.extend(recorded(agent, "target", "outcome"))

    act(lambda context: batch(context, look, n=2))
    assert seen == [("i0", "started"), ("i1", "started")]
    assert recorded(agent, "outcome") == [("done",), ("done",)]


def test_without_a_journal_nothing_is_changed(agent, act, world):
    def body(context):
        agent.journal._store.connection.execute("ALTER TABLE changes RENAME TO lost")
        context.change("stop", target="i1", do=world.change("i1"))

    run = act(body)
    assert world.calls == 0
    assert run.outcome == "failed"
    assert "The journal" in run.error


KILLED_IN_A_CHANGE = """
import os, pathlib, sys
from cepheid import concurrency
if os.environ["CEPHEID_TEST_CONCURRENCY"] == "eventlet":
    concurrency.patch()
from tests.core.test_run import Act
from tests.fake_agent import FakeAgent
agent = FakeAgent(pathlib.Path(sys.argv[1]))
task = agent.build(Act)

def body(context):
    context.change("stop", target="i1", do=lambda: None)
    context.change("stop", target="i2", do=lambda: os._exit(9))

task.do = body
agent.clock.sleep(600)
task.periodic_tasks()
"""


def python(code, *arguments):
    mode = "eventlet" if concurrency.is_green() else "threading"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={"CEPHEID_TEST_CONCURRENCY": mode, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_change_the_agent_died_in_is_on_record_as_unknown(agent):
    with python(KILLED_IN_A_CHANGE, agent.state_path) as process:
        assert process.wait(30) == 9
    assert recorded(agent, "target", "outcome") == [("i1", "done"), ("i2", "started")]
    assert agent.journal.runs()[0]["outcome"] == "running"
    assert agent.journal.mark_interrupted() == 1
    assert recorded(agent, "target", "outcome") == [("i1", "done"), ("i2", "unknown")]
    assert agent.journal.runs()[0]["outcome"] == "interrupted"
    assert agent.journal.mark_interrupted() == 0
    agent.clock.sleep(600)
    assert agent.build(Act).seconds_to_next_run() == 600  # what killed it is not run at once


# A run


def test_a_run_is_recorded_with_its_time_and_provenance(agent, act):
    agent.clock.sleep(5)
    run = act(lambda context: agent.clock.sleep(3))
    (row,) = agent.journal.runs()
    assert row["task"] == "act"
    assert row["trigger"] == "test"
    assert row["started_at"] == "2026-11-23T12:00:05.000000"
    assert row["duration_seconds"] == 3
    assert row["outcome"] == "ok"
    assert row["request_id"] == run.request_id
    assert run.request_id.startswith("req-")


def test_the_context_is_an_administrators_and_new_in_each_run(act):
    contexts = []
    act(contexts.append)
    act(contexts.append)
    assert all(isinstance(context, oslo_context.RequestContext) for context in contexts)
    assert all(context.is_admin for context in contexts)
    assert contexts[0].request_id != contexts[1].request_id


def test_an_error_of_the_task_ends_the_run_as_failed_and_is_logged_once_with_traceback(act, caplog):
    run = act(fail)
    assert (run.outcome, run.error) == ("failed", "OSError: [Errno 28] No space left on device")
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "act failed: OSError" in record.getMessage()
    assert "Traceback" in record.getMessage()


def test_an_error_of_ours_is_logged_in_one_line(act, caplog):
    def be_away(context):
        raise errors.CepheidError("The database does not answer")

    act(be_away)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "act failed: The database does not answer"
    ]


def test_an_error_is_logged_when_it_is_handled_no_more(act):
    """oslo.log ends a line with the error that is being handled, which the line has already."""
    handled = []

    class Look(logging.Handler):
        def emit(self, record):
            handled.append(sys.exc_info()[0])

    logger, look = logging.getLogger("cepheid.act"), Look(logging.ERROR)
    logger.addHandler(look)
    try:
        act(fail)
    finally:
        logger.removeHandler(look)
    assert handled == [None]


def test_what_was_changed_before_the_error_stays_recorded(agent, act, world):
    def body(context):
        context.change("stop", target="i1", do=world.change("i1"))
        raise KeyError("i2")

    run = act(body)
    assert (run.outcome, run.counters) == ("failed", {"done": 1})
    assert recorded(agent, "target", "outcome") == [("i1", "done")]


def test_an_exit_goes_out_and_the_run_has_failed(agent, act):
    with pytest.raises(SystemExit):
        act(lambda context: sys.exit(3))
    assert agent.journal.runs()[0]["outcome"] == "failed"
    assert agent.journal.runs()[0]["error"] == "SystemExit: 3"
    assert agent.runner.active == []
    assert act(lambda context: None).outcome == "ok"


class Late(BaseException):
    """As eventlet.Timeout: no Exception."""


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, Late])
def test_whatever_else_a_task_raises_ends_the_run_as_failed(agent, act, caplog, error):
    def give_up(context):
        raise error("after 5 s")

    for _ in range(2):
        run = act(give_up)
        assert (run.outcome, run.error) == ("failed", f"{error.__name__}: after 5 s")
    assert [row["outcome"] for row in agent.journal.runs()] == ["failed", "failed"]
    assert "Traceback" in caplog.text
    assert agent.runner.active == []


def test_counters_count(act):
    def body(context):
        context.count("instances", 17)
        context.count("instances")
        context.count("none", 0)

    assert act(body).counters == {"instances": 18}


def test_a_skipped_item_makes_the_run_partial(act):
    run = act(lambda context: context.skip("i1", "created_at is NULL"))
    assert (run.outcome, run.counters) == ("partial", {"skipped": 1})


def test_a_run_is_recorded_though_the_journal_lost_it_at_the_end(agent, act, caplog):
    def body(context):
        agent.journal._store.connection.execute("ALTER TABLE runs RENAME TO lost")

    assert act(body).outcome == "ok"
    assert "act ended (ok), but: The journal" in caplog.text


def test_an_end_that_the_journal_could_not_take_is_recorded_with_the_next(agent, act, monkeypatch):
    def be_full(run):
        raise errors.JournalError("The journal cannot be written: disk full")

    with monkeypatch.context() as patched:
        patched.setattr(agent.journal, "end_run", be_full)
        act(lambda context: context.count("instances", 3))
    assert [row["outcome"] for row in agent.journal.runs()] == ["running"]
    act(lambda context: None)
    assert [row["outcome"] for row in agent.journal.runs()] == ["ok", "ok"]
    assert agent.journal.verify().flaws == []


# Notices


def messages(caplog, level=logging.WARNING):
    found = [r.getMessage() for r in caplog.records if r.levelno == level]
    caplog.clear()
    return found


def test_a_notice_is_said_once_while_it_lasts_and_when_it_is_over(act, caplog):
    caplog.set_level(logging.INFO)

    def warn(context):
        context.notice("disk", "the disk is nearly full")

    act(warn)
    assert messages(caplog) == ["act: the disk is nearly full"]
    act(warn)
    act(warn)
    assert messages(caplog) == []
    act(lambda context: None)
    assert messages(caplog, logging.INFO) == ["Over: act: the disk is nearly full"]
    act(lambda context: None)
    assert messages(caplog, logging.INFO) == []
    act(warn)
    assert messages(caplog) == ["act: the disk is nearly full"]


def test_a_notice_whose_words_change_is_said_again(act, caplog):
    act(lambda context: context.notice("disk", "90 % full"))
    act(lambda context: context.notice("disk", "95 % full"))
    assert messages(caplog) == ["act: 90 % full", "act: 95 % full"]


def test_a_skipped_item_is_named_once_while_it_lasts(act, caplog):
    for _ in range(3):
        act(lambda context: context.skip("i1", "created_at is NULL"))
    assert messages(caplog) == ["act: i1 skipped: created_at is NULL"]


def test_a_run_that_failed_tells_nothing_of_what_is_over(act, caplog):
    caplog.set_level(logging.INFO)
    act(lambda context: context.skip("i1", "bad"))
    caplog.clear()
    act(fail)
    assert messages(caplog, logging.INFO) == []
    act(lambda context: context.skip("i1", "bad"))
    assert messages(caplog) == []


def test_a_task_that_fails_again_and_again_says_so_once_and_when_it_is_over(act, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(3):
        act(fail)
    assert len(messages(caplog, logging.ERROR)) == 1
    act(lambda context: None)
    assert messages(caplog, logging.INFO) == [
        "Over: act failed: OSError: [Errno 28] No space left on device"
    ]


def test_a_change_that_fails_again_and_again_says_so_once(act, caplog):
    for _ in range(3):
        act(lambda context: context.change("stop", target="i1", do=fail))
    assert messages(caplog) == ["stop of i1 failed: OSError: [Errno 28] No space left on device"]


# Overlapping


def test_a_task_does_not_overlap_itself_in_this_process(agent, act):
    inside, go_on = threading.Event(), threading.Event()

    def wait(context):
        inside.set()
        go_on.wait(30)

    thread = threading.Thread(target=act, args=[wait])
    thread.start()
    eventually(inside.is_set)
    assert [run.task for run in agent.runner.active] == ["act"]
    with pytest.raises(errors.Busy, match="act is running already"):
        act(lambda context: None)
    go_on.set()
    thread.join()
    assert act(lambda context: None).outcome == "ok"
    assert len(agent.journal.runs()) == 2


RUN_UNTIL_TOLD = """
import os, pathlib, sys
from cepheid import concurrency
if os.environ["CEPHEID_TEST_CONCURRENCY"] == "eventlet":
    concurrency.patch()
from tests.core.test_run import Act
from tests.fake_agent import FakeAgent
agent = FakeAgent(pathlib.Path(sys.argv[1]))
task = agent.build(Act)

def body(context):
    print("inside", flush=True)
    sys.stdin.readline()

task.do = body
print(agent.run(task).outcome, flush=True)
"""


def test_a_task_does_not_overlap_itself_in_another_process(agent, act):
    with python(RUN_UNTIL_TOLD, agent.state_path) as process:
        assert process.stdout.readline() == "inside\n"
        with pytest.raises(errors.Busy, match="act is running in another process"):
            act(lambda context: None)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ok\n"
        assert process.wait(30) == 0
    assert act(lambda context: None).outcome == "ok"


def test_the_lock_of_a_process_that_died_is_free(agent, act):
    with python(RUN_UNTIL_TOLD, agent.state_path) as process:
        assert process.stdout.readline() == "inside\n"
        process.kill()
    assert act(lambda context: None).outcome == "ok"


def test_a_lock_file_that_cannot_be_made_is_named(agent, act):
    (agent.state_path / "cepheid-locks").write_text("a file, not a directory")
    with pytest.raises(errors.CepheidError, match="cepheid-locks/act cannot be opened"):
        act(lambda context: None)
    assert agent.journal.runs() == []


def test_something_else_than_a_task_may_run_through_the_same_door(agent, world):
    run = Run("host_adopt", "cepheid", "operator", False, agent.clock.utcnow())
    agent.runner.execute(run, lambda context: batch(context, world.change_all), max_changes=2)
    assert (run.outcome, world.changed) == ("limited", ["i0", "i1"])
    assert agent.journal.runs("host_adopt")[0]["outcome"] == "limited"


# Observers


class Witness(Observer):
    def __init__(self, agent):
        super().__init__(agent)
        self.seen = []

    def run_started(self, run):
        self.seen.append(("started", run.task, run.outcome))

    def run_ended(self, run):
        self.seen.append(("ended", run.task, run.outcome, len(run.changes)))


class Broken(Observer):
    """Raises whenever it is told of something."""

    def __init__(self, agent, error=RuntimeError):
        super().__init__(agent)
        self.error = error

    def run_started(self, run):
        raise self.error("no")

    run_overdue = run_ended = run_started


class Hanging(Observer):
    """Does not return from the end of a run until it is let."""

    def __init__(self, agent):
        super().__init__(agent)
        self.inside, self.go_on = threading.Event(), threading.Event()

    def run_ended(self, run):
        self.inside.set()
        self.go_on.wait(30)


def test_observers_are_told_when_a_run_starts_and_ends(agent, act):
    witness = Witness(agent)
    agent.runner.observers = [witness]
    act(lambda context: context.change("stop", target="i1", do=fail))
    assert witness.seen == [("started", "act", "running"), ("ended", "act", "partial", 1)]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
def test_an_observer_that_fails_harms_neither_the_run_nor_the_others(agent, act, caplog, error):
    witness = Witness(agent)
    agent.runner.observers = [Broken(agent, error), witness]
    for _ in range(2):
        assert act(lambda context: None).outcome == "ok"
    assert [event[0] for event in witness.seen] == ["started", "ended"] * 2
    assert "Broken" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
def test_an_observer_that_fails_over_an_overdue_run_does_not_stop_the_supervisor(agent, act, error):
    agent.runner.observers = [Broken(agent, error)]
    agent.set("act", time_limit=10)

    def be_slow(context):
        agent.clock.sleep(11)
        assert len(agent.runner.report_overdue()) == 1

    assert act(be_slow).outcome == "overdue"


def test_an_interruption_on_the_main_thread_goes_out_of_an_observer(agent, act):
    agent.runner.observers = [Broken(agent, KeyboardInterrupt)]
    with pytest.raises(KeyboardInterrupt):
        act(lambda context: None)
    assert agent.runner.active == []


def test_a_run_whose_observer_hangs_goes_on_and_is_reported_once_with_its_stack(agent, act, caplog):
    observer = Hanging(agent)
    agent.runner.observers = [observer]
    thread = threading.Thread(target=act, args=[lambda context: None])
    thread.start()
    eventually(observer.inside.is_set)
    assert outcomes_under_way(agent) == ["running"]
    agent.clock.sleep(ENDING_SECONDS)
    for _ in range(3):
        agent.runner.report_overdue()
    assert outcomes_under_way(agent) == ["overdue"]
    (said,) = messages(caplog, logging.ERROR)
    assert "act ended (ok) 60 seconds ago, but the journal or an observer" in said
    assert "self.go_on.wait(30)" in said
    with pytest.raises(errors.Busy):
        act(lambda context: None)
    assert agent.journal.runs()[0]["outcome"] == "ok"
    observer.go_on.set()
    thread.join()
    assert outcomes_under_way(agent) == []
    assert act(lambda context: None).outcome == "ok"


def outcomes_under_way(agent):
    return [run["outcome"] for run in snapshot.take(agent, {}, {})["runs"]]


def test_the_log_tells_of_a_run_that_changed_something_and_else_is_quiet(agent, act, caplog):
    caplog.set_level(logging.INFO)
    agent.runner.observers = [LogObserver(agent)]
    act(lambda context: context.count("instances", 3))
    assert messages(caplog, logging.INFO) == []
    act(lambda context: context.change("stop", target="i1", do=lambda: None))
    act(lambda context: context.change("stop", target="i1", do=lambda: None), dry_run=True)
    assert messages(caplog, logging.INFO) == [
        "act: ok in 0.000 s (done 1)",
        "act (dry run): ok in 0.000 s (planned 1)",
    ]


def test_an_agent_on_the_same_state_sees_the_runs_of_the_one_before(agent, act):
    act(lambda context: None)
    other = FakeAgent(agent.state_path)
    assert [run["task"] for run in other.journal.runs()] == ["act"]
    other.close()
