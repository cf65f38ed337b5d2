# SPDX-License-Identifier: Apache-2.0
"""The line of the last hour: what was worst in each stretch of it."""

import pytest

from cepheid.terminal.timeline import by_task, kind_of, kinds, unix_seconds
from tests.overviews import document, run, task

HOUR = 3600


def line(*runs, cells=6):
    """Return what is seen in each ten minutes, as the first letters of the kinds."""
    found = document(task("far"), runs=runs)
    rows = by_task(found["runs"]).get("far", [])
    return "".join(kind[0] for kind in kinds(rows, unix_seconds(found["at"]), HOUR, cells))


def test_without_runs_there_is_nothing_in_it():
    assert line() == "nnnnnn"


def test_the_newest_run_is_at_the_right():
    assert line(run(2, "far", 1), run(1, "far", 59)) == "onnnno"


def test_the_worst_of_a_stretch_is_what_is_seen():
    runs = [
        run(4, "far", 2),
        run(3, "far", 3, outcome="failed"),
        run(2, "far", 4, outcome="partial"),
        run(1, "far", 11, counters={"done": 1}),
    ]
    assert line(*runs) == "nnnnce"


def test_a_long_run_is_seen_for_as_long_as_it_took():
    assert line(run(1, "far", 45, duration_seconds=1560.0)) == "noooon"


def test_one_that_goes_on_is_seen_up_to_now():
    assert line(run(1, "far", 25, outcome="running", duration_seconds=None)) == "nnnrrr"


def test_one_that_began_before_the_hour_is_seen_from_its_beginning():
    assert line(run(1, "far", 90, duration_seconds=HOUR)) == "ooonnn"


def test_the_runs_of_a_further_method_are_its_plugins():
    assert line(run(2, "far.away", 1, outcome="failed"), run(1, "near", 30)) == "nnnnne"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "ok"),
        ({"counters": {"done": 3}}, "changed"),
        ({"counters": {"planned": 3}, "dry_run": 1}, "ok"),
        ({"lateness_seconds": 31.0}, "warning"),
        ({"outcome": "partial", "counters": {"done": 3}}, "warning"),
        ({"outcome": "limited"}, "warning"),
        ({"outcome": "overdue"}, "warning"),
        ({"outcome": "failed"}, "error"),
        ({"outcome": "interrupted", "duration_seconds": None}, "error"),
        ({"outcome": "something new"}, "error"),
        ({"outcome": "running", "duration_seconds": None}, "running"),
    ],
)
def test_what_a_run_was(values, kind):
    (row,) = document(runs=[run(1, "far", **values)])["runs"]["rows"]
    assert kind_of(row) == kind
