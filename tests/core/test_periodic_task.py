# SPDX-License-Identifier: Apache-2.0
import time

import pytest
from oslo_config import cfg

from cepheid import periodic_task

#: The part of the code under test that a manager class would import from oslo_service.
task = periodic_task.periodic_task


@pytest.fixture
def conf():
    conf = cfg.ConfigOpts()
    conf([])
    return conf


@pytest.fixture
def at(monkeypatch):
    """A function that sets the time; there is no jitter."""
    monkeypatch.setattr(periodic_task.random, "random", lambda: 0.0)

    def set_time(seconds):
        monkeypatch.setattr(periodic_task, "now", lambda: seconds)

    set_time(0)
    return set_time


class Manager(periodic_task.PeriodicTasks):
    """Notes the names of the tasks that run."""

    def __init__(self, conf):
        super().__init__(conf)
        self.ran = []


def passes(manager, at, *times):
    """Make one pass at each of these times; return (time, what ran, idle) of each."""
    table = []
    for seconds in times:
        at(seconds)
        manager.ran.clear()
        idle = manager.run_periodic_tasks(None)
        table.append((seconds, " ".join(manager.ran), idle))
    return table


# The timetable


def test_follows_the_timetable(conf, at):
    class Several(Manager):
        @task
        def default(self, context):
            self.ran.append("default")

        @task(spacing=70, run_immediately=True)
        def at_once(self, context):
            self.ran.append("at_once")

        @task(spacing=70)
        def later(self, context):
            self.ran.append("later")

        @task(spacing=25)
        def often(self, context):
            self.ran.append("often")

    at(1000)
    manager = Several(conf)
    assert passes(manager, at, 1000, 1025, 1050, 1060, 1070, 1075, 1139, 1140, 1300, 1320) == [
        # time, what ran, seconds to idle
        (1000, "at_once", 25),
        (1025, "often", 25),
        (1050, "often", 10),
        (1060, "default", 10),
        (1070, "at_once later", 5),
        (1075, "often", 25),
        (1139, "default often", 1),  # often's next is 1150, default's 1180; 1140 is next
        (1140, "at_once later", 10),
        # Late: each runs once, whatever was missed, and keeps its boundaries.
        (1300, "default at_once later often", 25),
        (1320, "", 5),
    ]
    assert manager._periodic_last_run == {
        "default": 1300,  # 1000 + 5 x 60
        "at_once": 1280,  # 1000 + 4 x 70
        "later": 1280,
        "often": 1300,  # 1000 + 12 x 25
    }


def test_a_late_pass_does_not_shift_the_passes_after_it(conf, at):
    class Late(Manager):
        @task(spacing=100)
        def late(self, context):
            self.ran.append("late")

    manager = Late(conf)
    assert passes(manager, at, 99, 130, 199, 200, 310, 400) == [
        (99, "", 1),
        (130, "late", 60),
        (199, "", 1),
        (200, "late", 60),
        (310, "late", 60),
        (400, "late", 60),
    ]


def test_never_asks_for_more_than_sixty_seconds_nor_more_than_the_least_spacing(conf, at):
    class Rare(Manager):
        @task(spacing=3600)
        def rare(self, context):
            pass

    class Frequent(Rare):
        @task(spacing=10)
        def frequent(self, context):
            pass

    assert Manager(conf).run_periodic_tasks(None) == 60
    assert Rare(conf).run_periodic_tasks(None) == 60
    assert Frequent(conf).run_periodic_tasks(None) == 10


def test_no_time_before_it_runs_a_task_that_is_due_at_once(conf, at):
    class AtOnce(Manager):
        @task(spacing=10, run_immediately=True)
        def at_once(self, context):
            self.ran.append("at_once")

    at(32503680000.0)
    manager = AtOnce(conf)
    assert manager._periodic_last_run == {"at_once": None}
    assert passes(manager, at, 32503680000.0, 32503680005.0) == [
        (32503680000.0, "at_once", 10),
        (32503680005.0, "", 5),
    ]
    assert manager._periodic_last_run == {"at_once": 32503680000.0}


def test_two_hundred_seconds_of_a_spacing_of_nine(conf, at):
    class Nine(Manager):
        @task(spacing=9)
        def nine(self, context):
            self.ran.append("nine")

    at(360444)
    manager = Nine(conf)
    for second in range(200):
        at(360444 + second)
        manager.run_periodic_tasks(None)
        assert len(manager.ran) == second // 9


# Boundaries and jitter


