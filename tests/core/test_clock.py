# SPDX-License-Identifier: Apache-2.0
"""What wakes a thread that waits."""

import threading

import pytest

from cepheid.clock import Alarm, Clock
from cepheid.testing.clock import FakeClock


@pytest.mark.parametrize("clock", [Clock(), FakeClock()], ids=["real", "fake"])
def test_an_alarm_that_was_set_before_is_not_waited_for(clock):
    alarm = Alarm()
    alarm.set()
    alarm.set()
    assert alarm.is_set()
    assert clock.wait(alarm, 60)


def test_an_alarm_that_ended_a_wait_is_cleared():
    alarm = Alarm()
    alarm.set()
    assert alarm.wait(60)
    assert not alarm.is_set()
    assert not alarm.wait(0)


def test_an_alarm_that_was_cleared_wakes_nobody():
    alarm = Alarm()
    alarm.set()
    alarm.clear()
    alarm.clear()
    assert not alarm.is_set()
    assert not alarm.wait(0)


def test_an_alarm_wakes_who_waits_without_a_limit():
    alarm, woken = Alarm(), []
    thread = threading.Thread(target=lambda: woken.append(alarm.wait()))
    thread.start()
    alarm.set()
    thread.join(60)
    assert woken == [True]
