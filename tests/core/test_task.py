# SPDX-License-Identifier: Apache-2.0
import datetime
import fcntl
import itertools
import logging
import random
import sys
import threading
from collections import Counter

import pytest
from oslo_config import cfg

import cepheid
from cepheid import config, errors
from cepheid.agent import Agent
from cepheid.periodic_task import periodic_task
from tests.fake_agent import FakeAgent, FakeClock, LowestRandom, eventually

NOON = datetime.datetime(2026, 11, 23, 12, 0)
HOUR = 3600.0


class Beat(cepheid.Task):
    """Note when it runs.

    More about it.
    """

    max_changes = 7
    time_limit = 10
    nova_spacing = "beat_interval"
    options = (cfg.IntOpt("strength", default=3, deprecated_name="beat_strength",
                          deprecated_group="DEFAULT"),)  # fmt: skip

    def __init__(self, agent):
        super().__init__(agent)
        self.ran_at = []
        self.then = lambda context: None

    @periodic_task(spacing=600)
    def beat(self, context):
        self.ran_at.append(self.agent.clock.monotonic())
        self.then(context)


def live(task, seconds):
    """Do what the task's timer does, for so long."""
    clock = task.agent.clock
    ends_at = clock.monotonic() + seconds
    while clock.monotonic() < ends_at:
        wait = task.periodic_tasks()
        clock.sleep(min(wait, ends_at - clock.monotonic()))


@pytest.fixture
def beat(agent):
    return agent.build(Beat)


def restarted(agent, after=0.0):
    """Return a new agent on the state of an old one: its monotonic clock begins anew."""
    agent.close()
    now = agent.clock.utcnow() + datetime.timedelta(seconds=after)
    return FakeAgent(agent.state_path, clock=FakeClock(now))


# What it is


def test_every_task_has_the_common_options_without_declaring_them(beat):
    assert {name: beat.conf[name] for name in beat.conf} == {
        "enabled": True,
        "spacing": 600,
        "run_immediately": False,
        "time_limit": 10,
        "dry_run": False,
        "max_changes": 7,
        "strength": 3,
    }


def test_a_task_is_named_as_its_first_decorated_method(beat):
    assert beat.name == Beat.task_name() == "beat"


def test_a_class_without_a_decorated_method_is_no_task():
    class Idle(cepheid.Task):
        """Do nothing."""

    with pytest.raises(errors.PluginError, match="Idle has no method decorated with periodic_task"):
        Idle.task_name()


def test_defaults_of_the_common_options_come_from_the_decorator(agent):
    class Rare(cepheid.Task):
        @periodic_task(spacing=-1, run_immediately=True, enabled=False)
        def rare(self, context):
            pass

    rare = agent.build(Rare)
    assert (rare.conf.spacing, rare.conf.run_immediately, rare.conf.enabled) == (-1, True, False)


def test_an_option_of_its_own_takes_the_place_of_the_common_one_of_its_name(agent):
    class Timed(cepheid.Task):
        options = (cfg.IntOpt("time_limit", default=99, max=100),)

        @periodic_task
        def timed(self, context):
            pass

    assert agent.build(Timed).conf.time_limit == 99


def test_a_spacing_of_which_no_date_can_be_made_is_refused(tmp_path):
    agent = FakeAgent(tmp_path, settings="[beat]\nspacing = 1000000000000\n")
    agent.build(Beat)
    with pytest.raises(errors.ConfigError, match=r"\[beat\] spacing in .*less than or equal to 1e"):
        config.check(agent.conf)
    agent.close()


def agent_on(tmp_path, **files):
    paths = []
    for name, text in files.items():
        paths.append(str(tmp_path / f"{name}.conf"))
        (tmp_path / f"{name}.conf").write_text(text)
    conf = config.load(paths)
    conf.register_opts(Beat.all_options(), group="beat")
    return Agent(conf, FakeClock(), LowestRandom())