@pytest.mark.parametrize(
    ("last_run", "spacing", "current", "r", "boundary"),
    [
        (10, 7, 19, 0, 17),
        (10, 7, 28, 0, 24),
        (781, 88, 1841, 0, 1837),
        (None, 88, 1835, 0.9, 1835),  # never run: now, and no jitter
        (1000, 200, 1300, 0, 1200),
        (1000, 200, 1300, 0.5, 1205),
        (1000, 200, 1300, 0.999, 1209),  # below 5 %
        (1000, 20, 1030, 0.999, 1020),  # none up to a spacing of 20
        (1000, 21, 1030, 0.999, 1022),
    ],
)
def test_the_boundary_is_the_latest_one_plus_jitter_in_whole_seconds(
    last_run, spacing, current, r, boundary
):
    assert periodic_task._nearest_boundary(last_run, spacing, current, lambda: r) == boundary


def test_the_boundary_counts_from_now_by_default(at):
    at(19)
    assert periodic_task._nearest_boundary(10, 7) == 17


def test_the_jitter_moves_the_phase_for_good(conf, at, monkeypatch):
    class Jittered(Manager):
        @task(spacing=200)
        def jittered(self, context):
            self.ran.append("jittered")

    manager = Jittered(conf)
    monkeypatch.setattr(periodic_task.random, "random", lambda: 0.5)
    assert passes(manager, at, 200, 400, 405, 600, 610) == [
        (200, "jittered", 60),
        (400, "", 5),
        (405, "jittered", 60),
        (600, "", 10),
        (610, "jittered", 60),
    ]


def test_no_spacing_makes_a_task_due_twice_at_one_boundary(conf, at):
    class Odd(Manager):
        @task(spacing=0.1)
        def odd(self, context):
            self.ran.append("odd")

    at(0.1)
    manager = Odd(conf)
    for _ in range(1000):
        now = manager._periodic_last_run["odd"] + 0.1
        at(now)
        manager.run_periodic_tasks(None)
        manager.run_periodic_tasks(None)
    assert len(manager.ran) == 1000


# The decorator


def test_a_bare_decorator_takes_the_defaults(at):
    at(340)

    @task
    def plain(self, context):
        pass

    assert plain._periodic_task is True
    assert plain._periodic_external_ok is False
    assert plain._periodic_enabled is True
    assert plain._periodic_name == "plain"
    assert plain._periodic_spacing == 0
    assert plain._periodic_immediate is False
    assert plain._periodic_last_run == 340


def test_a_called_decorator_takes_what_it_is_given():
    @task(spacing=5, enabled=False, name="other", run_immediately=True, external_process_ok=True)
    def full(self, context):
        pass

    assert full._periodic_external_ok is True
    assert full._periodic_enabled is False
    assert full._periodic_name == "other"
    assert full._periodic_spacing == 5
    assert full._periodic_immediate is True
    assert full._periodic_last_run is None


def test_a_decorator_called_with_nothing_is_a_bare_one():
    @task()
    def plain(self, context):
        pass

    assert plain._periodic_name == "plain"


def test_a_decorator_may_be_used_for_several_methods():
    every_five = task(spacing=5, run_immediately=True)

    def one(self, context):
        pass

    def two(self, context):
        pass

    for function in (one, two):
        assert every_five(function)._periodic_spacing == 5
        assert function._periodic_immediate


def test_no_name_means_the_methods_own():
    @task(spacing=5, name=None)
    def own(self, context):
        pass

    assert own._periodic_name == "own"


def test_a_decorated_method_may_still_be_called(conf):
    class Callable(Manager):
        @task(spacing=5)
        def double(self, number):
            """Double it."""
            return 2 * number

    assert Callable(conf).double(4) == 8
    assert Callable.double.__doc__ == "Double it."


@pytest.mark.parametrize("argument", ["ticks_between_runs", "spacings"])
def test_an_argument_it_does_not_take_is_refused_by_name(argument):
    with pytest.raises(periodic_task.InvalidPeriodicTaskArg, match=argument):

        @task(**{argument: 1})
        def wrong(self, context):
            pass


# The registry of a class


class Base(Manager):
    @task
    def default(self, context):
        self.ran.append("default")

    @task(spacing=4)
    def four(self, context):
        self.ran.append("four")

    @task(enabled=False)
    def disabled(self, context):
        self.ran.append("disabled")

    @task(spacing=-1)
    def negative(self, context):
        self.ran.append("negative")

    @task(spacing=0)
    def zero(self, context):
        self.ran.append("zero")

    @task(spacing=7, name="renamed")
    def named(self, context):
        self.ran.append("renamed")


def test_a_configuration_may_have_the_option_of_oslo_service_already(conf):
    conf.register_opt(cfg.BoolOpt("run_external_periodic_tasks", default=False, help="Another."))

    class Left(Manager):
        @task(run_immediately=True, external_process_ok=True)
        def left(self, context):
            self.ran.append("left")

    manager = Left(conf)
    manager.run_periodic_tasks(None)
    assert manager.ran == []


