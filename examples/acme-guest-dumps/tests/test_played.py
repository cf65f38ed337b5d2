# SPDX-License-Identifier: Apache-2.0
"""Days of an agent with this task, played in milliseconds."""

import os

import pytest
from acme_guest_dumps.prune_guest_dumps import PruneGuestDumps

from cepheid.testing import Player

DAY = 86400


@pytest.fixture
def player(tmp_path):
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    settings = f"[prune_guest_dumps]\npath = {dumps}\nmax_changes = 2\n"
    with Player(PruneGuestDumps, settings=settings) as player:
        noon = player.clock.utcnow().timestamp()
        for age_days in (1, 31, 60, 90):
            dump = dumps / f"web-{age_days}"
            dump.touch()
            os.utime(dump, (noon - age_days * DAY,) * 2)
        player.dumps = dumps
        yield player


def left(player):
    return sorted(dump.name for dump in player.dumps.iterdir())


def test_old_dumps_go_two_a_day_the_oldest_first(player):
    assert player.play(hours=23).runs == []
    played = player.play(hours=2)
    assert played.outcomes == ["limited"]
    assert left(player) == ["web-1", "web-31"]
    assert player.play(hours=24).outcomes == ["ok"]
    assert left(player) == ["web-1"]


def test_a_dry_run_plans_and_deletes_nothing(player):
    run = player.run("prune_guest_dumps", dry_run=True)
    assert [change.outcome for change in run.changes] == ["planned", "planned", "refused"]
    assert len(left(player)) == 4


def test_another_limit_counts_from_the_reload_on(player):
    player.reload(f"[prune_guest_dumps]\npath = {player.dumps}\nmax_age_days = 100\n")
    assert player.play(hours=25).changes == []


def test_an_agent_that_is_killed_goes_on_where_it_was(player):
    player.play(hours=23)
    player.crash()
    assert len(player.play(hours=2).runs) == 1


def test_a_directory_that_cannot_be_read_fails_the_run_and_deletes_nothing(player):
    player.reload(f"[prune_guest_dumps]\npath = {player.dumps}/nowhere\n")
    assert player.play(hours=25).outcomes == ["failed"]
    assert len(left(player)) == 4
