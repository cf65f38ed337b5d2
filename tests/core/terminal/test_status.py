# SPDX-License-Identifier: Apache-2.0
"""``cepheid status`` in processes of its own: beside a real agent, and without one."""

import json
import signal

import pytest

pytestmark = pytest.mark.process


def status(installation, *words):
    """Return the exit status and what was printed."""
    done = installation.run("status", *words, check=False)
    return done.returncode, done.stdout


def document(installation):
    return json.loads(status(installation, "-f", "json")[1])


def test_a_run_is_seen_while_it_goes_on_and_when_it_has_ended(installation, wait_for_task):
    installation.start_agent()
    wait_for_task(lambda task: task["run"] and task["run"]["done"] == 2)
    code, text = status(installation)
    assert "2/4" in text
    assert code == 0
    (installation.path / "go").touch()
    wait_for_task(lambda task: task["last_run"])
    code, text = status(installation)
    assert text.splitlines()[0] == "▪ host1: all is well"
    assert "thing 0 → 1  far" in text
    assert "\x1b" not in text
    assert code == 0


def test_what_is_not_well_is_the_exit_status(installation, wait_for_task):
    (installation.path / "go").touch()
    (installation.path / "fail").touch()
    installation.start_agent()
    wait_for_task(lambda task: task["last_run"])
    assert status(installation, "--brief") == (
        2,
        "✖ host1 is failing: 1 error: far: its last run failed: OSError: it fell\n",
    )
    (installation.path / "fail").unlink()
    installation.run("task", "run", "far")
    installation.run("pause", "far", "--reason", "a new switch")
    code, text = status(installation, "--brief", "--ascii")
    assert code == 1
    assert text.startswith("! host1 needs a look: 1 warning: far: paused by ")
    assert text.endswith(": a new switch. 'cepheid resume far' ends it.\n")


def test_without_an_agent_the_journal_is_shown(installation, wait_for_task):
    (installation.path / "go").touch()
    installation.start_agent()
    wait_for_task(lambda task: task["last_run"])
    installation.stop_agent()
    code, text = status(installation)
    lines = text.splitlines()
    assert code == 3
    assert lines[0] == "✖ host1: no agent answers"
    assert "last 6 h: 1 run, 4 changes" in lines[1]
    assert "No agent answers on " in text
    assert "The last run on record, far, began " in text
    (line,) = [line for line in lines if line.split()[1:3] == ["far", "ok"]]
    assert "60 min" in line
    assert "thing 0 → 1  far" in text
    assert document(installation)["health"]["state"] == "unknown"


def test_without_an_agent_and_a_journal_it_says_so_and_makes_none(installation):
    code, text = status(installation)
    assert code == 3
    assert "There is no journal " in text
    assert [path.name for path in installation.path.glob("*.sqlite*")] == []


def test_an_agent_that_hangs_is_given_up(installation, wait_for_task):
    (installation.path / "go").touch()
    installation.start_agent()
    wait_for_task(lambda task: task["last_run"])
    installation.signal_agent(signal.SIGSTOP)
    try:
        code, text = status(installation)
    finally:
        installation.signal_agent(signal.SIGCONT)
    assert code == 3
    assert "has not answered within 5 s" in text
    assert "thing 0 → 1  far" in text


def test_a_configuration_that_cannot_be_read_is_not_known(installation):
    installation.conf.write_text("[DEFAULT\n")
    code, text = status(installation)
    assert (code, text) == (3, "")


def test_a_terminal_that_knows_ascii_alone_gets_ascii(installation):
    installation.environment["PYTHONIOENCODING"] = "ascii"
    _, text = status(installation)
    assert text.startswith("X host1: no agent answers")
    assert text.isascii()