def test_a_class_has_its_tasks_in_the_order_of_definition():
    assert Base._periodic_tasks == [
        ("default", Base.default), ("four", Base.four), ("zero", Base.zero),
        ("renamed", Base.named),
    ]  # fmt: skip
    assert Base._periodic_spacing == {"default": 60, "four": 4, "zero": 60, "renamed": 7}


def test_the_base_has_none():
    assert periodic_task.PeriodicTasks._periodic_tasks == []
    assert periodic_task.PeriodicTasks._periodic_spacing == {}


def test_a_subclass_has_the_tasks_of_its_bases_and_leaves_them_alone():
    class Mixin:
        @task(spacing=11)
        def mixed_in(self, context):
            pass

    class Sub(Mixin, Base):
        @task(spacing=12)
        def own(self, context):
            pass

    names = [name for name, _ in Sub._periodic_tasks]
    assert names == ["default", "four", "zero", "renamed", "mixed_in", "own"]
    assert len(Base._periodic_tasks) == 4


def test_a_subclass_that_redefines_a_task_replaces_it(conf, at):
    class Sub(Base):
        @task(spacing=5)
        def four(self, context):
            self.ran.append("five")

    assert Sub._periodic_spacing["four"] == 5
    assert Base._periodic_spacing["four"] == 4
    manager = Sub(conf)
    assert passes(manager, at, 4, 5) == [(4, "", 1), (5, "five", 2)]


def test_a_subclass_may_disable_a_task(conf, at):
    class Disabling(Base):
        @task(spacing=4, enabled=False)
        def four(self, context):
            self.ran.append("four")

        @task(spacing=-1)
        def default(self, context):
            self.ran.append("default")

    assert [name for name, _ in Disabling._periodic_tasks] == ["zero", "renamed"]
    assert passes(Disabling(conf), at, 60) == [(60, "zero renamed", 7)]


def test_a_subclass_may_enable_what_its_base_disabled():
    class Enabling(Base):
        @task(spacing=9)
        def disabled(self, context):
            pass

    assert Enabling._periodic_spacing["disabled"] == 9


def test_a_subclass_may_replace_a_task_by_what_is_none():
    class Plain(Base):
        def four(self, context):
            pass

        default = None

    assert [name for name, _ in Plain._periodic_tasks] == ["zero", "renamed"]


def test_a_subclass_may_rename_a_task():
    class Renaming(Base):
        @task(spacing=4, name="quattro")
        def four(self, context):
            pass

    names = [name for name, _ in Renaming._periodic_tasks]
    assert "quattro" in names
    assert "four" not in names


def test_two_tasks_of_one_name_in_a_class_are_an_error():
    with pytest.raises(periodic_task.DuplicatePeriodicTask, match="two periodic tasks named 'one'"):

        class Twice(periodic_task.PeriodicTasks):
            @task
            def one(self, context):
                pass

            @task(name="one")
            def other(self, context):
                pass


def test_a_task_of_another_method_that_takes_an_inherited_name_is_an_error():
    with pytest.raises(periodic_task.DuplicatePeriodicTask, match="'renamed'"):

        class Twice(Base):
            @task
            def renamed(self, context):
                pass


def test_of_two_tasks_of_one_name_one_may_be_off():
    class Choice(periodic_task.PeriodicTasks):
        @task(spacing=3, name="it", enabled=False)
        def old_way(self, context):
            pass

        @task(spacing=5, name="it")
        def new_way(self, context):
            pass

    assert Choice._periodic_tasks == [("it", Choice.new_way)]
    assert Choice._periodic_declared == {"it": Choice.new_way}


# Objects


def test_the_first_spacing_counts_from_the_creation_of_the_object(conf, at):
    at(0)

    class Old(Manager):
        @task(spacing=100)
        def old(self, context):
            self.ran.append("old")

    at(10_000)
    manager = Old(conf)
    assert passes(manager, at, 10_099, 10_100) == [(10_099, "", 1), (10_100, "old", 60)]


def test_siblings_count_each_for_itself(conf, at):
    first = Base(conf)
    at(2)
    second = Base(conf)
    assert passes(first, at, 4) == [(4, "four", 3)]
    assert passes(second, at, 4) == [(4, "", 2)]


@task(spacing=30)
def added(self, context):
    self.ran.append("added")


def test_a_task_may_be_added_to_one_object_and_counts_from_then(conf, at):
    manager, sibling = Manager(conf), Manager(conf)
    at(5)
    assert manager.add_periodic_task(added) is True
    assert manager._periodic_spacing == {"added": 30}
    assert passes(manager, at, 34, 35) == [(34, "", 1), (35, "added", 30)]
    assert sibling._periodic_tasks == Manager(conf)._periodic_tasks == []
    assert Manager._periodic_tasks == []
    assert sibling._periodic_spacing == {}


