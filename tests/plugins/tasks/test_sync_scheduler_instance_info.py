# SPDX-License-Identifier: Apache-2.0
"""sync_scheduler_instance_info: the cases of the behaviour reference, on a real inventory."""

import pytest

from cepheid import config
from cepheid_plugins.database.errors import DatabaseUnavailable
from cepheid_plugins.scheduler.driver import SchedulerUnavailable
from cepheid_plugins.tasks.sync_scheduler_instance_info import SyncSchedulerInstanceInfo
from tests.fakes import FakeScheduler
from tests.worlds import fake_world, uuid_of


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {})
    world.scheduler = FakeScheduler()
    world.agent.drivers.use("scheduler", world.scheduler)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return world.agent.build(SyncSchedulerInstanceInfo)


def told(world):
    """Return what the scheduler was told, in order: (host, uuids)."""
    return [(host, uuids) for host, uuids, _ in world.scheduler.messages]


def test_three_instances_are_one_message_with_their_uuids_in_the_databases_order(world, task):
    for number in (3, 1, 2):
        world.add(number)
    run = world.agent.run(task)
    assert told(world) == [("host1", [uuid_of(3), uuid_of(1), uuid_of(2)])]
    assert (run.outcome, run.counters) == ("ok", {"instances": 3, "sent": 1})


def test_the_message_names_the_run_that_sent_it(world, task):
    run = world.agent.run(task)
    assert [request for _, _, request in world.scheduler.messages] == [run.request_id]


def test_nothing_is_asked_or_sent_where_changes_are_not_tracked(world, task):
    world.add(1)
    world.agent.set(task.name, track_instance_changes=False)
    assert world.agent.run(task).outcome == "ok"
    assert (world.statements(), told(world)) == (0, [])


def test_nothing_is_asked_where_there_is_no_scheduler_to_tell(world, task):
    world.add(1)
    world.scheduler.enabled = False
    assert world.agent.run(task).outcome == "ok"
    assert (world.statements(), told(world)) == (0, [])


@pytest.mark.parametrize(
    ("columns", "counts"),
    [
        ({"vm_state": "soft-delete"}, True),
        ({"hidden": True}, True),
        ({"vm_state": "building", "task_state": "spawning"}, True),
        ({"vm_state": None}, True),
        ({"deleted": 1}, False),
        ({"host": "host2"}, False),
        ({"host": "HOST1"}, False),
        ({"host": None}, False),
    ],
)
def test_every_live_row_of_the_host_counts_in_whatever_state(world, task, columns, counts):
    world.add(1, **columns)
    world.agent.run(task)
    assert told(world) == [("host1", [uuid_of(1)] if counts else [])]


def test_a_host_without_instances_says_so(world, task):
    run = world.agent.run(task)
    assert told(world) == [("host1", [])]
    assert run.outcome == "ok"


def test_a_scheduler_that_cannot_be_told_fails_the_run_and_the_next_one_tries_again(world, task):
    world.add(1)
    world.scheduler.error = SchedulerUnavailable("The message broker is away.")
    run = world.agent.run(task)
    assert (run.outcome, run.error) == ("failed", "The message broker is away.")
    world.scheduler.error = None
    assert world.agent.run(task).outcome == "ok"
    assert told(world) == [("host1", [uuid_of(1)])]


def test_a_database_that_does_not_answer_sends_nothing(world, task, monkeypatch):
    def away(host):
        raise DatabaseUnavailable("The database does not answer.")

    monkeypatch.setattr(world.database, "instance_uuids_on_host", away)
    run = world.agent.run(task)
    assert (run.outcome, told(world)) == ("failed", [])


def test_an_inventory_that_is_gone_is_not_a_host_without_instances(world, task):
    (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
    run = world.agent.run(task)
    assert (run.outcome, told(world)) == ("failed", [])
    assert "cepheid db sync" in run.error


def test_the_dry_run_sends_nothing(world, task):
    world.add(1)
    run = world.agent.run(task, dry_run=True)
    assert told(world) == []
    assert run.counters == {"instances": 1, "planned": 1}


@pytest.mark.parametrize("count", [10, 1000])
def test_a_pass_costs_one_select_and_one_message_however_many_instances(world, task, count):
    world.add_many(range(count))
    run = world.agent.run(task)
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0
    assert [len(uuids) for _, uuids in told(world)] == [count]
    assert (run.counters["instances"], run.changes) == (count, [])


@pytest.mark.parametrize(
    ("settings", "tracked"),
    [
        ("[filter_scheduler]\ntrack_instance_changes = false\n", False),
        ("scheduler_tracks_instance_changes = false\n", False),
        ("", True),
    ],
)
def test_nova_conf_says_whether_changes_are_tracked(tmp_path, settings, tracked):
    world = fake_world(tmp_path, {}, settings=settings)
    world.agent.drivers.use("scheduler", FakeScheduler())
    task = world.agent.build(SyncSchedulerInstanceInfo)
    assert task.conf.track_instance_changes is tracked
    world.close()


@pytest.mark.parametrize(("value", "spacing"), [("-1", None), ("0", 60), ("7", 7), (None, 120)])
def test_nova_conf_says_how_often(tmp_path, value, spacing):
    settings = "" if value is None else f"scheduler_instance_sync_interval = {value}\n"
    world = fake_world(tmp_path, {}, settings=settings)
    world.agent.drivers.use("scheduler", FakeScheduler())
    task = world.agent.build(SyncSchedulerInstanceInfo)
    assert task._current_spacing(task.name) == spacing
    world.close()


def test_a_reload_switches_it_off_and_on(world, task):
    text = world.agent.conf_file.read_text()
    world.agent.conf_file.write_text(f"{text}[filter_scheduler]\ntrack_instance_changes = no\n")
    conf = config.load([str(world.agent.conf_file)])
    conf.register_opts(SyncSchedulerInstanceInfo.all_options(), group=task.name)
    task.configure(conf)
    world.agent.run(task)
    assert told(world) == []