def test_answers_to_the_names_of_nova_conf(tmp_path):
    agent = agent_on(
        tmp_path,
        nova="[DEFAULT]\nbeat_interval = 77\nbeat_strength = 9\nhost = h\n"
        f"state_path = {tmp_path}\n[libvirt]\nvirt_type = kvm\n",
        cepheid="[DEFAULT]\nobservers =\n",
    )
    beat = Beat(agent)
    assert (beat.conf.spacing, beat.conf.strength) == (77, 9)
    live(beat, 78)
    assert beat.ran_at == [1077]
    agent.close()


def test_its_own_group_wins_over_nova_conf(tmp_path):
    agent = agent_on(
        tmp_path,
        nova="[DEFAULT]\nbeat_interval = 77\n",
        cepheid=f"[DEFAULT]\nstate_path = {tmp_path}\nobservers =\n[beat]\nspacing = 88\n",
    )
    assert Beat(agent).conf.spacing == 88
    agent.close()


def test_the_name_in_nova_conf_may_be_in_another_group(tmp_path):
    class Grouped(cepheid.Task):
        nova_spacing = ("libvirt", "grouped_interval")

        @periodic_task(spacing=5)
        def grouped(self, context):
            pass

    agent = FakeAgent(tmp_path, settings="[libvirt]\ngrouped_interval = 66\n")
    assert agent.build(Grouped).conf.spacing == 66
    agent.close()


# When it runs


def test_first_runs_one_spacing_after_its_creation_and_then_each_spacing(beat):
    live(beat, 1900)
    assert beat.ran_at == [1600, 2200, 2800]


def test_runs_at_once_where_that_is_asked_for(agent):
    agent.conf.register_opts(Beat.all_options(), group="beat")
    agent.set("beat", run_immediately=True)
    beat = Beat(agent)
    live(beat, 700)
    assert beat.ran_at == [1000, 1600]


def test_a_negative_spacing_switches_it_off_and_zero_means_sixty(agent, beat):
    agent.set("beat", spacing=-1)
    live(beat, 2000)
    assert beat.ran_at == []
    agent.set("beat", spacing=0)
    live(beat, 121)
    assert beat.ran_at == [3000, 3040, 3100]  # late, then on its boundaries


def test_the_spacing_is_asked_for_at_each_round(agent, beat):
    live(beat, 601)
    agent.set("beat", spacing=100)
    live(beat, 210)
    assert beat.ran_at == [1600, 1700, 1800]


def test_a_much_shorter_spacing_counts_from_when_it_is_seen_not_from_the_old_jitter(agent, beat):
    agent.random = random.Random(5)  # 0.62 of the 5 %
    agent.set("beat", spacing=24 * HOUR)
    live(beat, 24 * HOUR + 1)
    agent.set("beat", spacing=60)
    live(beat, 70)
    assert beat.ran_at == [1000 + 24 * HOUR, 1061 + 24 * HOUR]


def test_a_shorter_spacing_keeps_the_boundaries_where_nothing_is_ahead(agent, beat):
    live(beat, 630)
    agent.set("beat", spacing=100)
    live(beat, 100)
    assert beat.ran_at == [1600, 1700]


def test_enabled_is_asked_for_at_each_round(agent, beat):
    agent.set("beat", enabled=False)
    live(beat, 601)
    agent.set("beat", enabled=True)
    live(beat, 1)
    assert beat.ran_at == [1601]


def test_answers_when_it_is_next_due_and_never_more_than_sixty(agent, beat):
    assert beat.periodic_tasks() == 60
    assert beat.seconds_to_next_run() == 600
    agent.clock.sleep(590)
    assert beat.periodic_tasks() == 10


def test_the_time_a_run_takes_is_part_of_its_spacing(agent, beat):
    beat.then = lambda context: agent.clock.sleep(595)
    live(beat, 600)
    assert beat.periodic_tasks() == 5


def test_a_failing_run_is_not_repeated_early_and_the_next_one_comes(beat):
    def fail(context):
        raise ValueError("broken")

    beat.then = fail
    live(beat, 1300)
    assert beat.ran_at == [1600, 2200]
    assert [run["outcome"] for run in beat.agent.journal.runs()] == ["failed", "failed"]