def test_a_task_that_is_off_is_not_added(conf):
    manager = Manager(conf)
    assert manager.add_periodic_task(Base.disabled) is False
    assert manager.add_periodic_task(Base.negative) is False
    assert manager._periodic_tasks == []


def test_a_task_of_a_name_that_is_there_is_not_added(conf):
    manager = Manager(conf)
    manager.add_periodic_task(added)
    with pytest.raises(periodic_task.DuplicatePeriodicTask):
        manager.add_periodic_task(added)


def test_the_spacing_is_asked_for_at_each_round(conf, at):
    manager = Manager(conf)
    manager.add_periodic_task(added)
    assert passes(manager, at, 29) == [(29, "", 1)]
    manager._periodic_spacing["added"] = 10
    assert passes(manager, at, 29, 30) == [(29, "added", 10), (30, "added", 10)]
    manager._periodic_spacing["added"] = -1
    assert passes(manager, at, 100) == [(100, "", 60)]


def test_tasks_for_another_process_are_left_to_it_on_demand(conf, at):
    class External(Manager):
        @task(spacing=5, external_process_ok=True)
        def external(self, context):
            self.ran.append("external")

        @task(spacing=50)
        def own(self, context):
            self.ran.append("own")

    manager = External(conf)
    assert conf.run_external_periodic_tasks is True
    conf.set_override("run_external_periodic_tasks", False)
    assert passes(manager, at, 50) == [(50, "own", 50)]  # nor does its spacing count
    conf.set_override("run_external_periodic_tasks", True)
    assert passes(manager, at, 60) == [(60, "external", 5)]


# Errors


class Failing(Manager):
    error = ValueError("broken")

    @task(spacing=10)
    def failing(self, context):
        self.ran.append("failing")
        raise self.error

    @task(spacing=10)
    def after(self, context):
        self.ran.append("after")


def test_a_task_that_fails_is_logged_and_not_repeated_early_and_the_next_runs(conf, at, caplog):
    manager = Failing(conf)
    assert passes(manager, at, 10, 15, 20) == [
        (10, "failing after", 10), (15, "", 5), (20, "failing after", 10),
    ]  # fmt: skip
    assert "Error during failing" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_an_error_goes_out_where_that_is_asked_for(conf, at):
    manager = Failing(conf)
    at(10)
    with pytest.raises(ValueError, match="broken"):
        manager.run_periodic_tasks(None, raise_on_error=True)
    assert manager.ran == ["failing"]
    assert manager.run_periodic_tasks(None) == 10  # its time has passed all the same
    assert manager.ran == ["failing", "after"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_is_an_exit(conf, at, error):
    manager = Failing(conf)
    manager.error = error
    at(10)
    with pytest.raises(type(error)):
        manager.run_periodic_tasks(None)


# Compatibility: what Nova's manager does with oslo.service's module


class ComputeManager(periodic_task.PeriodicTasks):
    """As written for oslo.service; only the import is another one."""

    def __init__(self, conf):
        super().__init__(conf)
        self.log = []

    def periodic_tasks(self, context, raise_on_error=False):
        """Tasks to be run at a periodic interval."""
        return self.run_periodic_tasks(context, raise_on_error=raise_on_error)

    @periodic_task.periodic_task
    def _poll_rebooting_instances(self, context):
        self.log.append(("rebooting", context))

    @periodic_task.periodic_task(spacing=600, run_immediately=True)
    def _sync_power_states(self, context):
        self.log.append(("power", context))

    @periodic_task.periodic_task(spacing=-1)
    def _run_image_cache_manager_pass(self, context):
        self.log.append(("images", context))

    @periodic_task.periodic_task(external_process_ok=True)
    def _poll_shelved_instances(self, context):
        self.log.append(("shelved", context))


def test_a_manager_class_written_for_oslo_service_works(conf, at):
    at(500)
    manager = ComputeManager(conf)
    conf.set_override("run_external_periodic_tasks", False)
    assert manager.periodic_tasks("context") == 60
    assert manager.log == [("power", "context")]
    at(560)
    assert manager.periodic_tasks("context", raise_on_error=True) == 60
    assert manager.log[1:] == [("rebooting", "context")]
    assert periodic_task.DEFAULT_INTERVAL == 60


def test_the_option_is_offered_to_the_generator():
    assert [
        (group, [option.name for option in options]) for group, options in periodic_task.list_opts()
    ] == [(None, ["run_external_periodic_tasks"])]


def test_it_counts_by_the_monotonic_clock():
    assert periodic_task.now() == pytest.approx(time.monotonic(), abs=5)
