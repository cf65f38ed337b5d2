# SPDX-License-Identifier: Apache-2.0
"""poll_shelved_instances: the cases of the behaviour reference, with real disks."""

import datetime
import logging

import pytest

from cepheid_plugins.compute.shelf import shelved_at
from cepheid_plugins.compute.shelving import ShelvingOperations
from cepheid_plugins.compute.sightings import Sightings, SightingsFile
from cepheid_plugins.database import models
from cepheid_plugins.tasks.poll_shelved_instances import PollShelvedInstances
from tests.worlds import disk_world, fake_world, uuid_of

RUNNING, PAUSED, SHUTDOWN = 1, 3, 4
NOON = datetime.datetime(2026, 11, 23, 12, 0)


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2])
    yield world
    world.close()


@pytest.fixture
def task(world):
    return make(world)


def make(world, shelved_offload_time=3600):
    task = world.agent.build(PollShelvedInstances)
    world.agent.set(task.name, shelved_offload_time=shelved_offload_time)
    return task


def shelve(world, *numbers, seconds_ago=3601):
    """Shelve instances as their owner did so long ago."""
    rows = world.database.instances_by_uuid([uuid_of(number) for number in numbers])
    results = ShelvingOperations(world.agent).shelve(rows, "req-shelve")
    assert set(results.values()) == {None}
    world.hypervisor.acts.clear()
    then = world.clock.utcnow() - datetime.timedelta(seconds=seconds_ago)
    write_shelved_at(world, then.isoformat(timespec="microseconds"), *numbers)


def write_shelved_at(world, text, *numbers):
    world.database.set_system_metadata({uuid_of(n): {"shelved_at": text} for n in numbers})


def directory(world, number):
    return world.path / "instances" / uuid_of(number)


@pytest.mark.parametrize("seconds", [-1, 0])
def test_asks_nothing_when_nothing_is_offloaded_later(world, seconds):
    shelve(world, 1)
    task = make(world, seconds)
    world.database.statements.clear()
    assert world.agent.run(task).outcome == "ok"
    assert world.statements() == 0
    assert world.row(1).vm_state == "shelved"


def test_without_shelved_instances_asks_one_query(world, task):
    assert world.agent.run(task).counters == {}
    assert world.statements() == 1


def test_says_how_many_were_offloaded(world, task, reports):
    shelve(world, 1, 2)
    world.agent.run(task)
    # The domains, then the files.
    assert reports == [(0, 2), (1, 2), (2, 2), (2, 4), (3, 4), (4, 4)]


def test_the_age_must_be_more_than_the_offload_time(world, task):
    shelve(world, 1, seconds_ago=3600)
    shelve(world, 2, seconds_ago=3601)
    write_shelved_at(world, (world.clock.utcnow() - datetime.timedelta(hours=1)).isoformat(), 1)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1}
    assert [world.row(n).vm_state for n in (1, 2)] == ["shelved", "shelved_offloaded"]


def test_afterwards_the_instance_is_on_no_host_and_nothing_of_it_is_here(world, task):
    shelve(world, 1)
    world.agent.run(task)
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("shelved_offloaded", None, SHUTDOWN)
    assert (row.host, row.node, row.deleted) == (None, None, 0)
    assert uuid_of(1) not in world.hypervisor.states
    assert not directory(world, 1).exists()
    assert directory(world, 2).exists()


def test_both_notifications_are_sent(tmp_path, caplog):
    world = disk_world(tmp_path, [1], settings="[oslo_messaging_notifications]\ndriver = log\n")
    task = make(world)
    shelve(world, 1)
    with caplog.at_level(logging.INFO):
        world.agent.run(task)
    sent = [r.name.rpartition("instance.")[2] for r in caplog.records if "notification" in r.name]
    assert sent == ["shelve_offload.start", "shelve_offload.end"]
    world.close()


def test_only_the_idle_one_of_two_is_offloaded(world, task):
    shelve(world, 1, 2)
    world.update(1, task_state="spawning")
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "busy": 1, "done": 1}
    assert world.row(1).vm_state == "shelved"


def test_one_that_moves_on_is_left_alone_and_the_next_one_is_offloaded(world, task, monkeypatch):
    shelve(world, 1, 2)
    read = world.database.instances_in_vm_state

    def read_then_unshelve(*asked):
        rows = read(*asked)
        world.update(1, task_state="unshelving")
        return rows

    monkeypatch.setattr(world.database, "instances_in_vm_state", read_then_unshelve)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1, "raced": 1}
    assert directory(world, 1).exists()


@pytest.mark.parametrize("state", [RUNNING, PAUSED])
def test_a_domain_that_is_left_running_is_powered_off_without_waiting(world, task, state):
    shelve(world, 1)
    world.hypervisor.states[uuid_of(1)] = state
    started = world.clock.monotonic()
    world.agent.run(task)
    assert ("virDomainDestroy", uuid_of(1)) in world.hypervisor.acts
    assert ("virDomainShutdown", uuid_of(1)) not in world.hypervisor.acts
    assert world.clock.monotonic() == started
    assert world.row(1).vm_state == "shelved_offloaded"


