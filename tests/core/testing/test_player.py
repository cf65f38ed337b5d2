# SPDX-License-Identifier: Apache-2.0
"""Hours of an agent, played: what runs when, and what goes wrong meanwhile."""

import logging
import threading
from pathlib import Path

import pytest
from oslo_config import cfg

import cepheid
from cepheid import errors
from cepheid.periodic_task import periodic_task
from cepheid.testing import Crash, FakeClock, Player, half, stale, without
from tests.distributions import Distributions


class Box:
    """A driver of kind ``box``: things that can be thrown away."""

    def __init__(self, *things):
        self.things = list(things)

    @property
    def size(self):
        return len(self.things)

    def names(self):
        return list(self.things)

    def throw_away(self, name):
        self.things.remove(name)


class TidyBox(cepheid.Task):
    """Throw away what is in the box."""

    options = [cfg.StrOpt("keep", default="", help="What stays.")]
    drivers = ("box",)

    def __init__(self, agent):
        super().__init__(agent)
        self.box = agent.driver("box")

    @periodic_task(spacing=600)
    def tidy_box(self, context):
        for name in self.box.names():
            if name != self.conf.keep:
                context.change(
                    "throw_away",
                    target=name,
                    reason="it is there",
                    do=lambda name=name: self.box.throw_away(name),
                )


class CountBox(cepheid.Task):
    """Count what is in the box."""

    drivers = ("box",)

    @periodic_task(spacing=60, run_immediately=True)
    def count_box(self, context):
        context.count("things", self.agent.driver("box").size)


@pytest.fixture
def play():
    """Make players, and end them."""
    made = []

    def play(*tasks, things=("a", "b"), **options):
        player = Player(*tasks or (TidyBox,), drivers={"box": Box(*things)}, **options)
        made.append(player)
        return player.start()

    yield play
    for player in made:
        player.close()


def test_plays_hours_with_every_run_at_its_time(play):
    player = play(CountBox, TidyBox, things=())
    played = player.play(hours=3)
    assert len(played.of("tidy_box").runs) == 18
    # At once, and each minute from then on, less the registry's jitter.
    assert 180 <= len(played.of("count_box").runs) <= 190
    assert set(played.outcomes) == {"ok"}
    assert player.clock.monotonic() == 1000 + 3 * 3600
    assert player.play(hours=1).of("tidy_box").outcomes == ["ok"] * 6
    assert len(player.runs) > len(played.runs)


def test_what_is_played_twice_is_the_same(play):
    def one():
        played = play(CountBox, TidyBox).play(minutes=45)
        return [(run.task, run.started_at, run.outcome, run.counters) for run in played.runs]

    assert one() == one()


def test_changes_are_real_in_the_world_of_the_drivers(play):
    player = play()
    played = player.play(minutes=11)
    assert [(c.kind, c.target, c.outcome) for c in played.changes] == [
        ("throw_away", "a", "done"), ("throw_away", "b", "done"),
    ]  # fmt: skip
    assert player.driver("box").things == []
    assert player.fault("box").counted == {"names": 1, "throw_away": 2}
    assert player.play(minutes=30).changes == []
    assert player.changes == played.changes


def test_a_run_on_demand_and_a_dry_run(play):
    player = play()
    run = player.run("tidy_box", dry_run=True)
    assert [change.outcome for change in run.changes] == ["planned", "planned"]
    assert player.driver("box").things == ["a", "b"]
    assert player.run("tidy_box").outcome == "ok"
    assert player.driver("box").things == []


def test_a_reload_takes_effect_and_loses_no_run(play):
    player = play()
    player.play(minutes=9)
    player.reload("[tidy_box]\nkeep = a\n")
    assert len(player.play(minutes=2).runs) == 1
    assert player.driver("box").things == ["a"]
    player.reload("disabled_tasks = tidy_box\n")
    assert player.play(hours=1).runs == []


def test_a_reload_leaves_the_tests_log_alone(play, caplog):
    caplog.set_level(logging.INFO)
    player = play()
    player.reload("[tidy_box]\nkeep = a\n")
    player.fault("box").vanish()
    player.play(minutes=11)
    assert "tidy_box failed" in caplog.text


def test_a_bad_configuration_is_told_at_the_start(play):
    with pytest.raises(errors.ConfigError, match=r"\[tidy_box\] spacing"):
        play(settings="[tidy_box]\nspacing = often\n")


def test_a_restart_neither_resets_nor_repeats_a_spacing(play):
    player = play()
    player.play(minutes=5)
    player.restart()
    assert player.play(minutes=4).runs == []
    assert len(player.play(minutes=2).runs) == 1


def test_a_pause_holds_the_runs_until_it_is_over(play):
    player = play()
    player.pause("tidy_box", "new shelf", seconds=1800)
    assert player.play(minutes=29).runs == []
    assert len(player.play(minutes=3).runs) == 1
    player.pause()
    assert player.play(hours=1).runs == []
    player.resume()
    assert len(player.play(minutes=1).runs) == 1


