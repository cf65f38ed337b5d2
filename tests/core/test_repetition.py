# SPDX-License-Identifier: Apache-2.0
import pytest

from cepheid import repetition


def change(number, outcome="failed", **values):
    return {"id": number, "task": "far", "kind": "reap", "target": "i1", "before": "on",
            "after": "off", "outcome": outcome, "error": "no", "reason": f"at {number}",
            "dry_run": 0, **values}  # fmt: skip


def streaks(*changes):
    """Return the ids of each streak; the changes are given oldest first."""
    return [[change["id"] for change in streak] for streak in repetition.streaks(reversed(changes))]


@pytest.mark.parametrize("outcome", ["failed", "planned", "raced", "refused"])
def test_what_left_a_target_as_it_was_again_and_again_is_one_streak(outcome):
    assert streaks(*[change(n, outcome) for n in (1, 2, 3)]) == [[3, 2, 1]]


@pytest.mark.parametrize("outcome", ["done", "unknown", "started"])
def test_what_did_something_or_may_have_is_alone(outcome):
    assert streaks(change(1, outcome), change(2, outcome)) == [[2], [1]]


def test_what_happens_to_other_targets_meanwhile_ends_no_streak():
    other = {"target": "i2"}
    assert streaks(
        change(1), change(2, "done", **other), change(3), change(4, **other), change(5)
    ) == [[5, 3, 1], [4], [2]]


def test_a_success_between_ends_a_streak():
    assert streaks(change(1), change(2), change(3, "done"), change(4)) == [[4], [3], [2, 1]]


@pytest.mark.parametrize(
    "other",
    [{"error": "gone"}, {"after": "away"}, {"before": None}, {"dry_run": 1}, {"task": "near"},
     {"kind": "stop"}],
)  # fmt: skip
def test_what_differs_is_another_streak(other):
    assert streaks(change(1), change(2, **other)) == [[2], [1]]


def test_a_reason_may_differ():
    assert streaks(change(1, reason="40 s old"), change(2, reason="100 s old")) == [[2, 1]]
