# SPDX-License-Identifier: Apache-2.0
"""What wakes a thread that waits."""

import threading

import pytest

from cepheid import alarm as alarms
from cepheid.clock import Clock
from cepheid.testing.clock import FakeClock


@pytest.mark.parametrize("clock", [Clock(), FakeClock()], ids=["real", "fake"])
def test_an_alarm_that_was_set_before_is_not_waited_for(clock):
    alarm = alarms.new()
    alarm.set()
    alarm.set()
    assert alarm.is_set()
    assert clock.wait(alarm, 60)


def test_an_alarm_that_ended_a_wait_is_cleared():
    alarm = alarms.new()
    alarm.set()
    assert alarm.wait(60)
    assert not alarm.is_set()
    assert not alarm.wait(0)


def test_an_alarm_that_was_cleared_wakes_nobody():
    alarm = alarms.new()
    alarm.set()
    alarm.clear()
    alarm.clear()
    assert not alarm.is_set()
    assert not alarm.wait(0)


def test_an_alarm_wakes_who_waits_without_a_limit():
    alarm, woken = alarms.new(), []
    thread = threading.Thread(target=lambda: woken.append(alarm.wait()))
    thread.start()
    alarm.set()
    thread.join(60)
    assert woken == [True]


def test_a_wait_that_nobody_ends_is_over_after_its_seconds():
    alarm = alarms.new()
    assert not alarm.wait(0.01)
    alarm.set()
    assert alarm.wait(60)
