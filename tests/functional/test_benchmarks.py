# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, in small, and write what they promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import available

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

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


def check_nova_peers(figures):
    """Nova and Cepheid both did it, and Cepheid's counts do not come from a loop."""
    assert len(figures) == 19
    assert len({one["task"] for one in figures}) == 16
    assert all(one["nova_statements"] for one in figures)
    power = next(one for one in figures if one["task"] == "sync_power_states")
    assert (power["nova_statements"], power["statements"], power["calls"]) == (11, 1, 1)
    assert {one["did"] for one in figures if one["did"] is not None} == {10}


def check_fleet(figures):
    """The load comes back after the outage, and nothing else does."""
    assert set(figures) == {"mariadb", "postgresql"}
    for found in figures.values():
        assert found["refused_runs"]
        assert found["start"]["failed_runs"] == found["after"]["failed_runs"] == 0
        assert found["after"]["statements"] > 100


#: What else is to be seen in the figures of some.
CHECKS = {
    "fleet": check_fleet,
    "nova_peers": check_nova_peers,
    "passes": check_passes,
    "timers": check_timers,
}


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
