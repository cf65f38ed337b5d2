# SPDX-License-Identifier: Apache-2.0
"""Durations as an operator writes and reads them."""

from __future__ import annotations

import datetime
import re

from cepheid import errors

UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[wdhms])\s*", re.IGNORECASE)

_SHOWN = (("d", 86400), ("h", 3600), ("min", 60))

#: Longer is a slip of the finger, and soon past what a calendar can hold.
LONGEST_SECONDS = 10 * 366 * 86400


def parse(words: str) -> datetime.timedelta:
    """Read a duration such as ``2h``, ``90m``, ``1d 12h`` or ``45 s``.

    :raises CepheidError: it is none, or is zero or longer than ten years
    """
    text = words.strip()
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        raise errors.CepheidError(
            f"{words!r} is not a duration; write it as 45s, 30m, 2h, 1d, 2w or 1d12h."
        )
    seconds = sum(float(number) * UNITS[unit.lower()] for number, unit in parts)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise errors.CepheidError(
            f"{words!r} is not between nothing and ten years; leave it out for no end."
        )
    return datetime.timedelta(seconds=seconds)


def parse_time(words: str, now: datetime.datetime) -> datetime.datetime:
    """Read a time to come, ISO 8601, local unless it says otherwise; return it in UTC, naive.

    :param now: in UTC, naive
    :raises CepheidError: it is none, or is over
    """
    try:
        at = datetime.datetime.fromisoformat(words.strip())
    except ValueError:
        raise errors.CepheidError(
            f"{words!r} is not a time; write it as 2026-11-24T18:30, or 2026-11-24T18:30Z for UTC."
        ) from None
    at = at.astimezone(datetime.UTC).replace(tzinfo=None)
    if at <= now:
        raise errors.CepheidError(f"{words!r} is over: now it is {now:%Y-%m-%d %H:%M:%S} UTC.")
    return at


def in_words(seconds: float) -> str:
    """Return a number of seconds as a person would say it: ``42 s``, ``3 min``, ``5 h``."""
    for unit, length in _SHOWN:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def exactly(seconds: float) -> str:
    """Return a number of seconds that somebody has set, as :func:`in_words` but never rounded.

    It is in the largest unit that it is a whole number of: ``40 min``, but ``150 s``.
    """
    for unit, length in _SHOWN:
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.15g} s"
