# SPDX-License-Identifier: Apache-2.0
"""reclaim_queued_deletes: the cases of the behaviour reference, with real disks."""

import contextlib
import datetime
import logging
import os
from unittest.mock import Mock

import pytest

from cepheid.explanation import Kind
from cepheid.run import Run
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.leftovers import Leftovers
from cepheid_plugins.compute.sightings import Sightings, SightingsFile
from cepheid_plugins.database import errors, models
from cepheid_plugins.hypervisor.driver import HypervisorError
from cepheid_plugins.tasks.cleanup_running_deleted_instances import (
    CleanupRunningDeletedInstances,
)
from cepheid_plugins.tasks.reclaim_queued_deletes import ReclaimQueuedDeletes
from tests.explained import instance
from tests.worlds import disk_world, fake_world, uuid_of

RUNNING, PAUSED, SHUTDOWN = 1, 3, 4


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2, 3])
    yield world
    world.close()


@pytest.fixture
def task(world):
    return make(world)


def make(world, reclaim_instance_interval=3600):
    task = world.agent.build(ReclaimQueuedDeletes)
    world.agent.set(task.name, reclaim_instance_interval=reclaim_instance_interval)
    return task


def soft_delete(world, *numbers, minutes_ago=65, **columns):
    """Soft-delete instances as their owner did so long ago."""
    deleted_at = world.clock.utcnow() - datetime.timedelta(minutes=minutes_ago)
    for number in numbers:
        world.hypervisor.states[uuid_of(number)] = SHUTDOWN
        values = {"vm_state": "soft-delete", "power_state": SHUTDOWN, "deleted_at": deleted_at}
        world.update(number, **{**values, **columns})


def fail_to_undefine(world, uuids):
    """Let the hypervisor refuse to forget these domains."""
    undefine = world.hypervisor.undefine

    def refuse(uuid, keep_nvram=False):
        if uuid in uuids:
            raise HypervisorError(f"{uuid}: refused")
        undefine(uuid, keep_nvram)

    world.hypervisor.undefine = refuse


def left(world):
    """Return the numbers of the instances that still have their disk."""
    return [n for n in (1, 2, 3) if (world.path / "instances" / uuid_of(n) / "disk").exists()]


@pytest.mark.parametrize("seconds", [0, -5])
def test_asks_nothing_when_nothing_is_reclaimed(world, seconds):
    soft_delete(world, 1)
    assert world.agent.run(make(world, seconds)).outcome == "ok"
    assert world.statements() == 0
    assert left(world) == [1, 2, 3]


def test_nothing_is_deleted_by_a_clock_that_is_not_the_databases(world, task, monkeypatch):
    soft_delete(world, 1)
    differs = errors.clock_differs(world.database.url, 86400)
    monkeypatch.setattr(world.database, "check_clock", Mock(side_effect=differs))
    run = world.agent.run(task)
    assert (run.outcome, run.changes, left(world)) == ("failed", [], [1, 2, 3])
    assert "clock is 24 h ahead of that of the database" in run.error
    monkeypatch.undo()
    assert world.agent.run(task).counters["done"] == 1


def test_only_what_was_soft_deleted_long_ago_is_deleted(world, task):
    soft_delete(world, 2, minutes_ago=0)
    soft_delete(world, 3)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1}
    assert left(world) == [1, 2]


def test_says_how_many_were_deleted_and_a_failure_is_done_with_too(world, task, reports):
    soft_delete(world, 1, 2, 3)
    world.hypervisor.states[uuid_of(2)] = 6  # crashed, and its process does not end
    world.hypervisor.stubborn.add(uuid_of(2))
    run = world.agent.run(task)
    assert run.counters == {"instances": 3, "done": 2, "failed": 1}
    # The domains, then the files of those whose domains are gone.
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 5), (4, 5), (5, 5)]


def test_one_that_is_being_restored_is_left_alone_without_a_word(world, task):
    soft_delete(world, 1, deleted_at=None, task_state="restoring")
    assert world.agent.run(task).counters == {"instances": 1}
    assert left(world) == [1, 2, 3]


