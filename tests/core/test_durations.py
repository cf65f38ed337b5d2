# SPDX-License-Identifier: Apache-2.0
import datetime

import pytest

from cepheid import durations, errors

NOON = datetime.datetime(2026, 11, 23, 12, 0)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("30min", 1800),
        ("2h", 7200),
        ("1.5h", 5400),
        ("1d12h", 129600),
        (" 1 d 12 h ", 129600),
        ("2W", 1209600),
    ],
)
def test_reads_a_duration(words, seconds):
    assert durations.parse(words).total_seconds() == seconds


@pytest.mark.parametrize("words", ["", "2", "h", "2x", "-2h", "2h ago", "PT2H", "1h2"])
def test_refuses_what_is_none(words):
    with pytest.raises(errors.CepheidError, match="is not a duration; write it as 45s"):
        durations.parse(words)


@pytest.mark.parametrize("words", ["0s", "11000d", "9" * 400 + "d"])
def test_refuses_what_cannot_be_meant(words):
    with pytest.raises(errors.CepheidError, match="is not between nothing and ten years"):
        durations.parse(words)


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("2026-11-23T18:30Z", datetime.datetime(2026, 11, 23, 18, 30)),
        ("2026-11-23 18:30:01+02:00", datetime.datetime(2026, 11, 23, 16, 30, 1)),
    ],
)
def test_reads_a_time(words, at):
    assert durations.parse_time(words, NOON) == at


def test_a_time_without_a_zone_is_local():
    local = datetime.datetime(2027, 1, 5, 18, 30)
    wanted = local.astimezone(datetime.UTC).replace(tzinfo=None)
    assert durations.parse_time("2027-01-05T18:30", NOON) == wanted


def test_refuses_a_time_that_is_none_or_over():
    with pytest.raises(errors.CepheidError, match="is not a time"):
        durations.parse_time("tomorrow", NOON)
    with pytest.raises(errors.CepheidError, match="is over: now it is 2026-11-23 12:00:00 UTC"):
        durations.parse_time("2026-11-23T11:00Z", NOON)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")]
)
def test_says_it_in_words(seconds, words):
    assert durations.in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45, "45 s"),
        (60, "60 s"),
        (600, "10 min"),
        (2400, "40 min"),
        (150, "150 s"),
        (9000, "150 min"),
        (86400, "24 h"),
        (2592000, "30 d"),
        (3601, "3601 s"),
        (2.5, "2.5 s"),
        (1234567, "1234567 s"),
    ],
)
def test_says_what_somebody_has_set_without_rounding_it(seconds, words):
    assert durations.exactly(seconds) == words
