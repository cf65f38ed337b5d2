# SPDX-License-Identifier: Apache-2.0
"""poll_rescued_instances: the cases of the behaviour reference, with real disks."""

import datetime

import pytest

from cepheid_plugins.compute.rescue import RescueOperations
from cepheid_plugins.database import models
from cepheid_plugins.tasks.poll_rescued_instances import PollRescuedInstances
from tests.worlds import disk_world, fake_world, uuid_of

RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2, 3])
    (tmp_path / "rescue.img").write_bytes(b"\0" * 65536)
    yield world
    world.close()


@pytest.fixture
def task(world):
    task = world.agent.build(PollRescuedInstances)
    world.agent.set(task.name, rescue_timeout=60)
    return task


def rescue(world, *numbers, seconds_ago=300):
    """Rescue instances as their owner did so long ago."""
    rows = world.database.instances_by_uuid([uuid_of(number) for number in numbers])
    image = str(world.path / "rescue.img")
    results = RescueOperations(world.agent).rescue(rows, "req-rescue", image)
    assert set(results.values()) == {None}
    launched_at = world.clock.utcnow() - datetime.timedelta(seconds=seconds_ago)
    for number in numbers:
        world.update(number, launched_at=launched_at)
    world.hypervisor.acts.clear()


def states(world):
    return [world.row(number).vm_state for number in (1, 2, 3)]


def test_asks_nothing_when_the_timeout_is_zero(world, task):
    rescue(world, 1)
    world.agent.set(task.name, rescue_timeout=0)
    world.database.statements.clear()
    assert world.agent.run(task).outcome == "ok"
    assert world.statements() == 0
    assert world.row(1).vm_state == "rescued"


def test_two_rescued_long_ago_are_unrescued_and_one_rescued_now_is_not(world, task):
    rescue(world, 1, 2)
    rescue(world, 3, seconds_ago=0)
    run = world.agent.run(task)
    assert states(world) == ["active", "active", "rescued"]
    assert run.counters == {"instances": 3, "done": 2}


def test_says_how_many_were_unrescued(world, task, reports):
    rescue(world, 1, 2, 3)
    world.agent.run(task)
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_age_must_be_more_than_the_timeout(world, task):
    rescue(world, 1, 2)
    for number, seconds in ((1, 60), (2, 61)):
        launched_at = world.clock.utcnow() - datetime.timedelta(seconds=seconds)
        world.update(number, launched_at=launched_at)
    world.agent.run(task)
    assert states(world)[:2] == ["rescued", "active"]


def test_afterwards_all_is_as_before_the_rescue(world, task):
    before = world.hypervisor.definition(uuid_of(1))
    rescue(world, 1)
    launched_at = world.row(1).launched_at
    world.agent.run(task)
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)
    assert row.launched_at == launched_at
    assert world.hypervisor.definition(uuid_of(1)) == before
    directory = world.path / "instances" / uuid_of(1)
    assert [path.name for path in directory.iterdir()] == ["disk"]
    (action,) = [a for a in world.rows(models.instance_actions) if a.action == "unrescue"]
    assert action.message is None


def test_an_instance_that_is_being_unrescued_is_left_alone(world, task):
    rescue(world, 1, 2)
    world.update(1, task_state="unrescuing")
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "busy": 1, "done": 1}
    assert (world.row(1).vm_state, world.row(1).task_state) == ("rescued", "unrescuing")


def test_d9_an_instance_that_moves_on_does_not_keep_the_others_waiting(world, task, monkeypatch):
    rescue(world, 1, 2)
    read = world.database.instances_in_vm_state

    def read_then_stop(*asked):
        rows = read(*asked)
        world.update(2, task_state="powering-off")
        return rows

    monkeypatch.setattr(world.database, "instances_in_vm_state", read_then_stop)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1, "raced": 1}
    assert states(world)[:2] == ["active", "rescued"]


def test_d21_a_null_launched_at_is_one_bad_row(world, task):
    rescue(world, 1, 2)
    world.update(1, launched_at=None)
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}
    assert states(world)[:2] == ["rescued", "active"]


def test_a_missing_unrescue_xml_is_an_error_with_a_fault_and_not_tried_again(world, task):
    rescue(world, 1, 2)
    (world.path / "instances" / uuid_of(2) / "unrescue.xml").unlink()
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1, "failed": 1}
    assert states(world)[:2] == ["active", "error"]
    assert world.row(2).task_state is None
    assert len(world.rows(models.instance_faults)) == 1
    assert world.agent.run(task).counters == {}


def test_leaves_the_rows_of_other_hosts_and_deleted_ones(world, task):
    rescue(world, 1, 2)
    world.update(1, host="host2")
    world.update(2, deleted=2)
    assert world.agent.run(task).counters == {}
    assert world.hypervisor.acts == []


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement(tmp_path, count):
    world = fake_world(tmp_path, {})
    task = world.agent.build(PollRescuedInstances)
    world.agent.set(task.name, rescue_timeout=60)
    world.add_many(range(count), vm_state="rescued", launched_at=world.clock.utcnow())
    world.agent.run(task)
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0
    world.close()


def test_the_dry_run_plans_and_changes_nothing(world, task):
    rescue(world, 1)
    before = world.row(1)
    run = world.agent.run(task, dry_run=True)
    assert [(c.kind, c.target, c.outcome) for c in run.changes] == [
        ("unrescue", uuid_of(1), "planned")
    ]
    assert world.row(1) == before
    assert world.hypervisor.acts == []


def test_a_hypervisor_that_does_not_answer_ends_the_pass_without_a_change(world, task):
    rescue(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert (world.row(1).vm_state, world.row(1).task_state) == ("rescued", None)
    world.hypervisor.available = True
    world.agent.run(task)
    assert world.row(1).vm_state == "active"


def test_storage_that_is_away_ends_the_pass_without_a_change(world, task):
    rescue(world, 1)
    away = (world.path / "instances").rename(world.path / "away")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert (world.row(1).vm_state, world.row(1).task_state) == ("rescued", None)
    assert world.rows(models.instance_faults) == []
    away.rename(world.path / "instances")
    world.agent.run(task)
    assert world.row(1).vm_state == "active"


def test_a_mount_point_without_its_storage_is_no_missing_file(world, task):
    rescue(world, 1)
    away = (world.path / "instances").rename(world.path / "away")
    (world.path / "instances").mkdir()
    (change,) = world.agent.run(task).changes
    assert change.outcome == "failed"
    assert "instances_path mounted" in change.error
    assert (world.row(1).vm_state, world.row(1).task_state) == ("rescued", None)
    (world.path / "instances").rmdir()
    away.rename(world.path / "instances")
    world.agent.run(task)
    assert world.row(1).vm_state == "active"


def test_a_database_that_does_not_answer_ends_the_pass(world, task):
    (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])


def test_nova_conf_sets_the_timeout(tmp_path):
    world = fake_world(tmp_path, {}, settings="rescue_timeout = 7\n")
    assert world.agent.build(PollRescuedInstances).conf.rescue_timeout == 7
    world.close()
