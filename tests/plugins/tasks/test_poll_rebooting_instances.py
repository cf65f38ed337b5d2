# SPDX-License-Identifier: Apache-2.0
"""poll_rebooting_instances: the cases of the behaviour reference, which libvirt never had."""

import datetime

import pytest
import sqlalchemy as sa

from cepheid.run import Run
from cepheid_plugins.compute import opts
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.database import models
from cepheid_plugins.tasks.poll_rebooting_instances import (
    PollRebootingInstances,
    to_be_tried_again,
)
from tests.worlds import World, fake_world, uuid_of

RUNNING, PAUSED, SHUTDOWN, CRASHED = 1, 3, 4, 6


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, dict.fromkeys(range(1, 5), SHUTDOWN))
    world.agent.conf.register_opts(opts.OPTIONS, group="compute")
    yield world
    world.close()


@pytest.fixture
def task(world):
    task = world.agent.build(PollRebootingInstances)
    world.agent.set(task.name, reboot_timeout=60)
    return task


def rebooting(world, number, task_state="rebooting", seconds_ago=300, **columns):
    updated_at = world.clock.utcnow() - datetime.timedelta(seconds=seconds_ago)
    world.add(number, task_state=task_state, updated_at=updated_at, **columns)


def break_down(world, monkeypatch, number):
    """Let a guest not start any more."""
    start = world.hypervisor.start

    def start_but_one(uuid):
        if uuid != uuid_of(number):
            start(uuid)

    monkeypatch.setattr(world.hypervisor, "start", start_but_one)


def test_asks_nothing_when_the_timeout_is_zero(world, task):
    rebooting(world, 1)
    world.agent.set(task.name, reboot_timeout=0)
    assert world.agent.run(task).outcome == "ok"
    assert world.statements() == 0
    assert world.hypervisor.calls.total() == 0


@pytest.mark.parametrize("state", [SHUTDOWN, CRASHED, PAUSED])
def test_d10_a_guest_that_does_not_come_back_is_rebooted_hard_on_libvirt(world, task, state):
    for number, task_state in enumerate(("rebooting", "reboot_pending", "reboot_started"), 1):
        rebooting(world, number, task_state)
        world.hypervisor.states[uuid_of(number)] = state
    run = world.agent.run(task)
    assert run.counters == {"instances": 3, "done": 3}
    for number in (1, 2, 3):
        row = world.row(number)
        assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)
        assert world.hypervisor.states[uuid_of(number)] == RUNNING
    assert {a.action for a in world.rows(models.instance_actions)} == {"reboot"}


def test_says_how_many_were_rebooted_and_nothing_of_those_that_are_only_written(
    world, task, reports
):
    for number in (1, 2, 3):
        rebooting(world, number)
    world.hypervisor.states[uuid_of(3)] = RUNNING
    world.agent.run(task)
    assert reports == [(0, 2), (1, 2), (2, 2)]


def test_a_guest_that_runs_is_not_powered_off_and_its_instance_becomes_idle(world, task):
    rebooting(world, 1, "reboot_started")
    world.hypervisor.states[uuid_of(1)] = RUNNING
    run = world.agent.run(task)
    assert [(c.kind, c.before, c.after) for c in run.changes] == [
        ("task_state", "reboot_started", None)
    ]
    assert world.hypervisor.acts == []
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)


def test_a_guest_that_the_list_leaves_out_is_asked_for(world, task):
    rebooting(world, 1)
    world.hypervisor.states[uuid_of(1)] = RUNNING
    world.hypervisor.hidden.add(uuid_of(1))
    world.agent.run(task)
    assert world.hypervisor.acts == []


def test_a_hard_reboot_that_somebody_makes_is_left_alone_for_an_hour_and_more(world, task):
    rebooting(world, 1, "rebooting_hard", seconds_ago=4000)
    assert world.agent.run(task).counters == {}
    assert world.row(1).task_state == "rebooting_hard"


def test_a_hard_reboot_of_ours_that_was_cut_short_is_carried_on_with(world, task, monkeypatch):
    world.add(1)
    rows = world.database.instances_by_uuid([uuid_of(1)])
    operations = PowerOperations(world.agent)

    def die(*arguments):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(operations, "_each", die)
        patch.setattr(operations._claims, "record", die)
        run = Run("instance_reboot", "test", "operator", False, world.clock.utcnow())
        with pytest.raises(SystemExit):
            world.agent.runner.execute(
                run, lambda context: operations.hard_reboot(rows, context.request_id)
            )
    assert world.row(1).task_state == "rebooting_hard"
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}
    assert (world.row(1).task_state, world.hypervisor.states[uuid_of(1)]) == (None, RUNNING)


def test_the_age_must_be_more_than_the_timeout(world, task):
    rebooting(world, 1, seconds_ago=60)
    rebooting(world, 2, seconds_ago=61)
    world.agent.run(task)
    assert [world.row(number).task_state for number in (1, 2)] == ["rebooting", None]


