# SPDX-License-Identifier: Apache-2.0
"""Audit periods: hours, days, months or years that usage is reported for, in UTC.

Source: Nova's option instance_usage_audit_period, and what its utils make of it.
"""

from __future__ import annotations

import calendar
import datetime
import re
from typing import NamedTuple

from oslo_config import cfg

from cepheid import errors

#: ``month@15`` and the like. The number is the minute of the hour, the hour of the day, the day
#: of the month, the month of the year; without one a period begins with its unit.
PATTERN = r"^(hour|day|month|year)(@([0-9]+))?$"

#: The numbers that each unit may begin at.
_NUMBERS = {"hour": (0, 59), "day": (0, 23), "month": (0, 31), "year": (0, 12)}

OPTION = cfg.StrOpt(
    "instance_usage_audit_period",
    default="month",
    regex=PATTERN,
    deprecated_opts=[cfg.DeprecatedOpt("instance_usage_audit_period", group="DEFAULT")],
    help="The period that usage is reported for: hour, day, month or year, in UTC. With @ and a "
    "number it begins at that minute of the hour, hour of the day, day of the month or month of "
    "the year: month@15.",
)


class AuditPeriod(NamedTuple):
    """A period that is over: from its beginning until just before its ending."""

    begin: datetime.datetime
    end: datetime.datetime


def last_completed(unit: str, now: datetime.datetime) -> AuditPeriod:
    """Return the newest period that is over.

    At the very instant of a boundary the period before it is not over yet.

    :param unit: as :data:`PATTERN` says. A month that has no such day begins on its last
    :param now: naive, in UTC
    :raises ConfigError: the number is out of range
    """
    name, number = _parsed(unit)
    end = _begin_within(name, number, now)
    if end >= now:
        end = _begin_within(name, number, _a_unit_before(name, end))
    return AuditPeriod(_begin_within(name, number, _a_unit_before(name, end)), end)


def completed(unit: str, now: datetime.datetime, number: int) -> list[AuditPeriod]:
    """Return the last periods that are over, oldest first."""
    periods = [last_completed(unit, now)]
    while len(periods) < number:
        # At its end a period is not over yet: this is the one before.
        periods.append(last_completed(unit, periods[-1].end))
    return periods[::-1]


def _parsed(unit: str) -> tuple[str, int]:
    match = re.match(PATTERN, unit)
    name, number = (match[1], int(match[3] or 0)) if match else ("", 0)
    lowest, highest = _NUMBERS.get(name, (1, 0))
    if not lowest <= number <= highest:
        raise errors.ConfigError(
            f"instance_usage_audit_period = {unit} is no period: after hour@ comes a number up to "
            "59, after day@ up to 23, after month@ up to 31, after year@ up to 12."
        )
    return name, number


def _begin_within(name: str, number: int, at: datetime.datetime) -> datetime.datetime:
    """Return the boundary in the calendar's hour, day, month or year of a time."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    if name == "hour":
        return hour.replace(minute=number)
    if name == "day":
        return hour.replace(hour=number)
    if name == "month":
        last_day = calendar.monthrange(at.year, at.month)[1]
        return hour.replace(hour=0, day=min(max(number, 1), last_day))
    return hour.replace(hour=0, day=1, month=max(number, 1))


def _a_unit_before(name: str, boundary: datetime.datetime) -> datetime.datetime:
    """Return a time in the unit of the calendar before that of a boundary."""
    if name in ("hour", "day"):
        return boundary - datetime.timedelta(**{f"{name}s": 1})
    first = boundary.replace(day=1) if name == "month" else boundary.replace(day=1, month=1)
    return first - datetime.timedelta(days=1)