def test_a_run_that_exits_has_failed_and_the_next_one_comes_in_its_time(agent, beat, caplog):
    agent.set("beat", spacing=10)
    beat.then = lambda context: sys.exit(3)
    live(beat, 35)
    assert beat.ran_at == [1010, 1020, 1030]
    assert [run["error"] for run in agent.journal.runs()] == ["SystemExit: 3"] * 3
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    first, second, *_ = said.splitlines()
    assert first == "beat failed: it exits (sys.exit(3)). Its package has to be mended."
    assert second.startswith("Traceback")


def test_an_exit_is_said_once_and_when_it_is_over(agent, beat, caplog):
    caplog.set_level(logging.INFO)
    agent.set("beat", spacing=10)
    beat.then = lambda context: sys.exit(3)
    live(beat, 35)
    beat.then = lambda context: None
    live(beat, 20)
    exits = "beat failed: it exits (sys.exit(3)). Its package has to be mended."
    said = [record.getMessage().partition("\n")[0] for record in caplog.records]
    assert [one for one in said if exits in one] == [exits, f"Over: {exits}"]


def test_records_how_late_a_run_is(beat):
    beat.agent.clock.sleep(612)
    beat.periodic_tasks()
    assert beat.agent.journal.runs()[0]["lateness_seconds"] == 12


def test_a_task_for_cron_is_left_to_it_where_the_operator_says_so(agent):
    class Nightly(cepheid.Task):
        @periodic_task(spacing=60, external_process_ok=True)
        def nightly(self, context):
            pass

    nightly = agent.build(Nightly)
    agent.set(None, run_external_periodic_tasks=False)
    agent.clock.sleep(100)
    assert nightly.periodic_tasks() == 60
    assert nightly.seconds_to_next_run() == float("inf")
    assert agent.run(nightly).outcome == "ok"


def test_a_run_by_an_operator_leaves_the_schedule_as_it_is(agent, beat):
    agent.clock.sleep(300)
    assert beat.run_now("operator").trigger == "operator"
    live(beat, 301)
    assert beat.ran_at == [1300, 1600]
    assert agent.journal.last_run("beat") == NOON + datetime.timedelta(seconds=600)


def test_several_methods_share_a_task_and_keep_their_own_spacings(agent):
    class Duet(cepheid.Task):
        """Two at once."""

        ran = ()

        @periodic_task(spacing=100)
        def duet(self, context):
            self.ran += (("duet", self.agent.clock.monotonic()),)

        @periodic_task(spacing=150, run_immediately=True)
        def second_voice(self, context):
            self.ran += (("second", self.agent.clock.monotonic()),)

    duet = agent.build(Duet)
    live(duet, 301)
    assert duet.ran == (
        ("second", 1000), ("duet", 1100), ("second", 1150), ("duet", 1200),
        ("duet", 1300), ("second", 1300),
    )  # fmt: skip
    assert {run["task"] for run in agent.journal.runs()} == {"duet", "duet.second_voice"}


def test_a_task_that_its_decorator_disables_runs_when_the_operator_enables_it(agent):
    class Optional(cepheid.Task):
        ran = 0

        @periodic_task(spacing=100, enabled=False)
        def optional(self, context):
            self.ran += 1

    optional = agent.build(Optional)
    live(optional, 201)
    assert optional.ran == 0
    agent.set("optional", enabled=True)
    live(optional, 100)
    assert optional.ran == 2


def test_a_vendor_may_inherit_a_task_and_run_more_often(agent):
    class Faster(Beat):
        """Beat faster."""

        @periodic_task(spacing=60)
        def beat(self, context):
            super().beat(context)

    faster = agent.build(Faster)
    live(faster, 130)
    assert (faster.name, faster.ran_at) == ("beat", [1060, 1120])


# Restarts


def test_a_restart_does_not_reset_a_spacing(agent, beat):
    live(beat, 900)
    again = restarted(agent, after=100)
    beat = again.build(Beat)
    live(beat, 201)
    assert beat.ran_at == [1200]  # 600 seconds after the last one
    again.close()


