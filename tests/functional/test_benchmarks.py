# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, in small, and write what they promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import available

pytestmark = [pytest.mark.functional, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]


def check_passes(figures):
    """Passes cost as many statements and calls for 10 instances as for 1,000."""
    counts = {}
    for cost in figures:
        costs = counts.setdefault((cost["task"], cost["database"]), {})
        costs[cost["instances"]] = (cost["statements"], cost["calls"], cost["rows"])
    assert len(counts) == 17 * 2
    assert {name: of_one for name, of_one in counts.items() if of_one[10] != of_one[1000]} == {}


def check_timers(figures):
    """All of them turn their timers."""
    made = {one["subject"]: one.get("calls_made") for one in figures}
    assert len(made) == 8
    # A second of seventeen timers; one at the border may be counted or not.
    assert {name: calls for name, calls in made.items() if not calls or calls < 8} == {}


#: What else is to be seen in the figures of some.
CHECKS = {"passes": check_passes, "timers": check_timers}


@pytest.mark.parametrize("name", available())
def test_a_benchmark_runs_in_small(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--into", tmp_path, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ".. list-table::" in (tmp_path / f"{name}.rst").read_text()
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["figures"]
    assert "processors" in found["machine"]
    CHECKS.get(name, lambda figures: None)(found["figures"])


def test_a_benchmark_that_is_not_there_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--into", tmp_path, "no_such"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "there is no benchmark no_such" in done.stderr
    assert not list(tmp_path.iterdir())
