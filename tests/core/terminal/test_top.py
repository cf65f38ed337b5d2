# SPDX-License-Identifier: Apache-2.0
"""``cepheid top`` on a real pseudo-terminal, beside a real agent, with keys pressed."""

import contextlib
import re
import signal
import sqlite3
import sys

import pytest

from cepheid.journal import FILE_NAME, Journal
from tests.functional.processes import wait_until
from tests.terminals import TerminalProgram

pytestmark = pytest.mark.process

LEFT = b"\x1b[?1049l"  # the whole screen is given back
CURSOR = b"\x1b[?25h"


@pytest.fixture
def top(installation):
    """Start it on a terminal."""
    started = []

    def start(*words, environment=None, columns=80, lines=24):
        found = {**installation.environment, **(environment or {})}
        del found["COLUMNS"]
        command = [sys.executable, "-m", "cepheid", "--config-file", installation.conf, "top"]
        started.append(
            TerminalProgram([*command, "--interval", "0.2", *words], found, columns, lines)
        )
        return started[-1]

    yield start
    for program in started:
        program.close()


def is_put_back(terminal):
    """Tell whether the terminal is as it was: its settings, its screen, its cursor."""
    restored = terminal.written.rindex(LEFT) > terminal.written.rindex(b"\x1b[?1049h")
    shown = terminal.written.rindex(CURSOR) > terminal.written.rindex(b"\x1b[?25l")
    return restored and shown and terminal.settings == terminal.settings_before


def test_a_run_is_watched_run_again_paused_and_resumed_by_keys(installation, top):
    installation.start_agent()
    screen = top()
    screen.wait_for("░ 2/4")
    assert "far: Change one thing after the other." in screen.text
    (installation.path / "go").touch()
    screen.wait_for("done 4")
    screen.type("d")
    screen.wait_for("far: ok (dry run) in ")
    assert "planned 4" in screen.text
    screen.type("r")
    screen.wait_for("Run far now?")
    screen.type("n")
    screen.wait_for("far is left as it is.")
    screen.type("ry")
    screen.wait_for("far: ok in ")
    outcomes = [row["Result"] for row in installation.rows("task", "history", "far")]
    assert (outcomes.count("done"), outcomes.count("planned")) == (8, 4)
    screen.type("p")
    screen.wait_for("Pause far")
    screen.type("2h a new swithc\x7f\x7fch\r")
    screen.wait_for("far: paused by")
    screen.wait_for("‖ far")
    assert "a new switch" in screen.text
    screen.type("r")
    screen.type("y")
    screen.wait_for("far is not run: paused by")
    screen.type("p")
    screen.wait_for("Resume it? y: yes")
    screen.type("y")
    screen.wait_for("far: resumed")
    screen.wait_for("all is well")
    screen.type("q")
    assert screen.end() == 0
    assert is_put_back(screen)


def test_a_lost_agent_is_shown_and_comes_back_by_itself(installation, top):
    (installation.path / "go").touch()
    installation.start_agent()
    screen = top()
    screen.wait_for("all is well")
    installation.stop_agent()
    screen.wait_for("No agent answers since ")
    assert "far" in screen.text
    screen.type("d")
    screen.wait_for("No agent answers, so nothing is run")
    installation.start_agent()
    screen.wait_for("all is well")
    screen.type("q")
    assert screen.end() == 0


def test_without_an_agent_it_shows_the_journal_until_one_comes(installation, top):
    screen = top()
    screen.wait_for("host1: no agent answers")
    (installation.path / "go").touch()
    installation.start_agent()
    screen.wait_for("all is well")
    screen.type("q")
    assert screen.end() == 0


def test_an_error_that_nobody_has_thought_of_is_shown_and_ends_no_look(installation, top):
    path = installation.path / FILE_NAME
    Journal(path).close()
    screen = top()
    screen.wait_for("host1: no agent answers")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO runs (task, distribution, trigger, dry_run, request_id, started_at,"
            " lateness_seconds, outcome) VALUES ('far', 'acme', 'timer', 0, '', 'soon', 0, 'ok')"
        )
        screen.wait_for("ValueError: Invalid isoformat string: 'soon'")
        connection.execute("DELETE FROM runs")
    (installation.path / "go").touch()
    installation.start_agent()
    screen.wait_for("all is well")
    screen.type("q")
    assert screen.end() == 0


def test_it_fills_a_terminal_that_is_resized(installation, top):
    (installation.path / "go").touch()
    installation.start_agent()
    screen = top()
    screen.wait_for("all is well")
    wait_until(lambda: screen.lines[23].startswith("q quit"), lambda: screen.text)
    screen.resize(160, 40)
    wait_until(lambda: screen.lines[39].startswith("q quit"), lambda: screen.text)
    screen.wait_for("Counted")
    screen.resize(40, 10)
    wait_until(lambda: screen.lines[9].startswith("q quit"), lambda: screen.text)
    assert any("far" in line for line in screen.lines)
    screen.type("q")
    assert screen.end() == 0


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda screen: screen.type("\x03"), 0),
        (lambda screen: screen.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda screen: screen.process.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
        (lambda screen: screen.type("\x1c"), 128 + signal.SIGQUIT),
    ],
    ids=["ctrl-c", "sigterm", "sighup", "ctrl-backslash"],
)
def test_however_it_ends_the_terminal_is_put_back(installation, top, end, status):
    screen = top()
    screen.wait_for("no agent answers")
    assert screen.settings != screen.settings_before
    end(screen)
    assert screen.end() == status
    assert is_put_back(screen)


def test_while_it_is_stopped_the_terminal_is_the_shells(installation, top):
    screen = top()
    screen.wait_for("no agent answers")
    screen.type("\x1a")
    screen.wait_until_stopped()
    assert screen.lines
    assert is_put_back(screen)
    screen.process.send_signal(signal.SIGCONT)
    wait_until(lambda: screen.lines and not is_put_back(screen))
    screen.type("q")
    assert screen.end() == 0
    assert is_put_back(screen)


def test_it_draws_with_ascii_alone_where_that_is_wanted(installation, top):
    screen = top("--ascii", environment={"NO_COLOR": "1"})
    screen.wait_for("X host1: no agent answers")
    assert screen.text.isascii()
    screen.type("q")
    screen.end()
    assert b"\x1b[" in screen.written
    assert re.search(rb"\x1b\[(\d+;)*[34]\dm", screen.written) is None  # colours


def test_without_a_terminal_it_says_so_in_one_line(installation):
    done = installation.run("top", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cepheid: top needs a terminal; 'cepheid status' does without.\n"


def test_on_a_dumb_terminal_it_says_so_in_one_line(installation, top):
    screen = top(environment={"TERM": "dumb"})
    assert screen.end() == 1
    assert b"\x1b" not in screen.written
    assert "top cannot draw on a terminal of TERM = dumb" in screen.text


def test_a_bar_is_shown_while_a_task_is_run_here(installation):
    command = [sys.executable, "-m", "cepheid", "--config-file", installation.conf]
    environment = {**installation.environment}
    del environment["COLUMNS"]
    screen = TerminalProgram([*command, "task", "run", "far"], environment)
    try:
        screen.wait_for("2/4")
        (installation.path / "go").touch()
        assert screen.end() == 0
        assert "far: ok in" in screen.text
        assert "2/4" not in screen.text
    finally:
        screen.close()