def test_a_restart_does_not_repeat_a_run(agent, beat):
    live(beat, 601)
    again = restarted(agent)
    beat = again.build(Beat)
    live(beat, 590)
    assert beat.ran_at == []
    again.close()


def test_a_run_missed_while_the_agent_was_away_is_made_once_and_keeps_its_phase(agent, beat):
    live(beat, 700)  # ran at 600
    again = restarted(agent, after=10 * HOUR)
    beat = again.build(Beat)
    live(beat, 600)  # the boundaries are at 500, 1100, ... of the new clock
    assert beat.ran_at == [1000, 1500]
    again.close()


def runs_of_a_daily_task(agent, restarts):
    """Restart an agent every hour; return how often its task ran."""
    ran = 0
    for _ in range(restarts):
        beat = agent.build(Beat)
        agent.set("beat", spacing=24 * HOUR)
        beat.delay_schedule(0)
        live(beat, HOUR)
        ran += len(beat.ran_at)
        agent = restarted(agent)
    agent.close()
    return ran


def test_an_agent_restarted_more_often_than_a_task_is_due_does_run_it(agent):
    assert runs_of_a_daily_task(agent, restarts=30) == 1


def test_a_run_at_once_is_for_the_first_time_only(agent):
    for expected in ([1000], []):
        agent.conf.register_opts(Beat.all_options(), group="beat")
        agent.set("beat", run_immediately=True)
        beat = Beat(agent)
        beat.delay_schedule(0)
        live(beat, 10)
        assert beat.ran_at == expected
        agent = restarted(agent)
    agent.close()


def test_a_run_is_in_the_schedule_before_it_begins_so_that_a_crash_does_not_repeat_it(agent, beat):
    seen = []
    beat.then = lambda context: seen.append(agent.journal.last_run("beat"))
    live(beat, 601)
    assert seen == [NOON + datetime.timedelta(seconds=600)]


def test_the_jitter_survives_a_restart(agent, beat):
    agent.random = random.Random(5)
    agent.set("beat", spacing=6000)
    live(beat, 6001)
    due = agent.clock.monotonic() + beat.seconds_to_next_run()
    assert 7000 + 6000 < due < 7000 + 6300
    again = restarted(agent)
    again.conf.register_opts(Beat.all_options(), group="beat")
    again.set("beat", spacing=6000)
    assert Beat(again).seconds_to_next_run() == pytest.approx(due - 7001)
    again.close()


def test_a_time_of_day_that_was_set_back_costs_one_spacing_at_most(agent, beat):
    live(beat, 601)
    again = restarted(agent, after=-20 * HOUR)
    assert again.build(Beat).seconds_to_next_run() == 600
    again.close()


def test_a_time_of_day_that_was_set_back_does_not_keep_an_agent_restarted_often_from_a_run(agent):
    agent.journal.set_last_run("beat", NOON + datetime.timedelta(days=365))
    assert runs_of_a_daily_task(agent, restarts=30) == 1


def test_a_schedule_that_begins_may_be_delayed_and_one_that_goes_on_is_not(agent, beat):
    beat.delay_schedule(40)
    assert beat.seconds_to_next_run() == 640
    beat.delay_schedule(40)
    assert beat.seconds_to_next_run() == 640
    again = restarted(agent)
    beat = again.build(Beat)
    beat.delay_schedule(50)
    assert beat.seconds_to_next_run() == 640
    again.close()


@pytest.mark.parametrize("name", ["beat", "beat.aside"])
def test_a_run_ends_with_the_options_that_it_began_with(tmp_path, agent, beat, name):
    (tmp_path / "new.conf").write_text(
        "[DEFAULT]\nobservers =\n[beat]\nstrength = 5\nspacing = 60\n"
    )
    conf = config.load([str(tmp_path / "new.conf")])
    conf.register_opts(Beat.all_options(), group="beat")
    seen = []

    def reload(context):
        beat.configure(conf)
        seen.append((beat.conf.strength, beat.spacing))

    beat.then = reload
    agent.runner.run(beat, name, Beat.beat)
    assert seen == [(3, 60)]
    assert beat.conf.strength == 5
    agent.runner.run(beat, name, Beat.beat)
    assert seen[-1] == (5, 60)


