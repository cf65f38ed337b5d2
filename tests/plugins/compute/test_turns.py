# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, where a pass may not see to all."""

import pytest

from cepheid_plugins.compute.turns import Turns

LIMIT = 2


def passes(turns, due, failing, number):
    """Let so many passes see to two each; return whom they saw to."""
    seen = []
    for _ in range(number):
        admitted = turns.in_order(due)[:LIMIT]
        failed = [uuid for uuid in admitted if uuid in failing]
        turns.enter(due, failed)
        due = [uuid for uuid in due if uuid not in admitted or uuid in failing]
        seen.append("".join(admitted))
    return seen


def test_where_none_has_failed_the_order_stays():
    assert Turns(list).in_order("cab") == ["c", "a", "b"]


@pytest.mark.parametrize("failing", ["ab", "abcd", "abcdef"])
def test_however_many_fail_each_of_the_others_has_its_turn(failing):
    assert "g" in "".join(passes(Turns(list), [*"abcdefg"], failing, 4))


def test_those_that_fail_are_tried_again_in_turn():
    assert passes(Turns(list), [*"abcde"], "abcde", 5) == ["ab", "cd", "ea", "bc", "de"]


def test_what_failed_before_a_restart_waits_as_it_would_have_without_one():
    turns = Turns(lambda: ["b", "a"])
    assert turns.in_order("abcd") == ["c", "d", "b", "a"]
    turns.enter("abcd", "c")
    assert turns.failed == ["b", "a", "c"]


def test_what_has_failed_is_recalled_once_and_only_for_somebody_who_is_due():
    asked = []
    turns = Turns(lambda: asked.append(1) or ["a"])
    assert turns.in_order("") == []
    assert asked == []
    assert turns.in_order("ab") == turns.in_order("ab") == ["b", "a"]
    assert asked == [1]
    turns.enter("", "")
    assert turns.in_order("ab") == ["a", "b"]
    assert asked == [1]


def test_what_is_no_longer_due_is_forgotten():
    turns = Turns(list)
    turns.enter("ab", "a")
    turns.enter("b", "")
    assert turns.in_order("ab") == ["a", "b"]
