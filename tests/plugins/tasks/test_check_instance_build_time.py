# SPDX-License-Identifier: Apache-2.0
"""check_instance_build_time: the cases of the behaviour reference, on a real inventory."""

import datetime

import pytest

from cepheid_plugins.database import models
from cepheid_plugins.tasks.check_instance_build_time import CheckInstanceBuildTime
from tests.worlds import fake_world, uuid_of


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {})
    yield world
    world.close()


@pytest.fixture
def task(world):
    task = world.agent.build(CheckInstanceBuildTime)
    world.agent.set(task.name, instance_build_timeout=30)
    return task


def building(world, number, seconds_ago, **columns):
    created_at = world.clock.utcnow() - datetime.timedelta(seconds=seconds_ago)
    columns = {"vm_state": "building", "power_state": 0, **columns}
    return world.add(number, created_at=created_at, **columns)


def test_asks_nothing_when_the_timeout_is_zero(world, task):
    building(world, 1, 3600)
    world.agent.set(task.name, instance_build_timeout=0)
    assert world.agent.run(task).outcome == "ok"
    assert world.statements() == 0
    assert world.row(1).vm_state == "building"


def test_sets_four_stuck_builds_to_error_and_leaves_a_new_one(world, task):
    for number in range(4):
        building(world, number, 60)
    building(world, 4, 0)
    run = world.agent.run(task)
    assert [world.row(number).vm_state for number in range(5)] == ["error"] * 4 + ["building"]
    assert run.counters == {"instances": 5, "done": 4}


def test_the_age_must_be_more_than_the_timeout(world, task):
    building(world, 1, 30)
    building(world, 2, 31)
    world.agent.run(task)
    assert world.row(1).vm_state == "building"
    assert world.row(2).vm_state == "error"


def test_keeps_the_task_state_and_writes_nothing_else(world, task):
    building(world, 1, 60, task_state="spawning", launched_at=None)
    before = world.row(1)._asdict()
    world.agent.run(task)
    after = world.row(1)._asdict()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"vm_state", "updated_at"}
    assert after["task_state"] == "spawning"


def test_leaves_no_fault_and_no_action(world, task):
    building(world, 1, 60)
    world.agent.run(task)
    assert world.rows(models.instance_faults) == []
    assert world.rows(models.instance_actions) == []


def test_leaves_the_rows_of_other_hosts(world, task):
    building(world, 1, 60, host="host2")
    world.agent.run(task)
    assert world.row(1).vm_state == "building"


def test_leaves_instances_that_are_not_building(world, task):
    building(world, 1, 365 * 86400, vm_state="active")
    world.agent.run(task)
    assert world.row(1).vm_state == "active"


def test_leaves_deleted_and_hidden_rows(world, task):
    building(world, 1, 60, deleted=1)
    building(world, 2, 60, hidden=True)
    run = world.agent.run(task)
    assert run.counters == {}


def test_a_row_whose_hidden_is_null_counts(world, task):
    building(world, 1, 60, hidden=None)
    world.agent.run(task)
    assert world.row(1).vm_state == "error"


def test_without_builds_asks_one_query(world, task):
    world.agent.run(task)
    assert world.statements() == 1


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement(world, task, count):
    world.add_many(range(count), vm_state="building", created_at=world.clock.utcnow())
    world.agent.run(task)
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0


def test_a_thousand_stuck_builds_are_written_in_batches(world, task):
    world.add_many(range(1000), vm_state="building")
    run = world.agent.run(task)
    assert run.counters["done"] == 1000
    assert world.statements() == 1 + 2 * 2  # the rows of a batch are locked, then written


def test_a_row_destroyed_meanwhile_is_left_alone_and_the_next_one_is_handled(
    world, task, monkeypatch
):
    building(world, 1, 60)
    building(world, 2, 60)
    read = world.database.instances_in_vm_state

    def read_then_lose(*asked):
        rows = read(*asked)
        world.update(1, deleted=1)
        return rows

    monkeypatch.setattr(world.database, "instances_in_vm_state", read_then_lose)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1, "raced": 1}
    assert world.row(1).vm_state == "building"
    assert world.row(2).vm_state == "error"


def test_an_instance_whose_build_ended_meanwhile_is_left_alone(world, task, monkeypatch):
    building(world, 1, 60, task_state="spawning")
    read = world.database.instances_in_vm_state

    def read_then_finish(*asked):
        rows = read(*asked)
        world.update(1, vm_state="active", task_state=None)
        return rows

    monkeypatch.setattr(world.database, "instances_in_vm_state", read_then_finish)
    run = world.agent.run(task)
    assert run.counters["raced"] == 1
    assert world.row(1).vm_state == "active"


def test_a_null_created_at_is_one_bad_row(world, task):
    world.add(1, vm_state="building", created_at=None)
    building(world, 2, 60)
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}
    assert world.row(1).vm_state == "building"


def test_the_dry_run_plans_and_changes_nothing(world, task):
    building(world, 1, 60)
    run = world.agent.run(task, dry_run=True)
    assert [(c.target, c.after, c.outcome) for c in run.changes] == [
        (uuid_of(1), "error", "planned")
    ]
    assert world.row(1).vm_state == "building"


def test_a_database_that_does_not_answer_ends_the_pass(world, task):
    (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert "cepheid db sync" in run.error


def test_nova_conf_sets_the_timeout(tmp_path):
    world = fake_world(tmp_path, {}, settings="instance_build_timeout = 7\n")
    task = world.agent.build(CheckInstanceBuildTime)
    assert task.conf.instance_build_timeout == 7
    world.close()
