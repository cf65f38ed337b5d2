# SPDX-License-Identifier: Apache-2.0
"""Audit periods: the reference's table, the calendar's corners, and numbers out of range."""

import datetime

import pytest

from cepheid import errors
from cepheid_plugins.compute.audit_periods import last_completed


def at(text):
    return datetime.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("unit", "now", "begin", "end"),
    [
        ("hour", "2017-06-15 10:30", "2017-06-15 09:00", "2017-06-15 10:00"),
        ("hour", "2017-06-15 10:00:00", "2017-06-15 08:00", "2017-06-15 09:00"),
        ("hour@15", "2017-06-15 10:30", "2017-06-15 09:15", "2017-06-15 10:15"),
        ("hour@45", "2017-06-15 10:30", "2017-06-15 08:45", "2017-06-15 09:45"),
        ("day", "2012-03-05 08:12:23", "2012-03-04", "2012-03-05"),
        ("day@6", "2017-03-01 05:59", "2017-02-27 06:00", "2017-02-28 06:00"),
        ("day@6", "2017-03-01 06:00:01", "2017-02-28 06:00", "2017-03-01 06:00"),
        ("month", "2017-01-01 00:00:00", "2016-11-01", "2016-12-01"),
        ("month", "2017-01-01 00:00:01", "2016-12-01", "2017-01-01"),
        ("month@15", "2017-01-10", "2016-11-15", "2016-12-15"),
        ("month@15", "2017-02-20", "2017-01-15", "2017-02-15"),
        ("month@0", "2017-05-05", "2017-04-01", "2017-05-01"),
        ("year@3", "2017-02-01", "2015-03-01", "2016-03-01"),
        ("year@3", "2017-04-01", "2016-03-01", "2017-03-01"),
    ],
)
def test_the_period_that_ended_last(unit, now, begin, end):
    assert last_completed(unit, at(now)) == (at(begin), at(end))


@pytest.mark.parametrize(
    ("unit", "now", "begin", "end"),
    [
        ("day", "2024-03-01 00:00:01", "2024-02-29", "2024-03-01"),
        ("month", "2024-03-01 00:00:01", "2024-02-01", "2024-03-01"),
        ("month@29", "2024-03-05", "2024-01-29", "2024-02-29"),
        ("month@31", "2023-03-15", "2023-01-31", "2023-02-28"),
        ("month@31", "2023-05-31 12:00", "2023-04-30", "2023-05-31"),
        ("year@2", "2024-02-29", "2023-02-01", "2024-02-01"),
        # Where clocks are set forward in Europe; these are not.
        ("hour", "2026-03-29 02:30", "2026-03-29 01:00", "2026-03-29 02:00"),
        ("day", "2026-03-30 00:00:01", "2026-03-29", "2026-03-30"),
    ],
)
def test_leap_days_short_months_and_daylight_saving(unit, now, begin, end):
    assert last_completed(unit, at(now)) == (at(begin), at(end))


@pytest.mark.parametrize("unit", ["hour", "hour@59", "day@23", "month@31", "year@12"])
def test_periods_follow_each_other_without_a_gap(unit):
    now = at("2023-11-17 11:13:17")
    begin, end = last_completed(unit, now)
    for _ in range(40):
        assert begin < end < now
        before, begins = last_completed(unit, end + datetime.timedelta(microseconds=1))
        assert (before, begins) == (begin, end)
        earlier = last_completed(unit, end)
        assert earlier.end == begin
        begin, end, now = *earlier, end


@pytest.mark.parametrize("unit", ["hour@60", "day@24", "month@32", "year@13", "week", "month@", ""])
def test_what_is_no_period_is_refused_by_the_options_name(unit):
    with pytest.raises(errors.ConfigError, match="instance_usage_audit_period"):
        last_completed(unit, at("2017-06-15"))
