# SPDX-License-Identifier: Apache-2.0
"""Asking all tasks about one object: order, what stands above a task, and what is on record."""

import datetime
import importlib.metadata
import json

import pytest

import cepheid
from cepheid import errors, explaining
from cepheid.cli import explanations
from cepheid.explanation import Kind, Subject
from cepheid.loading import Plugin
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, Run

SUBJECT = Subject("instance", "web", frozenset({"web"}), {"host": "host1", "task_state": None})
NOON = datetime.datetime(2026, 11, 23, 12, 0)


class Acting(cepheid.Task):
    """Act."""

    explains = {"instance": "instances"}

    @periodic_task
    def acting(self, context):
        context.change("poke", "web", 1, 2, "it sleeps", do=lambda: None)


class Leaving(cepheid.Task):
    """Leave it alone."""

    explains = {"instance": "instances"}

    @periodic_task
    def leaving(self, context):
        context.explain("web", "it is well", until="it is not")


class Broken(cepheid.Task):
    """Break when asked."""

    @periodic_task
    def broken(self, context):
        pass

    def explain(self, subject):
        raise RuntimeError("no idea")


class Mute(cepheid.Task):
    """Say nothing."""

    @periodic_task
    def mute(self, context):
        pass


@pytest.fixture
def host(agent):
    """An agent with these tasks, as if they were installed."""
    for factory in (Leaving, Mute, Broken, Acting):
        task = agent.build(factory)
        point = importlib.metadata.EntryPoint(task.name, f"tests:{task.name}", "cepheid.tasks")
        agent.plugins.append(
            Plugin("cepheid.tasks", task.name, "acme", "1", point, "enabled", factory=factory)
        )
        agent.tasks[task.name] = task
    return agent


def ask(host, live=None, only=None):
    found, _ = explaining.explain(host, SUBJECT, live, only)
    return {one.task: one for one in found}


def test_those_come_first_that_have_most_to_say(host):
    found = ask(host)
    assert list(found) == ["acting", "broken", "leaving", "mute"]
    kinds = [one.kind for one in found.values()]
    assert kinds == [Kind.ACTS, Kind.UNKNOWN, Kind.LEAVES, None]


def test_an_error_in_one_task_is_one_line_of_that_task(host):
    assert ask(host)["broken"].verdicts[0].text == "explaining failed: RuntimeError: no idea"


def test_one_task_may_be_asked_alone_and_must_be_there(host):
    assert list(ask(host, only="leaving")) == ["leaving"]
    with pytest.raises(errors.NoSuchTask):
        ask(host, only="sleeping")


def test_a_task_that_failed_to_load_says_why(host):
    host.plugins[0].state, host.plugins[0].reason = "failed", "no module named foo"
    one = ask(host)["leaving"]
    assert (one.state, one.reason, one.verdicts) == ("failed", "no module named foo", None)


def test_what_stands_above_a_task_is_told(host, clock):
    host.journal.pauses.pause("acting", NOON, None, "new switch", "alice")
    host.set("acting", dry_run=True)
    row = {"name": "acting", "distribution": "acme", "next_run_seconds": 7.0, "running": True}
    one = ask(host, {"tasks": [row]})["acting"]
    assert one.next_run_seconds == 7.0
    assert one.notes == [
        "paused by alice until resumed: new switch",
        "it is running now",
        "dry_run is set: it records changes and makes none",
    ]


def test_the_last_run_and_the_last_change_of_the_object_come_from_the_journal(host, clock):
    host.run(host.tasks["acting"])
    clock.sleep(60)
    host.run(host.tasks["acting"], dry_run=True)
    host.run(host.tasks["leaving"])
    found = ask(host)
    assert found["acting"].last_run["dry_run"] == 1
    assert found["acting"].last_change["outcome"] == "done"
    assert found["acting"].last_change["started_at"] == "2026-11-23T12:00:00.000000"
    assert found["leaving"].last_change is None


def test_changes_that_no_task_made_are_told_apart(host):
    run = Run("instance_stop", "cepheid", "operator", False, NOON)
    host.runner.execute(
        run, lambda context: context.change_many("stop", [Change("web", 1, 4)], lambda _: None)
    )
    tasks, others = explaining.explain(host, SUBJECT, None)
    assert [change["kind"] for change in others] == ["stop"]
    assert all(one.last_change is None for one in tasks)


def test_what_a_task_that_is_not_asked_has_changed_is_no_commands_change(host):
    host.run(host.tasks["acting"])
    _, others = explaining.explain(host, SUBJECT, None, only="leaving")
    assert others == []


def test_the_last_changes_are_read_once_for_all(host):
    sent = []
    host.journal._store.connection.set_trace_callback(sent.append)
    explaining.explain(host, SUBJECT, None)
    host.journal._store.connection.set_trace_callback(None)
    assert len([statement for statement in sent if "FROM changes" in statement]) == 1


def test_the_page_has_what_is_to_be_said_and_condenses_the_rest(host, capsys):
    host.run(host.tasks["acting"])
    tasks = list(ask(host).values())
    explanations.show(SUBJECT, tasks, [], NOON, is_live=False)
    page = capsys.readouterr().out
    assert page.startswith("web, an instance\n")
    for words in (
        "task_state  NULL",
        "acts     ",
        "poke: 1 → 2",
        "last change of it: poke 1 → 2, 0 s ago: done (run 1)",
        "until: it is not",
        "Do not explain themselves:\nmute",
    ):
        assert words in page, page
    assert max(map(len, page.splitlines())) <= explanations.WIDTH
    assert not any(line.endswith(" ") for line in page.splitlines())


def test_all_of_it_is_json(host):
    found = explanations.as_dict(SUBJECT, ask(host).values(), [])
    tasks = {task["task"]: task for task in json.loads(json.dumps(found))["tasks"]}
    assert tasks["acting"]["comes_to"] == "acts"
    assert tasks["mute"]["explains_itself"] is False