def test_afterwards_row_domain_and_files_are_gone(world, task):
    soft_delete(world, 1)
    soft_deleted_at = world.row(1).deleted_at
    world.agent.run(task)
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("deleted", None, 0)
    assert row.deleted == row.id
    assert row.terminated_at == row.deleted_at == world.clock.utcnow() > soft_deleted_at
    assert uuid_of(1) not in world.hypervisor.states
    assert left(world) == [2, 3]
    assert all(extra.deleted for extra in world.rows(models.instance_extra)[:1])


def test_four_notifications_are_sent_in_order(tmp_path, caplog):
    world = disk_world(tmp_path, [1], settings="[oslo_messaging_notifications]\ndriver = log\n")
    task = make(world)
    soft_delete(world, 1)
    with caplog.at_level(logging.INFO):
        world.agent.run(task)
    sent = [r.name.rpartition("instance.")[2] for r in caplog.records if "notification" in r.name]
    assert sent == ["delete.start", "shutdown.start", "shutdown.end", "delete.end"]
    world.close()


def test_one_that_fails_stays_soft_deleted_and_the_next_one_is_deleted(world, task):
    soft_delete(world, 1, 2)
    world.hypervisor.states[uuid_of(1)] = 6  # crashed, and its process does not end
    world.hypervisor.stubborn.add(uuid_of(1))
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1, "failed": 1}
    assert (world.row(1).vm_state, world.row(1).task_state) == ("soft-delete", None)
    assert left(world) == [1, 3]
    world.hypervisor.stubborn.clear()
    world.agent.run(task)
    assert left(world) == [3]


def test_d3_one_that_is_restored_meanwhile_is_not_touched(world, task, monkeypatch):
    soft_delete(world, 1)
    look = world.hypervisor.domains

    def restore_then_look():
        rows = world.database.instances_by_uuid([uuid_of(1)])
        monkeypatch.setattr(world.hypervisor, "domains", look)
        domains = look()
        DeletionOperations(world.agent).restore(rows, "req-restore")
        return domains

    monkeypatch.setattr(world.hypervisor, "domains", restore_then_look)
    run = world.agent.run(task)
    assert run.counters == {"instances": 1, "raced": 1}
    assert (world.row(1).vm_state, world.row(1).deleted) == ("active", 0)
    assert world.hypervisor.states[uuid_of(1)] == RUNNING
    assert left(world) == [1, 2, 3]


def test_one_that_is_restored_and_soft_deleted_anew_meanwhile_keeps_its_time(
    world, task, monkeypatch
):
    soft_delete(world, 1, 2)
    look = world.hypervisor.domains

    def look_then_delete_anew():
        monkeypatch.setattr(world.hypervisor, "domains", look)
        soft_delete(world, 1, minutes_ago=0)
        return look()

    monkeypatch.setattr(world.hypervisor, "domains", look_then_delete_anew)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "raced": 1, "done": 1}
    assert (world.row(1).vm_state, world.row(1).task_state) == ("soft-delete", None)
    assert left(world) == [1, 3]
    assert world.agent.run(task).counters == {"instances": 1}
    world.clock.sleep(3700)
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}


def test_the_time_of_a_soft_deletion_may_be_written_as_anybody_writes_it(world, task):
    soft_delete(world, 1)
    with world.engine.begin() as connection:
        text = "UPDATE instances SET deleted_at = substr(deleted_at, 1, 19) WHERE uuid = ?"
        connection.exec_driver_sql(text, (uuid_of(1),))
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}


def test_d5_a_deletion_that_was_cut_short_is_carried_on_with(world, task, monkeypatch):
    soft_delete(world, 1)
    rows = world.database.instances_by_uuid([uuid_of(1)])
    operations = DeletionOperations(world.agent)

    def die(*arguments):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(operations._claims, "record", die)
        run = Run("reclaim_queued_deletes", "test", "timer", False, world.clock.utcnow())
        with pytest.raises(SystemExit):
            world.agent.runner.execute(
                run, lambda context: operations.delete(rows, context.request_id)
            )
    # The files are gone, the row is alive: a periodic task has to see it again.
    assert (left(world), world.row(1).task_state, world.row(1).deleted) == ([2, 3], "deleting", 0)
    assert world.agent.run(task).counters == {"instances": 1, "done": 1}
    assert world.row(1).deleted == world.row(1).id


