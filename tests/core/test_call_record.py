# SPDX-License-Identifier: Apache-2.0
import pytest

from cepheid.call_record import CallRecord


class NobodyThere(Exception):
    pass


def make(record, name, error=None):
    try:
        with record.call(name):
            if error is not None:
                raise error
    except type(error or Exception()):
        pass


def test_counts_and_times_calls_by_name():
    record = CallRecord(NobodyThere)
    for name in ("a", "b", "a"):
        make(record, name)
    record.add("c", 2.5)
    assert {name: totals.calls for name, totals in record.totals.items()} == {
        "a": 2,
        "b": 1,
        "c": 1,
    }
    assert record.totals["c"].seconds == 2.5
    assert record.totals["a"].seconds >= 0


def test_an_error_that_was_the_answer_is_an_answer():
    record = CallRecord(NobodyThere)
    make(record, "a", NobodyThere("no route"))
    assert record.standing.answered_at is None
    assert record.standing.failure == "NobodyThere: no route"
    make(record, "a", ValueError("no such thing"))
    assert record.standing.failed_at is None
    assert record.standing.answered_at is not None
    assert record.failures == {"refused": 1, "unanswered": 1}


def test_tells_what_has_been_going_on_the_longest():
    record = CallRecord(NobodyThere)
    with record.call("first"), record.call("second"):
        assert record.standing.under_way[0] == "first"
    assert record.standing.under_way is None


def test_an_exit_inside_is_no_failure_of_the_driver():
    record = CallRecord(NobodyThere)
    with pytest.raises(SystemExit), record.call("a"):
        raise SystemExit
    assert record.standing.failed_at is None
