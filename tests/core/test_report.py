# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from cepheid import concurrency, snapshot
from cepheid.report import Reporter
from tests.fake_agent import eventually


@pytest.fixture
def waiting():
    """A thread, green or not, that waits in a function of its own."""
    go = threading.Event()
    there = threading.Event()

    def wait_for_the_end():
        there.set()
        go.wait()

    thread = threading.Thread(target=wait_for_the_end, name="one-that-waits")
    thread.start()
    there.wait()
    yield thread
    go.set()
    thread.join()


def on_a_native_thread(call):
    found = []
    thread = concurrency.original("threading").Thread(target=lambda: found.append(call()))
    thread.start()
    eventually(lambda: found)
    return found[0]


def test_has_the_stack_of_every_thread_by_name(agent, tmp_path, waiting):
    reporter = Reporter(tmp_path / "report.txt", lambda: snapshot.take(agent, {}, {}))
    text = on_a_native_thread(reporter.text)
    (stack,) = [part for part in text.split("--- ") if "one-that-waits" in part.splitlines()[0]]
    assert "in wait_for_the_end" in stack
    assert "thread MainThread" in text


def test_a_state_that_cannot_be_read_leaves_the_stacks(tmp_path):
    def fail():
        raise RuntimeError("dictionary changed size during iteration")

    text = Reporter(tmp_path / "report.txt", fail).text()
    assert "State (could not be read)" in text
    assert "RuntimeError: dictionary changed size during iteration" in text
    assert "thread MainThread" in text


def test_a_part_that_cannot_be_read_is_that_part_alone(agent, tmp_path):
    state = snapshot.take(agent, {}, {}) | {"runs": [{}]}
    text = Reporter(tmp_path / "report.txt", lambda: state).text()
    assert "KeyError" in text
    assert "Schedule" in text
    assert "thread MainThread" in text


def test_the_newest_takes_the_place_of_the_one_before(agent, tmp_path):
    reporter = Reporter(tmp_path / "report.txt", lambda: snapshot.take(agent, {}, {}))
    reporter.path.write_text("the one before")
    reporter.write()
    assert reporter.path.read_text().startswith("Agent\n=====\n\nhost:        host1\n")
    assert reporter.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("report*")] == ["report.txt"]


def test_a_place_where_nothing_can_be_written_does_no_harm(agent, tmp_path):
    Reporter(tmp_path / "nowhere" / "report.txt", lambda: {}).write()