def test_a_deletion_that_somebody_else_makes_is_left_alone(world, task):
    soft_delete(world, 1, task_state="deleting")
    assert world.agent.run(task).counters == {"instances": 1, "busy": 1}
    assert left(world) == [1, 2, 3]


@pytest.mark.parametrize("state", [RUNNING, PAUSED, None])
def test_a_domain_that_runs_is_not_what_the_row_says_and_is_left_alone(world, task, state):
    soft_delete(world, 1, 2)
    world.hypervisor.states[uuid_of(1)] = state
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}
    assert left(world) == [1, 3]


def test_a_deleted_at_that_is_null_is_one_bad_row(world, task):
    soft_delete(world, 1, deleted_at=None)
    soft_delete(world, 2)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}
    assert left(world) == [1, 3]


def test_leaves_the_rows_of_other_hosts_and_hidden_ones(world, task):
    soft_delete(world, 1, host="host2")
    soft_delete(world, 2, hidden=True)
    assert world.agent.run(task).counters == {}
    assert left(world) == [1, 2, 3]


def test_a_hypervisor_that_does_not_answer_ends_the_pass_without_a_change(world, task):
    soft_delete(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert left(world) == [1, 2, 3]


def test_one_pass_deletes_twenty_at_most_unless_told_otherwise(world, task):
    assert task.conf.max_changes == 20
    soft_delete(world, 1, 2, 3)
    world.agent.set(task.name, max_changes=2)
    run = world.agent.run(task)
    assert run.counters == {"instances": 3, "done": 2, "refused": 1}
    assert len(left(world)) == 1


def test_however_many_cannot_be_deleted_the_others_have_their_turn(world, task):
    soft_delete(world, 1, 2, 3)
    world.agent.set(task.name, max_changes=1)
    first = world.agent.run(task, dry_run=True).changes[0].target
    fail_to_undefine(world, {uuid_of(number) for number in (1, 2, 3)} - {uuid_of(1)})
    assert first != uuid_of(1)
    for _ in range(3):
        world.agent.run(task)
    assert world.row(1).deleted


def test_however_often_the_agent_is_restarted_the_others_have_their_turn(world):
    soft_delete(world, 1, 2, 3)
    task = make(world)
    world.agent.set(task.name, max_changes=1)
    first = world.agent.run(task, dry_run=True).changes[0].target
    fail_to_undefine(world, {uuid_of(number) for number in (1, 2, 3)} - {uuid_of(1)})
    assert first != uuid_of(1)
    for _ in range(3):
        world.agent.run(make(world))  # a task that is built anew, as after a restart
    assert world.row(1).deleted


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement(tmp_path, count):
    world = fake_world(tmp_path, {})
    task = make(world)
    world.add_many(range(count), vm_state="soft-delete", deleted_at=world.clock.utcnow())
    world.agent.run(task)
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0
    world.close()


def test_the_dry_run_plans_and_changes_nothing(world, task):
    soft_delete(world, 1)
    run = world.agent.run(task, dry_run=True)
    assert [(c.kind, c.target, c.outcome) for c in run.changes] == [
        ("delete", uuid_of(1), "planned")
    ]
    assert left(world) == [1, 2, 3]
    assert world.row(1).deleted == 0


@contextlib.contextmanager
def disk_in_use(world, number):
    with (world.path / "instances" / uuid_of(number) / "disk").open("rb"):
        yield f"{os.getpid()}"


def test_a_dry_run_says_whose_files_a_run_would_keep_and_the_run_keeps_them(world, task):
    soft_delete(world, 1, 2)
    with disk_in_use(world, 1) as pid:
        planned = {c.target: c.reason for c in world.agent.run(task, dry_run=True).changes}
        (verdict,) = task.explain(instance(uuid_of(1)))
        (other,) = task.explain(instance(uuid_of(2)))
        run = world.agent.run(task)
    says = "; its files would be kept: "
    assert says in planned[uuid_of(1)]
    assert pid in planned[uuid_of(1)].partition(says)[2]
    assert (verdict.kind, verdict.text) == (Kind.ACTS, planned[uuid_of(1)])
    assert says not in planned[uuid_of(2)] == other.text
    assert run.counters == {"instances": 2, "done": 2}
    assert left(world) == [1, 3]


def test_a_run_that_acts_looks_at_obstacles_once_and_a_dry_run_at_those_that_have_their_turn(
    world, task, monkeypatch
):
    looks = []
    look = Leftovers.obstacles_beside_domains

    def remember(self, uuids, copies=True):
        looks.append(len(uuids))
        return look(self, uuids, copies)

    monkeypatch.setattr(Leftovers, "obstacles_beside_domains", remember)
    soft_delete(world, 1, 2, 3)
    world.agent.set(task.name, max_changes=2)
    world.agent.run(task, dry_run=True)
    assert looks == [2]
    world.add(4)
    task.explain(instance(uuid_of(4)))
    assert looks == [2]
    world.agent.run(task)
    assert looks == [2, 2]


def test_what_was_seen_of_the_host_is_read_once_a_pass(world, task, monkeypatch):
    reads = []
    read = SightingsFile.read
    monkeypatch.setattr(SightingsFile, "read", lambda self: reads.append(1) or read(self))
    world.agent.run(task)
    assert reads == []
    soft_delete(world, 1)
    world.agent.run(task)
    assert reads == [1]


def test_nova_conf_sets_the_age(tmp_path):
    world = fake_world(tmp_path, {}, settings="reclaim_instance_interval = 7\n")
    task = world.agent.build(ReclaimQueuedDeletes)
    # In Nova, too, it is an age; the spacing stays.
    assert (task.conf.reclaim_instance_interval, task.conf.spacing) == (7, 0)
    world.close()


@pytest.mark.parametrize("seen_as", [("host2", "hypervisor-1"), ("host1", "another machine")])
def test_a_host_that_is_not_what_it_was_deletes_nothing_until_that_is_confirmed(
    world, task, seen_as
):
    world.hypervisor.system_uuid = "hypervisor-1"
    soft_delete(world, 3)
    sightings = Sightings()
    sightings.look(*seen_as, [uuid_of(1)], [], [], world.clock.utcnow())
    SightingsFile(str(world.path)).write(sightings)
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert left(world) == [1, 2, 3]
    sightings.look("host1", "hypervisor-1", [uuid_of(1)], [], [], world.clock.utcnow())
    SightingsFile(str(world.path)).write(sightings)
    world.agent.run(task)
    assert left(world) == [1, 2]


def test_a_database_restored_from_an_old_copy_deletes_nobody_who_was_in_use_since(world, task):
    """Instance 1 was soft-deleted and restored again; the copy is from in between."""
    looks = world.agent.build(CleanupRunningDeletedInstances)
    soft_delete(world, 2)
    world.agent.run(looks)
    soft_delete(world, 1, minutes_ago=65)
    world.agent.run(looks)
    run = world.agent.run(task)
    assert (run.outcome, run.counters["done"], run.counters["skipped"]) == ("partial", 1, 1)
    assert left(world) == [1, 3]
    # 3 is being soft-deleted for long, as behind a lock in Nova: nobody has restored it.
    soft_delete(world, 3, minutes_ago=0, vm_state="active", task_state="soft-deleting")
    world.clock.sleep(3700)
    world.agent.run(looks)
    world.update(3, vm_state="soft-delete", task_state=None)
    assert world.agent.run(task).counters["done"] == 1
    assert left(world) == [1]
    SightingsFile(str(world.path)).path.unlink()
    assert world.agent.run(task).counters["done"] == 1
    assert left(world) == []