class Host:
    """One of many: its agent is started, lives for a while, and is restarted."""

    def __init__(self, conf, state_path, seed):
        self.conf = conf
        self.state_path = str(state_path)
        self.random = random.Random(seed)
        #: When its task ran: seconds after noon.
        self.ran_at = []

    def live(self, start, end):
        """Start an agent at `start` seconds after noon and let it live until `end`."""
        self.conf.set_override("state_path", self.state_path)
        clock = FakeClock(NOON + datetime.timedelta(seconds=start))
        agent = Agent(self.conf, clock, self.random)
        beat = Beat(agent)
        delay = self.random.uniform(0, self.conf.periodic_fuzzy_delay)
        beat.delay_schedule(delay)
        clock.sleep(delay)
        live(beat, end - start - delay)
        self.ran_at += [start + when - 1000 for when in beat.ran_at]
        agent.close()


@pytest.fixture
def fleet(tmp_path):
    (tmp_path / "cepheid.conf").write_text("[DEFAULT]\nobservers =\n")
    conf = config.load([str(tmp_path / "cepheid.conf")])
    conf.register_opts(Beat.all_options(), group="beat")
    return [Host(conf, tmp_path / str(n), seed=n) for n in range(200)]


def test_a_fleet_restarted_in_the_same_second_spreads_out_and_stays_spread_out(fleet):
    for host in fleet:
        host.live(0, 3000)
        host.live(3000, 4800)
        host.live(100_000, 101_800)  # after an outage that made every run of the fleet due
    in_one_second = Counter(int(when) for host in fleet for when in host.ran_at)
    assert max(in_one_second.values()) <= 12
    for host in fleet:
        before_outage = [when for when in host.ran_at if when < 4800]
        gaps = [after - before for before, after in itertools.pairwise(before_outage)]
        # The spacing is 600, the jitter below 30, and a start delays by up to 60.
        assert 600 <= before_outage[0] <= 660
        assert min(gaps) >= 540
        assert max(gaps) < 690
        assert len([when for when in host.ran_at if when > 4800]) in (3, 4)


# Overlapping


def test_a_run_that_finds_the_task_running_elsewhere_is_retried_and_not_lost(agent, beat):
    agent.clock.sleep(600)
    agent.run(beat)
    with open(agent.state_path / "cepheid-locks" / "beat") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        assert beat.periodic_tasks() == 5
        agent.clock.sleep(5)
        assert beat.periodic_tasks() == 5
    agent.clock.sleep(5)
    beat.periodic_tasks()
    live(beat, 600)
    assert beat.ran_at == [1600, 1610, 2200]  # by the operator, the late one, the next boundary


def test_being_busy_does_not_move_the_schedule_of_after_a_restart(agent, beat):
    live(beat, 601)
    at = agent.journal.last_run("beat")
    with open(agent.state_path / "cepheid-locks" / "beat") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        live(beat, 700)
    assert agent.journal.last_run("beat") == at


# Limits


def test_dry_run_records_and_does_nothing(agent, beat):
    done = []
    beat.then = lambda context: context.change(
        "thing", target="t", before=1, after=2, do=lambda: done.append(1)
    )
    for group in ("beat", None):
        agent.set(group, dry_run=True)
        assert [change.outcome for change in agent.run(beat).changes] == ["planned"]
        agent.set(group, dry_run=False)
    assert done == []
    assert agent.run(beat, dry_run=True).dry_run
    assert not agent.run(beat).dry_run
    assert done == [1]


def test_an_operator_may_run_a_task_for_real_that_is_configured_to_plan(agent, beat):
    agent.set("beat", dry_run=True)
    assert not agent.run(beat, dry_run=False).dry_run


