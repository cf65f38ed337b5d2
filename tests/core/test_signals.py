# SPDX-License-Identifier: Apache-2.0
"""Signals as the agent's main loop gets them; in processes of their own, which they may end."""

import signal
import subprocess
import sys

import pytest

from cepheid import concurrency

#: What each of them begins with, on green threads where this test run has those.
BEGIN = """
import os, signal, sys, time
from cepheid import concurrency, signals
if {green}:
    concurrency.patch()

def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)

def settle(watcher, number):
    while number not in watcher._pending:
        time.sleep(0.001)

HUP, TERM = signal.SIGHUP, signal.SIGTERM
"""


def outcome(code):
    """Run `code`; return its exit status and what it printed."""
    begin = BEGIN.format(green=concurrency.is_green())
    done = subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.split()


def test_a_stop_is_not_kept_waiting_by_reloads_that_came_before_it():
    assert outcome("""
watcher = signals.SignalWatcher(lambda: 30)
send(*[HUP] * 3000, TERM)
settle(watcher, TERM)
print(int(watcher.wait(10)))
""") == (0, [str(int(signal.SIGTERM))])


def test_reloads_that_come_before_one_was_begun_are_one():
    assert outcome("""
watcher = signals.SignalWatcher(lambda: 30)
count = 0
send(HUP)
settle(watcher, HUP)
send(*[HUP] * 3000)
while watcher.wait(0.5):
    count += 1
print(1 <= count < 30)  # some may have come while they were received
send(HUP)
print(int(watcher.wait(10)))
""") == (0, ["True", "1"])


def test_a_process_that_does_not_stop_is_ended_after_its_grace_period_whatever_else_comes():
    assert outcome("""
watcher = signals.SignalWatcher(lambda: 0.2)
send(TERM)
while True:
    send(HUP)
""") == (1, [])


@pytest.mark.parametrize("count", [1, 5])
def test_a_reload_that_came_before_there_was_a_watcher_is_made_once(count):
    assert outcome(f"""
signals.remember_reloads()
send(*[HUP] * {count})
watcher = signals.SignalWatcher(lambda: 30)
print(int(watcher.wait(10)), watcher.wait(0.2))
""") == (0, ["1", "None"])


def test_the_agent_outlives_a_reload_before_it_has_read_its_configuration(tmp_path):
    code = """
from cepheid import __main__
from cepheid.cli.app import App
App.run = lambda self, arguments: 7
concurrency.patch = lambda: send(HUP)
__main__.main(["agent", "--config-file", "/dev/null"])
"""
    assert outcome(code) == (7, [])


def test_another_command_is_ended_by_sighup_as_ever():
    code = """
from cepheid import __main__
from cepheid.cli.app import App
App.run = lambda self, arguments: send(HUP)
__main__.main(["status"])
"""
    assert outcome(code) == (-signal.SIGHUP, [])