def test_without_late_reboots_the_hypervisor_is_not_asked(world, task):
    rebooting(world, 1, seconds_ago=59)
    world.agent.run(task)
    assert world.hypervisor.calls.total() == 0


def test_what_a_user_could_not_reboot_is_refused(world, task):
    rebooting(world, 1, vm_state="suspended")
    rebooting(world, 2, vm_state="rescued")
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}
    assert (world.row(1).vm_state, world.row(2).task_state) == ("active", "rebooting")


def test_the_third_failure_sets_it_to_error(world, task, monkeypatch):
    rebooting(world, 1)
    break_down(world, monkeypatch, 1)
    for _attempt in (1, 2):
        assert world.agent.run(task).counters["failed"] == 1
        assert (world.row(1).vm_state, world.row(1).task_state) == ("active", "rebooting")
        # It has a timeout's time again.
        assert world.agent.run(task).counters == {"instances": 1}
        world.clock.sleep(61)
    assert world.agent.run(task).counters["failed"] == 1
    assert (world.row(1).vm_state, world.row(1).task_state) == ("error", None)
    assert len(world.rows(models.instance_faults)) == 3
    assert world.agent.run(task).counters == {}


def test_a_users_new_request_starts_the_count_anew(world, task, monkeypatch):
    rebooting(world, 1)
    with world.engine.begin() as connection:
        for number, user in ((1, None), (2, None), (3, "user-1")):
            connection.execute(
                sa.insert(models.instance_actions).values(
                    id=number, action="reboot", instance_uuid=uuid_of(1), user_id=user, deleted=0
                )
            )
            connection.execute(
                sa.insert(models.instance_actions_events).values(
                    action_id=number, event="compute_reboot_instance", result="Error", deleted=0
                )
            )
    break_down(world, monkeypatch, 1)
    world.agent.run(task)
    assert world.row(1).vm_state == "active"


def test_decides_on_counts_alone():
    assert to_be_tried_again(["a", "b", "c"], {"b": 1, "c": 2}) == {"a", "b"}


def test_one_that_fails_does_not_keep_the_others_waiting(world, task, monkeypatch):
    for number in (1, 2, 3):
        rebooting(world, number)
    break_down(world, monkeypatch, 2)
    run = world.agent.run(task)
    assert run.counters == {"instances": 3, "done": 2, "failed": 1}
    assert [world.row(number).task_state for number in (1, 2, 3)] == [None, "rebooting", None]


def test_d21_a_null_updated_at_is_one_bad_row(world, task):
    world.add(1, task_state="rebooting", updated_at=None)
    rebooting(world, 2)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}


def test_d21_a_null_launched_at_is_one_bad_row(world, task):
    rebooting(world, 1, launched_at=None)
    rebooting(world, 2)
    rebooting(world, 3, launched_at=None)
    world.hypervisor.states[uuid_of(3)] = RUNNING
    run = world.agent.run(task)
    assert run.counters == {"instances": 3, "skipped": 1, "done": 2}
    assert [world.row(number).task_state for number in (1, 2, 3)] == ["rebooting", None, None]


def test_a_hypervisor_that_does_not_answer_ends_the_pass_without_a_change(world, task):
    rebooting(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert world.row(1).task_state == "rebooting"


def test_leaves_the_rows_of_other_hosts(world, task):
    rebooting(world, 1, host="host2")
    assert world.agent.run(task).counters == {}


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement(world, task, count):
    world.add_many(range(count), task_state="rebooting", updated_at=world.clock.utcnow())
    world.agent.run(task)
    # The hard reboots that might be ours are looked for only where there are such.
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0


def test_the_dry_run_plans_and_changes_nothing(world, task):
    rebooting(world, 1)
    rebooting(world, 2)
    world.hypervisor.states[uuid_of(2)] = RUNNING
    run = world.agent.run(task, dry_run=True)
    assert {(c.kind, c.target, c.outcome) for c in run.changes} == {
        ("hard_reboot", uuid_of(1), "planned"),
        ("task_state", uuid_of(2), "planned"),
    }
    assert world.hypervisor.acts == []
    assert [world.row(number).task_state for number in (1, 2)] == ["rebooting", "rebooting"]


def test_runs_on_libvirts_test_driver(tmp_path):
    world = World(tmp_path, states=[SHUTDOWN, RUNNING])
    world.agent.conf.register_opts(opts.OPTIONS, group="compute")
    task = world.agent.build(PollRebootingInstances)
    world.agent.set(task.name, reboot_timeout=60)
    rebooting(world, 0)
    rebooting(world, 1)
    assert world.agent.run(task).counters == {"instances": 2, "done": 2}
    assert {domain.power_state for domain in world.hypervisor.domains().values()} == {RUNNING}
    world.close()


def test_nova_conf_sets_the_timeout(tmp_path):
    world = fake_world(tmp_path, {}, settings="reboot_timeout = 7\n")
    assert world.agent.build(PollRebootingInstances).conf.reboot_timeout == 7
    world.close()
