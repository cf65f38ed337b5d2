# SPDX-License-Identifier: Apache-2.0
"""Ages: strictly older, and what has no time is told apart."""

import datetime

from cepheid_plugins.compute.ages import older_than
from tests.worlds import fake_world

NOW = datetime.datetime(2026, 11, 23, 12, 0)


def test_an_age_must_be_more_than_the_seconds_and_unknown_ones_are_told_apart(tmp_path):
    world = fake_world(tmp_path, {})
    for number, seconds in ((1, 60), (2, 61)):
        world.add(number, launched_at=NOW - datetime.timedelta(seconds=seconds))
    world.add(3, launched_at=None)
    rows = world.database.instances_on_host("host1")
    ages = older_than(60, rows, "launched_at", NOW)
    assert [row.display_name for row in ages.old] == ["guest-2"]
    assert [row.display_name for row in ages.unknown] == ["guest-3"]
    world.close()