def test_max_changes_is_read_at_each_run(agent, beat):
    def change_five(context):
        for n in range(5):
            context.change("thing", target=str(n), do=lambda: None)

    beat.then = change_five
    assert agent.run(beat).outcome == "ok"
    agent.set("beat", max_changes=2)
    run = agent.run(beat)
    assert (run.outcome, run.counters) == ("limited", {"done": 2, "refused": 3})


def test_a_run_past_its_time_limit_is_reported_once_with_its_stack(agent, beat, caplog):
    go_on = threading.Event()

    def hang_in_libvirt(context):
        go_on.wait(60)

    beat.then = hang_in_libvirt
    thread = threading.Thread(target=agent.run, args=[beat])
    thread.start()
    eventually(lambda: beat.ran_at)
    agent.clock.sleep(10)
    assert agent.runner.report_overdue() == []
    agent.clock.sleep(1)
    (run,) = agent.runner.report_overdue()
    assert (run.task, run.outcome) == ("beat", "overdue")
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "beat has run for 11 seconds, its time_limit is 10" in record.getMessage()
    assert "hang_in_libvirt" in record.getMessage()
    assert agent.journal.runs()[0]["outcome"] == "overdue"
    assert agent.runner.report_overdue() == []
    go_on.set()
    thread.join()
    assert agent.journal.runs()[0]["outcome"] == "overdue"


def test_an_overdue_task_is_not_started_again_until_it_ends(agent, beat):
    go_on = threading.Event()
    beat.then = lambda context: go_on.wait(60)
    agent.clock.sleep(600)
    thread = threading.Thread(target=beat.periodic_tasks)
    thread.start()
    eventually(lambda: beat.ran_at)
    agent.clock.sleep(1200)
    with pytest.raises(errors.Busy, match="beat is running already"):
        beat.run_now("operator")
    go_on.set()
    thread.join()
    live(beat, 1)
    assert beat.ran_at == [1600, 2800]


def test_a_run_that_took_longer_than_its_limit_is_overdue_though_nobody_watched(agent, beat):
    beat.then = lambda context: agent.clock.sleep(11)
    assert agent.run(beat).outcome == "overdue"
    beat.then = lambda context: agent.clock.sleep(9)
    assert agent.run(beat).outcome == "ok"


def test_nothing_is_run_while_the_journal_cannot_be_written(agent, beat, caplog):
    agent.journal._store.connection.execute("DROP TABLE runs")
    live(beat, 601)
    assert beat.ran_at == []
    assert "beat was not run: The journal" in caplog.text


def break_journal(agent):
    agent.journal._store.connection.execute("ALTER TABLE runs RENAME TO lost")


def mend_journal(agent):
    agent.journal._store.connection.execute("ALTER TABLE lost RENAME TO runs")


def break_lock(agent):
    (agent.state_path / "cepheid-locks" / "beat").mkdir(parents=True)


def mend_lock(agent):
    (agent.state_path / "cepheid-locks" / "beat").rmdir()


@pytest.mark.parametrize(
    ("break_it", "mend_it"), [(break_journal, mend_journal), (break_lock, mend_lock)]
)
def test_a_run_that_could_not_be_recorded_or_locked_is_made_a_minute_later(
    agent, beat, caplog, break_it, mend_it
):
    caplog.set_level(logging.INFO)
    agent.set("beat", spacing=24 * HOUR)
    break_it(agent)
    live(beat, 24 * HOUR + 180)
    assert beat.ran_at == []
    mend_it(agent)
    live(beat, 24 * HOUR)
    assert beat.ran_at == [1000 + 24 * HOUR + 180, 1000 + 2 * 24 * HOUR]  # and its boundaries stay
    assert agent.journal.runs()[-1]["lateness_seconds"] == 180
    said = [message for message in caplog.messages if "beat was not run" in message]
    assert len(said) == 2  # once, and that it is over
    assert said[1].startswith("Over: beat was not run")


def test_a_task_of_a_short_spacing_is_tried_again_after_that(agent, beat):
    agent.set("beat", spacing=10)
    break_lock(agent)
    agent.clock.sleep(10)
    assert beat.periodic_tasks() == 10
