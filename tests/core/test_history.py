# SPDX-License-Identifier: Apache-2.0
"""``cepheid task history`` of a journal in which a change has failed at each pass."""

import datetime

import pytest

from cepheid.journal import FILE_NAME, Journal
from cepheid.run import Change, Run
from tests.functional.agents import Installation

NOON = datetime.datetime(2026, 11, 23, 12, 0)

pytestmark = pytest.mark.process


@pytest.fixture
def host(tmp_path):
    """A host where one change has failed once a minute since noon, and others were made."""
    journal = Journal(tmp_path / FILE_NAME)
    for minute in range(30):
        made = [Change("stuck", "on", "off", "why", "reap", "failed", "busy")]
        if minute in (4, 20):
            made.append(Change(f"i{minute}", "on", "off", "why", "reap", "done"))
        run = Run("far", "acme", "timer", False, NOON + datetime.timedelta(minutes=minute))
        journal.start_run(run)
        journal.add_changes(run, made)
        journal.complete_changes(made)
        run.outcome, run.duration_seconds = "partial", 0.5
        journal.end_run(run)
    journal.close()
    return Installation(tmp_path, "")


def table(host, *words):
    """Return the rows of the table that people see."""
    lines = host.run("task", "history", *words).stdout.splitlines()
    names, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines
                    if line.startswith("|")]  # fmt: skip
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize("words", [(), ("far",), ("--changed",), ("--limit", "3")])
def test_people_see_what_failed_again_once_with_how_often_and_since_when(host, words):
    rows = table(host, *words)
    assert [row["Target"] for row in rows] == ["i4", "i20", "stuck"]
    assert [row["Times"] for row in rows] == ["", "", "30"]
    assert (rows[-1]["Started"], rows[-1]["Since"], rows[-1]["Result"]) == (
        "2026-11-23T12:29:00", "2026-11-23T12:00:00", "failed: busy",
    )  # fmt: skip


@pytest.mark.parametrize("limit", ["0", "-1", "many", str(10**18)])
def test_a_number_of_runs_that_cannot_be_is_refused(host, limit):
    said = host.run("task", "history", f"--limit={limit}", check=False)
    assert said.returncode == 2
    assert "a number from 1 to 1000000 is wanted" in said.stderr


def test_each_is_listed_to_who_asks_for_that_and_to_scripts(host):
    rows = table(host, "--each", "--limit", "10")
    assert [row["Target"] for row in rows] == ["stuck", "i20", *["stuck"] * 9]
    assert "Times" not in rows[0]
    scripts = host.rows("task", "history", "--limit", "10")
    assert [row["Target"] for row in scripts] == [row["Target"] for row in rows]
    assert scripts[0].keys().isdisjoint({"Times", "Since"})