def test_what_hangs_ends_at_its_deadline_and_delays_no_other_task(play):
    player = play(TidyBox, CountBox)
    player.fault("box").block("names", seconds=300)
    played = player.play(minutes=16)
    (tidy,) = played.of("tidy_box").runs
    assert (tidy.outcome, tidy.duration_seconds) == ("failed", 300)
    assert "names did not return within 300 seconds" in tidy.error
    assert len(played.of("count_box").runs) >= 16
    player.fault("box").recover()
    assert player.play(minutes=10).of("tidy_box").outcomes == ["ok"]


def test_what_hangs_is_answered_when_it_is_released(play):
    player = play()
    player.fault("box").block(seconds=7200)
    assert player.play(minutes=30).runs == []
    player.fault("box").release()
    # And the run that was due meanwhile comes at once.
    assert player.play(seconds=1).outcomes == ["ok", "ok"]


def test_a_run_past_its_time_limit_is_reported_while_it_hangs(play):
    player = play(settings="[tidy_box]\ntime_limit = 60\n")
    player.fault("box").block(seconds=7200)
    player.play(minutes=15)
    (active,) = player.agent.runner.active
    assert active.outcome == "overdue"


@pytest.mark.parametrize("error", [None, ConnectionResetError("gone")])
def test_a_vanished_driver_fails_the_run_and_comes_back(play, error):
    player = play()
    player.fault("box").vanish(error=error)
    played = player.play(minutes=25)
    assert played.outcomes == ["failed", "failed"]
    assert ("gone" if error else "the connection is gone") in played.runs[0].error
    player.fault("box").recover()
    assert player.play(minutes=10).outcomes == ["ok"]


def test_lies_are_half_lists_missing_items_and_answers_of_earlier(play):
    player = play(things=("a", "b", "c"))
    player.fault("box").lie("names", half)
    assert [change.target for change in player.run("tidy_box", dry_run=True).changes] == ["a", "c"]
    player.fault("box").lie("names", without("a"))
    assert [change.target for change in player.run("tidy_box", dry_run=True).changes] == ["b", "c"]
    player.fault("box").lie("names", stale(["gone"]))
    (change,) = player.run("tidy_box").changes
    assert change.outcome == "failed"
    assert half({"a": 1, "b": 2}) == {"a": 1}
    assert without("a")({"a": 1, "b": 2}) == {"b": 2}


@pytest.mark.parametrize(("after", "left"), [(False, ["a", "b"]), (True, ["b"])])
def test_an_agent_that_dies_in_a_call_is_started_again_with_what_was_on_record(play, after, left):
    player = play()
    player.crash_in("box", "throw_away", after=after)
    player.play(minutes=10, seconds=1)
    assert player.driver("box").things == left
    (run,) = player.agent.journal.runs("tidy_box")
    assert run["outcome"] == "interrupted"
    (change,) = player.agent.journal.changes([run["id"]])
    assert (change["target"], change["outcome"]) == ("a", "unknown")
    assert player.runs == []
    # The run that was cut off is not made again before the next one is due.
    assert player.play(minutes=11).outcomes == ["ok"]
    assert player.driver("box").things == []


def test_a_run_on_demand_in_which_the_agent_dies_says_so(play):
    player = play()
    player.crash_in("box", "names")
    with pytest.raises(Crash):
        player.run("tidy_box")
    assert player.run("tidy_box").outcome == "ok"


def test_an_agent_that_dies_between_two_runs_keeps_its_schedule(play):
    player = play()
    player.play(minutes=9)
    player.crash()
    assert len(player.play(minutes=2).runs) == 1


def test_a_task_may_be_named_where_it_is_installed(tmp_path, play):
    site = tmp_path / "site"
    site.mkdir()
    installed = Distributions(site)
    try:
        installed.add_task("acme", "sweep")
        player = play("sweep", path=tmp_path / "player")
        assert player.play(minutes=5).of("sweep").outcomes == ["ok"] * 5
        assert player.runs[0].distribution == "acme"
    finally:
        installed.remove()
    with pytest.raises(errors.NoSuchTask):
        play("swoop")


def test_a_kind_without_a_double_is_named():
    player = Player()
    try:
        with pytest.raises(errors.PluginError, match="offers a double of the shelf driver"):
            player.driver("shelf")
    finally:
        player.close()


def test_a_player_leaves_no_thread_and_no_directory(play):
    before = threading.active_count()
    with Player(TidyBox, drivers={"box": Box()}) as player:
        path = Path(player.path)
        player.play(hours=1)
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert not path.exists()


def test_the_clock_shows_what_it_is_set_to():
    clock = FakeClock()
    noon = clock.utcnow()
    clock.sleep(60)
    clock.set_utc(noon)
    assert (clock.utcnow(), clock.monotonic()) == (noon, 1060)
