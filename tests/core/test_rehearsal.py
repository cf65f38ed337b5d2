# SPDX-License-Identifier: Apache-2.0
"""Rehearsals: what a pass says of one object is heard, and nothing else happens."""

import datetime
import logging

import pytest

import cepheid
from cepheid.explanation import Kind, Subject
from cepheid.periodic_task import periodic_task
from cepheid.run import Change

LATER = datetime.datetime(2026, 11, 24)


class Row:
    def __init__(self, uuid):
        self.uuid = uuid


class Sweep(cepheid.Task):
    """Sweep."""

    explains = {"instance": "crumbs"}
    max_changes = 2

    def __init__(self, agent):
        super().__init__(agent)
        self.done = []
        self.error = None

    @periodic_task
    def sweep(self, context):
        rows = [Row(name) for name in "abcdef"]
        for row in context.asked(rows):
            if row.uuid == "e":
                context.explain(
                    "e", "too young", rule="max_changes", changes_at=LATER, evidence={"age": 1}
                )
        context.change_many(
            "sweep", [Change(name, 1, 0, f"{name} lies about") for name in "abc"], self.done.extend
        )
        context.skip("d", "it is a stone")
        context.notice(("crumb", "d"), "d is heavy")
        if self.error is not None:
            raise self.error


@pytest.fixture
def task(agent):
    return agent.build(Sweep)


def said(task, name, kind="instance"):
    return task.explain(Subject(kind, name, frozenset({name})))


def test_a_change_that_is_planned_is_what_it_would_do(task):
    (verdict,) = said(task, "a")
    assert (verdict.kind, verdict.text) == (Kind.ACTS, "a lies about")
    assert verdict.evidence == {"change": "sweep", "before": 1, "after": 0}


def test_what_max_changes_leaves_over_is_said_to_wait(task):
    (verdict,) = said(task, "c")
    assert (verdict.kind, verdict.rule) == (Kind.REFUSED, "max_changes = 2")


def test_skips_and_notices_of_the_object_are_heard_and_no_others(task):
    assert [verdict.kind for verdict in said(task, "d")] == [Kind.SKIPS, Kind.WARNS]


def test_what_is_left_alone_says_why_with_the_rule_and_its_value(task):
    (verdict,) = said(task, "e")
    assert verdict.as_dict() == {
        "verdict": "leaves",
        "text": "too young",
        "rule": "max_changes = 2",
        "evidence": {"age": 1},
        "changes_at": "2026-11-24 00:00:00",
        "until": "",
    }


def test_an_object_that_nothing_is_said_of_is_none_of_the_tasks(task):
    (verdict,) = said(task, "f")
    assert (verdict.kind, verdict.text) == (Kind.UNCONCERNED, "crumbs")


def test_a_kind_that_it_does_not_look_at_is_not_rehearsed(task):
    task.error = ValueError("not to be reached")
    (verdict,) = said(task, "a", "file")
    assert (verdict.kind, verdict.text) == (Kind.UNCONCERNED, "crumbs")


def test_a_pass_that_fails_is_not_known_and_keeps_what_it_said_before(task):
    task.error = ValueError("bad")
    assert [v.kind for v in said(task, "a")] == [Kind.ACTS, Kind.UNKNOWN]
    assert said(task, "f")[-1].text == "ValueError: bad"
    task.error = SystemExit(3)
    assert said(task, "f")[-1].kind is Kind.UNKNOWN


def test_nothing_is_changed_recorded_logged_or_locked(task, agent, caplog):
    caplog.set_level(logging.DEBUG)
    before = sorted(agent.state_path.rglob("*"))
    for name in "abcdef":
        said(task, name)
    assert (task.done, agent.journal.runs(), agent.journal.newest_changes()) == ([], [], [])
    assert agent.runner.under_way == []
    assert sorted(agent.state_path.rglob("*")) == before
    assert caplog.records == []


def test_in_a_run_nobody_is_asked_about(task, agent):
    assert agent.run(task).counters == {"done": 2, "refused": 1, "skipped": 1}
    assert [change.target for change in task.done] == ["a", "b"]


def test_what_is_said_of_whatever_there_is_switches_the_task_off(agent):
    class Rest(cepheid.Task):
        """Rest."""

        explains = {"instance": "everything"}

        @periodic_task
        def rest(self, context):
            context.explain(None, "it is Sunday", rule="the calendar")

    (verdict,) = said(agent.build(Rest), "a")
    assert (verdict.kind, verdict.rule) == (Kind.OFF, "the calendar")


def test_a_task_that_does_not_say_what_it_looks_at_is_not_rehearsed(agent):
    class Mute(cepheid.Task):
        """Do something."""

        @periodic_task
        def mute(self, context):
            raise AssertionError("rehearsed")

    assert said(agent.build(Mute), "a") is None