def test_one_that_fails_leaves_a_fault_and_is_tried_again(world, task):
    shelve(world, 1, 2)
    world.hypervisor.states[uuid_of(1)] = RUNNING
    world.hypervisor.stubborn.add(uuid_of(1))
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "done": 1, "failed": 1}
    assert (world.row(1).vm_state, world.row(1).task_state) == ("shelved", None)
    assert len(world.rows(models.instance_faults)) == 1
    world.hypervisor.stubborn.clear()
    world.agent.run(task)
    assert world.row(1).vm_state == "shelved_offloaded"


def test_one_without_a_copy_is_never_offloaded(world, task):
    shelve(world, 1)
    for path in (world.path / "shelved" / uuid_of(1)).iterdir():
        path.unlink()
    assert world.agent.run(task).counters["failed"] == 1
    assert directory(world, 1).exists()


def test_d6_a_shelved_at_without_a_fraction_is_read(world, task):
    shelve(world, 1)
    write_shelved_at(world, "2026-11-23T10:00:00", 1)
    world.agent.run(task)
    assert world.row(1).vm_state == "shelved_offloaded"


@pytest.mark.parametrize("text", [None, "", "yesterday"])
def test_d6_a_shelved_at_that_is_missing_or_no_time_is_one_bad_row(world, task, text):
    shelve(world, 1, 2)
    if text is None:
        with world.engine.begin() as connection:
            table = models.instance_system_metadata
            connection.execute(
                table.delete().where(
                    table.c.key == "shelved_at", table.c.instance_uuid == uuid_of(1)
                )
            )
    else:
        write_shelved_at(world, text, 1)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "skipped": 1, "done": 1}
    assert [world.row(n).vm_state for n in (1, 2)] == ["shelved", "shelved_offloaded"]


def test_reads_every_spelling_of_the_time():
    assert shelved_at("2026-11-23T12:00:00.000000") == NOON
    assert shelved_at("2026-11-23T12:00:00") == NOON
    assert shelved_at("2026-11-23T13:00:00+01:00") == NOON
    with pytest.raises(ValueError, match="no shelved_at"):
        shelved_at(None)
    with pytest.raises(ValueError, match="no time: 'soon'"):
        shelved_at("soon")


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_two_statements(tmp_path, count):
    world = fake_world(tmp_path, {})
    task = make(world)
    world.add_many(range(count), vm_state="shelved")
    write_shelved_at(world, "2026-11-23T12:00:00", *range(count))
    world.database.statements.clear()
    world.agent.run(task)
    assert world.statements() == 2
    assert world.hypervisor.calls.total() == 0
    world.close()


def test_the_dry_run_plans_and_changes_nothing(world, task):
    shelve(world, 1)
    run = world.agent.run(task, dry_run=True)
    assert [(c.kind, c.target, c.outcome) for c in run.changes] == [
        ("offload", uuid_of(1), "planned")
    ]
    assert world.row(1).vm_state == "shelved"
    assert directory(world, 1).exists()


def test_a_hypervisor_that_does_not_answer_ends_the_pass_without_a_change(world, task):
    shelve(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert (world.row(1).vm_state, world.row(1).host) == ("shelved", "host1")
    assert directory(world, 1).exists()


def test_one_pass_offloads_twenty_at_most_unless_told_otherwise(task):
    assert task.conf.max_changes == 20


def test_d18_the_help_says_what_a_spacing_of_0_does(task):
    (spacing,) = [o for o in task.all_options() if o.name == "spacing"]
    assert spacing.default == 3600
    assert "0 means 60; a negative number switches the task off" in spacing.help


def test_nova_conf_sets_the_spacing_and_the_time(tmp_path):
    settings = "shelved_poll_interval = 120\nshelved_offload_time = 7\n"
    world = fake_world(tmp_path, {}, settings=settings)
    task = world.agent.build(PollShelvedInstances)
    assert (task.conf.spacing, task.conf.shelved_offload_time) == (120, 7)
    world.close()


def test_another_hypervisor_under_the_same_name_offloads_nothing(world, task):
    shelve(world, 1)
    sightings = Sightings()
    live = [uuid_of(1), uuid_of(2)]
    sightings.look("host1", world.hypervisor.identity, live, [], live, world.clock.utcnow())
    SightingsFile(str(world.path)).write(sightings)
    identity, world.hypervisor.system_uuid = world.hypervisor.system_uuid, "another machine"
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert (world.row(1).vm_state, directory(world, 1).exists()) == ("shelved", True)
    world.hypervisor.system_uuid = identity
    world.agent.run(task)
    assert world.row(1).vm_state == "shelved_offloaded"


def test_one_that_cannot_be_offloaded_keeps_none_of_the_others_waiting(world, task):
    shelve(world, 1, 2)
    world.agent.set(task.name, max_changes=1)
    first = world.agent.run(task, dry_run=True).changes[0].target
    (world.path / "shelved" / first / "vda.qcow2").unlink()
    assert [
        change.outcome for change in world.agent.run(task).changes if change.outcome != "refused"
    ] == ["failed"]
    done = [change for change in world.agent.run(task).changes if change.outcome == "done"]
    assert [change.target for change in done] == [({uuid_of(1), uuid_of(2)} - {first}).pop()]
