# SPDX-License-Identifier: Apache-2.0
import pytest

from cepheid.call_record import Standing
from cepheid.status import health
from cepheid.status.health import Facts, JournalFacts
from cepheid.status.watch import wants_probe

NOW = 10_000.0

RUN = {"task": "slow", "seconds": 90.0, "time_limit_seconds": 60, "outcome": "running",
       "ended_seconds": None}  # fmt: skip
STUCK = {**RUN, "outcome": "overdue", "ended_seconds": 61.0}
TASK = {"name": "mine", "distribution": "acme", "state": "enabled", "reason": ""}


def facts(**what):
    return Facts(**{"now": NOW, "beat": NOW - 0.5, **what})


def failed(found):
    return {check.name: check.text for check in found if check.state == health.FAILED}


def test_an_agent_that_works_is_ready():
    found = health.checks(facts(tasks=[TASK], drivers={"database": Standing(answered_at=NOW - 3)}))
    assert health.is_ready(found)
    assert [(check.name, check.state) for check in found] == [
        ("timers", "ok"),
        ("runs", "ok"),
        ("database", "ok"),
        ("native_calls", "ok"),
        ("journal", "ok"),
        ("tasks", "ok"),
    ]
    assert found[2].text == "it answered 3 s ago"


@pytest.mark.parametrize(
    ("what", "name", "why"),
    [
        ({"beat": NOW - 42}, "timers", "none has turned for 42 s"),
        ({"late_seconds": {"a": 31.0, "b": 29.0}}, "timers", "a is 31 s late"),
        ({"runs": [RUN]}, "runs", "slow has run for 90 s, its time_limit is 60 s"),
        ({"runs": [STUCK]}, "runs", "slow has ended; the journal or an observer hangs over it"),
        ({"drivers": {"x": Standing(NOW - 9, NOW - 1, "refused to connect")}}, "x", "refused"),
        ({"drivers": {"x": Standing(NOW - 50, under_way=("ask", NOW - 21))}}, "x", "ask has not"),
        ({"drivers": {"x": Standing(under_way=("ask", NOW - 21))}}, "x", "ask has not returned"),
        ({"hanging": 64, "max_hanging": 64}, "native_calls", "no more are made"),
        ({"journal": JournalFacts("disk I/O error", 5)}, "journal", "disk I/O error"),
        ({"journal": JournalFacts("", 5000)}, "journal", "5000 bytes are free"),
        ({"is_stopping": True}, "agent", "it is stopping"),
        ({"is_stopping": True, "beat": NOW - 42}, "agent", "it is stopping"),
    ],
)  # fmt: skip
def test_is_not_ready_and_says_why(what, name, why):
    found = health.checks(facts(**what))
    assert not health.is_ready(found)
    assert list(failed(found)) == [name]
    assert why in failed(found)[name]
    assert list(health.sentences(found)) == [f"{name}: {failed(found)[name]}"]


@pytest.mark.parametrize(
    "what",
    [
        {"runs": [{**RUN, "time_limit_seconds": None}, {**RUN, "seconds": 59.0}]},
        {"runs": [{**RUN, "outcome": "overdue", "ended_seconds": 2.0}]},
        {"drivers": {"x": Standing()}},
        {"drivers": {"x": Standing(NOW - 1, under_way=("ask", NOW - 500))}},
        {"drivers": {"x": Standing(NOW - 500, under_way=("ask", NOW - 19))}},
        {"drivers": {"x": Standing(NOW - 500)}},
        {"journal": JournalFacts("", None)},
        {"hanging": 63, "max_hanging": 64},
    ],
)
def test_what_is_no_fault_makes_nothing_unready(what):
    assert failed(health.checks(facts(**what))) == {}


def test_untold_is_what_is_not_seen_of_a_task_or_a_run():
    bad = {**TASK, "name": "bad", "state": "failed"}
    what = facts(tasks=[TASK, bad], runs=[RUN], late_seconds={"mine": 40.0, "other": 50.0})
    assert failed(health.checks(health.untold(what))) == {"timers": "other is 50 s late"}


def test_a_task_that_was_not_loaded_and_a_call_that_hangs_are_warnings():
    bad = {**TASK, "state": "failed", "reason": "the Python module x is missing"}
    found = health.checks(facts(tasks=[TASK, bad], hanging=2))
    assert health.is_ready(found)
    warned = {check.name: check.text for check in found if check.state == health.WARNING}
    assert warned == {
        "native_calls": "2 hang past their deadlines",
        "tasks": "mine of acme: failed: the Python module x is missing",
    }


def test_the_password_in_a_reason_is_not_told():
    bad = {**TASK, "state": "failed", "reason": "cannot reach https://user:secret@host/"}
    (told,) = [check.text for check in health.checks(facts(tasks=[bad])) if check.name == "tasks"]
    assert told == "mine of acme: failed: cannot reach https://user:***@host/"


@pytest.mark.parametrize(
    ("standing", "hanging", "wanted"),
    [
        (Standing(), 0, True),
        (Standing(NOW - 59), 0, False),
        (Standing(NOW - 61), 0, True),
        (Standing(NOW - 61), 1, False),
        (Standing(NOW - 1, NOW - 1, "gone"), 0, True),
        (Standing(NOW - 1, NOW - 1, "gone"), 3, False),
        (Standing(NOW - 30, under_way=("ask", NOW - 11)), 0, True),
        (Standing(NOW - 30, under_way=("ask", NOW - 9)), 0, False),
        (Standing(NOW - 5, under_way=("ask", NOW - 11)), 0, False),
    ],
)
def test_a_driver_is_probed_when_nothing_else_tells_and_nothing_hangs(standing, hanging, wanted):
    assert wants_probe(standing, NOW, hanging) is wanted
