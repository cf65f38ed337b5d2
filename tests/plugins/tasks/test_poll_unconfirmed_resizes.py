# SPDX-License-Identifier: Apache-2.0
"""poll_unconfirmed_resizes: the cases of the behaviour reference, on one host and between two."""

import datetime
import shutil

import pytest
import sqlalchemy as sa

from cepheid.run import Run
from cepheid_plugins.compute.resize_verdicts import Verdict, decide
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.compute.sightings import Sightings, SightingsFile
from cepheid_plugins.database import models
from cepheid_plugins.database.records import Instance, Migration
from cepheid_plugins.tasks.poll_unconfirmed_resizes import PollUnconfirmedResizes
from tests.worlds import disk_world, fake_world, move, move_many, other_host, uuid_of

RUNNING, SHUTDOWN = 1, 4
NOON = datetime.datetime(2026, 11, 23, 12, 0)
WINDOW_SECONDS = 60


@pytest.fixture
def source(tmp_path):
    """host1, where the instances came from."""
    (tmp_path / "host1").mkdir()
    world = disk_world(tmp_path / "host1", [1, 2, 3])
    yield world
    world.close()


@pytest.fixture
def destination(source, tmp_path):
    """host2, where they are."""
    (tmp_path / "host2").mkdir()
    world = other_host(source, tmp_path / "host2", dict.fromkeys((1, 2, 3), RUNNING))
    yield world
    world.close()


def poll(world, dry_run=None, window_seconds=WINDOW_SECONDS):
    """Run one pass of the host's agent."""
    task = world.agent.build(PollUnconfirmedResizes)
    world.agent.set(task.name, resize_confirm_window=window_seconds)
    world.database.statements.clear()
    return world.agent.run(task, dry_run=dry_run)


def statuses(world):
    return [row.status for row in world.rows(models.migrations)]


def entries(world):
    return sorted(path.name for path in (world.path / "instances").iterdir())


def leave_behind(world, number, **columns):
    """Write a migration within host1 that nobody has ended since last month."""
    values = {
        "instance_uuid": uuid_of(number),
        "status": "confirming",
        "migration_type": "resize",
        "source_compute": "host1",
        "dest_compute": "host1",
        "updated_at": world.clock.utcnow() - datetime.timedelta(days=30),
        "deleted": 0,
        **columns,
    }
    with world.engine.begin() as connection:
        connection.execute(sa.insert(models.migrations).values(values))


def resize(world, number):
    """Resize an instance on its host; it waits for its confirmation."""
    rows = world.database.instances_by_uuid([uuid_of(number)])
    results = ResizeOperations(world.agent).resize(rows, "req-resize", Size(2, 256))
    assert results == {uuid_of(number): None}


def everything(world):
    """Return all that a confirmation changes."""
    tables = (models.instances, models.instance_extra, models.instance_system_metadata)
    acts = list(world.hypervisor.acts)
    return [world.rows(table) for table in tables], statuses(world), entries(world), acts


# The decision.


def migration(**columns):
    fields = dict.fromkeys(Migration._fields)
    return Migration(**{**fields, "status": "finished", "updated_at": NOON, **columns})


def instance(vm_state, task_state, **columns):
    fields = dict.fromkeys(Instance._fields)
    states = {"vm_state": vm_state, "task_state": task_state, "updated_at": NOON}
    return Instance(**{**fields, **states, **columns})


@pytest.mark.parametrize(
    ("vm_state", "task_state", "verdict"),
    [
        ("resized", None, Verdict.CONFIRM),
        ("error", None, Verdict.ERROR),
        # Before any task_state.
        ("error", "deleting", Verdict.ERROR),
        ("error", "resize_finish", Verdict.ERROR),
        ("resized", "deleting", Verdict.LEAVE),
        ("resized", "soft-deleting", Verdict.LEAVE),
        ("active", "resize_finish", Verdict.LEAVE),
        ("active", "rebooting", Verdict.ERROR),
        ("resized", "rebooting", Verdict.ERROR),
        # Confirmed by hand already.
        ("active", None, Verdict.ERROR),
        ("stopped", None, Verdict.ERROR),
    ],
)
def test_decides_by_the_first_rule_that_matches(vm_state, task_state, verdict):
    assert decide(migration(), instance(vm_state, task_state)).verdict is verdict


def test_decides_that_a_migration_without_its_instance_is_an_error():
    assert decide(migration(), None).verdict is Verdict.ERROR


def test_d19_a_revert_in_flight_leaves_the_migration_healthy():
    assert decide(migration(), instance("resized", "resize_reverting")).verdict is Verdict.LEAVE


def test_d19_a_row_that_was_read_too_early_leaves_the_migration_healthy():
    before = NOON - datetime.timedelta(seconds=1)
    stale = instance("active", "resize_migrated", updated_at=before)
    assert decide(migration(), stale).verdict is Verdict.LEAVE
    assert decide(migration(), instance("active", "resize_migrated")).verdict is Verdict.ERROR


def test_d21_an_updated_at_that_is_null_is_one_bad_row():
    row = instance("active", None, updated_at=None)
    assert decide(migration(), row).verdict is Verdict.SKIP


@pytest.mark.parametrize("status", ["finished", "confirming"])
def test_a_move_between_cells_is_left_to_nova(status):
    moved = migration(status=status, cross_cell_move=True)
    assert decide(moved, None).verdict is Verdict.SKIP


@pytest.mark.parametrize(
    ("vm_state", "task_state", "verdict"),
    [
        ("resized", None, Verdict.CONFIRM),
        ("resized", "deleting", Verdict.LEAVE),
        ("active", "soft-deleting", Verdict.LEAVE),
        ("resized", "resize_reverting", Verdict.LEAVE),
        ("resized", "resize_confirming", Verdict.LEAVE),
        # Reset by an administrator, and perhaps resized again.
        ("active", None, Verdict.SKIP),
        ("stopped", None, Verdict.SKIP),
        ("error", None, Verdict.SKIP),
        ("active", "resize_prep", Verdict.SKIP),
        ("active", "resize_finish", Verdict.SKIP),
    ],
)
def test_decides_that_a_confirmation_is_carried_on_with_where_the_instance_waits_for_it(
    vm_state, task_state, verdict
):
    assert decide(migration(status="confirming"), instance(vm_state, task_state)).verdict is verdict


def test_decides_that_a_confirmation_without_its_instance_is_an_error():
    assert decide(migration(status="confirming"), None).verdict is Verdict.ERROR


@pytest.mark.parametrize("status", ["finished", "confirming"])
def test_decides_that_nothing_is_confirmed_by_a_migration_that_a_newer_one_has_followed(status):
    verdict, reason = decide(migration(status=status), instance("resized", None), newer=7)
    assert verdict is Verdict.SKIP
    assert "migration 7" in reason


@pytest.mark.parametrize("status", ["finished", "confirming"])
def test_decides_that_nothing_is_confirmed_of_an_instance_that_is_elsewhere(status):
    there = instance("resized", None, host="host3")
    verdict, reason = decide(migration(status=status, dest_compute="host2"), there)
    assert verdict is Verdict.SKIP
    assert "host3" in reason


# On the destination.


def test_asks_nothing_when_the_window_is_zero(source, destination):
    move(source, 1, seconds_ago=3600)
    assert poll(destination, window_seconds=0).outcome == "ok"
    assert destination.statements() == 0
    assert statuses(source) == ["finished"]


def test_a_resize_is_confirmed_when_it_has_waited_for_the_window(source, destination):
    move(source, 1, seconds_ago=WINDOW_SECONDS)
    move(source, 2, seconds_ago=WINDOW_SECONDS - 1)
    assert poll(destination).counters == {"migrations": 1, "done": 1}
    # The rest is the source's, which is asked by the migration's row.
    assert statuses(source) == ["confirming", "finished"]
    assert entries(source) == [f"{uuid_of(1)}_resize", f"{uuid_of(2)}_resize", uuid_of(3)]
    assert poll(source).counters == {"confirming": 1, "done": 1}
    assert statuses(source) == ["confirmed", "finished"]
    assert entries(source) == [f"{uuid_of(2)}_resize", uuid_of(3)]
    assert uuid_of(1) not in source.hypervisor.states
    assert destination.hypervisor.states[uuid_of(1)] == RUNNING
    assert (source.row(1).vm_state, source.row(1).task_state) == ("active", None)
    (action,) = source.rows(models.instance_actions)
    assert (action.action, action.message) == ("confirmResize", None)


@pytest.mark.parametrize(("state", "vm_state"), [(SHUTDOWN, "stopped"), (RUNNING, "active")])
def test_the_instance_is_then_what_its_guest_was(source, destination, state, vm_state):
    move(source, 1, seconds_ago=3600)
    source.update(1, power_state=state)
    poll(destination)
    poll(source)
    assert source.row(1).vm_state == vm_state


def test_a_resize_on_one_host_is_confirmed_in_one_pass(source):
    rows = source.database.instances_by_uuid([uuid_of(1)])
    ResizeOperations(source.agent).resize(rows, "req-resize", Size(2, 256))
    source.clock.sleep(3600)
    assert poll(source).counters == {"migrations": 1, "done": 1}
    assert statuses(source) == ["confirmed"]
    assert f"{uuid_of(1)}_resize" not in entries(source)
    assert source.row(1).vm_state == "active"


def test_says_how_many_were_confirmed_and_nothing_of_those_handed_to_another_host(
    source, destination, reports
):
    rows = source.database.instances_by_uuid([uuid_of(1), uuid_of(2)])
    ResizeOperations(source.agent).resize(rows, "req-resize", Size(2, 256))
    move(source, 3, seconds_ago=3600)
    poll(destination)
    assert reports == []
    source.clock.sleep(3600)
    poll(source)
    assert reports == [(0, 1), (1, 1), (1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_confirmed_any_more_is_an_error_and_the_others_go_on(source, destination):
    for number in (1, 2, 3):
        move(source, number, seconds_ago=3600)
    source.update(1, deleted=1)
    source.update(2, vm_state="error")
    run = poll(destination)
    assert run.counters == {"migrations": 3, "done": 3}
    assert statuses(source) == ["error", "error", "confirming"]
    # Only the migrations' rows: no fault, no action, no other state.
    assert source.rows(models.instance_faults) == []
    assert len(source.rows(models.instance_actions)) == 1
    assert source.row(2).task_state is None


def test_deleted_migrations_of_deleted_instances_are_seen(source, destination):
    move(source, 1, seconds_ago=3600, deleted=1)
    source.update(1, deleted=1)
    poll(destination)
    assert statuses(source) == ["error"]


def test_one_that_is_reverted_meanwhile_is_left_alone(source, destination, monkeypatch):
    move(source, 1, seconds_ago=3600)
    move(source, 2, seconds_ago=3600)
    read = destination.database.instances_by_uuid

    def read_then_revert(uuids):
        rows = read(uuids)
        source.update(1, task_state="resize_reverting")
        return rows

    monkeypatch.setattr(destination.database, "instances_by_uuid", read_then_revert)
    run = poll(destination)
    assert run.counters == {"migrations": 2, "done": 1, "raced": 1}
    assert statuses(source) == ["finished", "confirming"]


def test_leaves_the_migrations_of_other_hosts(source, destination):
    move(source, 1, seconds_ago=3600, dest_compute="host3")
    assert poll(destination).counters == {}
    assert statuses(source) == ["finished"]


# On the source.


def test_nothing_is_lost_when_either_is_down_for_an_hour(source, destination):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    source.clock.sleep(3600)
    assert poll(source).counters == {"confirming": 1, "done": 1}
    assert statuses(source) == ["confirmed"]
    assert poll(source).counters == poll(destination).counters == {}


def test_d8_a_confirmation_that_nova_left_behind_is_carried_on_with(source):
    """Nova's API has written the status, and its message to the source was lost."""
    move(source, 1, seconds_ago=3599, status="confirming")
    assert poll(source).counters == {"confirming": 1}
    assert statuses(source) == ["confirming"]
    source.clock.sleep(1)
    assert poll(source).counters == {"confirming": 1, "done": 1}
    assert statuses(source) == ["confirmed"]
    assert source.row(1).vm_state == "active"


def test_a_confirmation_that_a_run_of_this_host_goes_on_with_is_left_to_it(source):
    rows = source.database.instances_by_uuid([uuid_of(1)])
    operations = ResizeOperations(source.agent)
    operations.resize(rows, "req-resize", Size(2, 256))
    passes = []

    def confirm(context):
        original = operations._clean_source

        def poll_meanwhile(row):
            passes.append(poll(source).counters)
            return original(row)

        operations._clean_source = poll_meanwhile
        operations.confirm_instances(
            source.database.instances_by_uuid([uuid_of(1)]), context.request_id
        )

    run = Run("instance_confirm-resize", "test", "operator", False, source.clock.utcnow())
    source.agent.runner.execute(run, confirm)
    assert passes == [{"confirming": 1}]
    assert statuses(source) == ["confirmed"]


def test_a_confirmation_whose_instance_is_gone_is_an_error(source, destination):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    source.update(1, deleted=1)
    poll(source)
    assert statuses(source) == ["error"]


def test_one_that_fails_does_not_keep_the_others_waiting(source, destination):
    move(source, 1, seconds_ago=3600)
    move(source, 2, seconds_ago=3600)
    poll(destination)
    source.hypervisor.states[uuid_of(1)] = RUNNING
    run = poll(source)
    assert run.counters == {"confirming": 2, "done": 1, "failed": 1}
    assert statuses(source) == ["error", "confirmed"]
    assert source.row(1).vm_state == "error"
    assert source.hypervisor.states[uuid_of(1)] == RUNNING


def test_a_hypervisor_that_does_not_answer_leaves_it_for_a_later_pass(source, destination):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    source.hypervisor.available = False
    run = poll(source)
    assert (run.outcome, run.changes) == ("failed", [])
    assert statuses(source) == ["confirming"]
    assert source.row(1).vm_state == "resized"
    source.hypervisor.available = True
    poll(source)
    assert statuses(source) == ["confirmed"]


def test_storage_that_is_away_leaves_it_for_a_later_pass(source, destination):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    away = (source.path / "instances").rename(source.path / "away")
    run = poll(source)
    assert (run.outcome, run.changes) == ("partial", [])
    assert statuses(source) == ["confirming"]
    assert (source.row(1).vm_state, source.row(1).task_state) == ("resized", None)
    away.rename(source.path / "instances")
    poll(source)
    assert statuses(source) == ["confirmed"]


def test_a_mount_point_without_its_storage_is_not_taken_for_files_that_are_gone(
    source, destination
):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    away = (source.path / "instances").rename(source.path / "away")
    (source.path / "instances").mkdir()
    (source.path / "instances" / "compute_nodes").write_text("{}")  # an image cache's pass
    before = everything(source)
    task = source.agent.build(PollUnconfirmedResizes)
    run = poll(source)
    assert (run.outcome, run.changes, everything(source)) == ("partial", [], before)
    # A command asks for it as well.
    rows = source.database.instances_by_uuid([uuid_of(1)])
    results = ResizeOperations(source.agent).confirm_instances(rows, "req-1")
    assert "Is its storage mounted?" in str(results[uuid_of(1)])
    assert everything(source) == before
    (source.path / "instances" / "compute_nodes").unlink()
    (source.path / "instances").rmdir()
    away.rename(source.path / "instances")
    source.agent.run(task)
    assert statuses(source) == ["confirmed"]
    assert entries(source) == [uuid_of(2), uuid_of(3)]


@pytest.mark.parametrize("kept", [[], [2]], ids=["the last one here", "beside others"])
def test_a_confirmation_that_was_killed_when_the_files_were_gone_is_carried_on_with(
    source, destination, kept
):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    source.hypervisor.undefine(uuid_of(1))
    for path in (source.path / "instances").iterdir():
        if path.name not in {uuid_of(number) for number in kept}:
            shutil.rmtree(path)
    assert poll(source).counters == {"confirming": 1, "done": 1}
    assert statuses(source) == ["confirmed"]


def test_disks_that_are_elsewhere_leave_no_files_of_a_resize_behind(source):
    for number in (1, 2, 3):
        (source.path / "instances" / uuid_of(number)).rename(source.path / uuid_of(number))
        definitions = source.hypervisor.definitions
        definitions[uuid_of(number)] = definitions[uuid_of(number)].replace("instances/", "")
    resize(source, 1)
    assert entries(source) == []
    source.clock.sleep(3600)
    assert poll(source).counters == {"migrations": 1, "done": 1}
    assert statuses(source) == ["confirmed"]


def test_a_destination_whose_own_storage_is_away_hands_over_what_it_has_no_files_of(
    source, destination
):
    move(source, 1, seconds_ago=3600)
    assert not (destination.path / "instances").exists()
    assert poll(destination).outcome == "ok"
    assert statuses(source) == ["confirming"]


# What was left behind, and its instance has moved on: an administrator has reset its state.


@pytest.mark.parametrize(
    "task_state",
    ["resize_prep", "resize_migrating", "resize_migrated", "resize_finish", "resize_reverting"],
)
def test_a_resize_in_flight_keeps_the_only_copy_of_its_files(source, task_state):
    leave_behind(source, 1)
    leave_behind(source, 1, status="migrating", updated_at=source.clock.utcnow())
    source.update(1, task_state=task_state)
    instances = source.path / "instances"
    # Nova renames them before it makes the new ones.
    (instances / uuid_of(1)).rename(instances / f"{uuid_of(1)}_resize")
    before = everything(source)
    run = poll(source)
    assert (run.outcome, run.counters) == ("partial", {"confirming": 1, "skipped": 1})
    assert everything(source) == before


def test_a_resize_in_its_window_is_not_confirmed_by_an_older_confirmation(source):
    leave_behind(source, 1)
    resize(source, 1)
    before = everything(source)
    assert poll(source, window_seconds=3600).counters == {"confirming": 1, "skipped": 1}
    assert everything(source) == before
    source.clock.sleep(3600)
    poll(source, window_seconds=3600)
    assert statuses(source) == ["confirming", "confirmed"]
    assert source.row(1).vm_state == "active"


def test_a_resize_in_its_window_is_not_confirmed_by_an_older_finished_one(source):
    leave_behind(source, 1, status="finished")
    resize(source, 1)
    before = everything(source)
    assert poll(source, window_seconds=3600).counters == {"migrations": 1, "skipped": 1}
    assert everything(source) == before
    source.clock.sleep(3600)
    run = poll(source, window_seconds=3600)
    assert run.counters == {"migrations": 2, "skipped": 1, "done": 1}
    assert statuses(source) == ["finished", "confirmed"]


def test_a_move_to_a_third_host_keeps_what_its_revert_needs(source):
    leave_behind(source, 1, dest_compute="host2")
    move(source, 1, dest_compute="host3")
    source.update(1, host="host3")
    before = everything(source)
    assert poll(source).counters == {"confirming": 1, "skipped": 1}
    assert everything(source) == before
    assert source.hypervisor.states[uuid_of(1)] == SHUTDOWN


def test_an_instance_that_is_idle_again_keeps_all_that_is_there_of_it(source):
    leave_behind(source, 1)
    resize(source, 1)
    source.update(1, vm_state="active")
    before = everything(source)
    assert poll(source, window_seconds=3600).counters == {"confirming": 1, "skipped": 1}
    assert everything(source) == before


def test_a_confirmation_whose_instance_moves_on_meanwhile_is_left_alone(
    source, destination, monkeypatch
):
    move(source, 1, seconds_ago=3600)
    move(source, 2, seconds_ago=3600)
    poll(destination)
    read = source.database.instances_by_uuid

    def read_then_reset(uuids):
        rows = read(uuids)
        source.update(1, vm_state="active", task_state="resize_prep")
        return rows

    monkeypatch.setattr(source.database, "instances_by_uuid", read_then_reset)
    assert poll(source).counters == {"confirming": 2, "done": 1, "raced": 1}
    assert statuses(source) == ["confirming", "confirmed"]
    assert entries(source) == [f"{uuid_of(1)}_resize", uuid_of(3)]
    assert uuid_of(1) in source.hypervisor.states


def test_a_confirmation_whose_instance_moves_on_last_writes_nothing_of_it(
    source, destination, monkeypatch
):
    move(source, 1, seconds_ago=3600)
    poll(destination)
    complete = source.database.complete_confirmations

    def reset_then_complete(rows):
        source.update(1, vm_state="active", task_state="resize_prep")
        return complete(rows)

    monkeypatch.setattr(source.database, "complete_confirmations", reset_then_complete)
    extra = source.rows(models.instance_extra)
    assert poll(source).counters == {"confirming": 1, "raced": 1}
    assert source.rows(models.instance_extra) == extra
    assert (source.row(1).vm_state, source.row(1).task_state) == ("active", "resize_prep")
    assert statuses(source) == ["confirming"]


@pytest.mark.parametrize("status", ["confirming", "finished"])
def test_what_is_left_behind_costs_the_same_however_much_it_is(tmp_path, status):
    costs = []
    for count in (10, 400):
        (tmp_path / str(count)).mkdir()
        world = fake_world(tmp_path / str(count), {})
        world.add_many(range(count))
        for _ in range(2):
            move_many(world, range(count), 7200, status=status, dest_compute="host1")
        world.clock.sleep(1)
        run = poll(world, window_seconds=3600)
        assert run.counters["skipped"] >= count
        costs.append(world.statements())
        world.close()
    assert costs[0] == costs[1] <= 5


# Every task's.


def test_one_pass_confirms_twenty_at_most_unless_told_otherwise(source):
    task = source.agent.build(PollUnconfirmedResizes)
    assert task.conf.max_changes == 20
    source.agent.set(task.name, resize_confirm_window=WINDOW_SECONDS, max_changes=2)
    for number in (1, 2, 3):
        resize(source, number)
    source.clock.sleep(3600)
    run = source.agent.run(task)
    assert (run.outcome, run.counters) == ("limited", {"migrations": 3, "done": 2, "refused": 1})
    assert statuses(source) == ["confirmed", "confirmed", "finished"]
    assert f"{uuid_of(3)}_resize" in entries(source)
    # Nothing is lost: the next pass goes on.
    assert source.agent.run(task).counters == {"migrations": 1, "done": 1}
    assert statuses(source) == ["confirmed"] * 3


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement(tmp_path, count):
    world = fake_world(tmp_path, {})
    world.add_many(range(count), vm_state="resized")
    move_many(world, range(count), dest_compute="host1")
    world.update(1, host="host1")
    assert poll(world).counters == {}
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0
    world.close()


def test_the_dry_run_plans_and_changes_nothing(source, destination):
    move(source, 1, seconds_ago=3600)
    move(source, 2, seconds_ago=3600)
    source.update(2, vm_state="error")
    run = poll(destination, dry_run=True)
    assert {(c.kind, c.before, c.after, c.outcome) for c in run.changes} == {
        ("confirm_resize", "finished", "confirming", "planned"),
        ("migration_status", "finished", "error", "planned"),
    }
    assert statuses(source) == ["finished", "finished"]
    poll(destination)
    assert [c.outcome for c in poll(source, dry_run=True).changes] == ["planned"]
    assert statuses(source) == ["confirming", "error"]
    assert f"{uuid_of(1)}_resize" in entries(source)


def test_a_database_that_does_not_answer_ends_the_pass(source):
    (source.path / "cepheid.sqlite").rename(source.path / "elsewhere")
    run = poll(source)
    assert (run.outcome, run.changes) == ("failed", [])


def test_nova_conf_sets_the_window(tmp_path):
    world = fake_world(tmp_path, {}, settings="resize_confirm_window = 7\n")
    assert world.agent.build(PollUnconfirmedResizes).conf.resize_confirm_window == 7
    world.close()


def test_another_hypervisor_under_the_same_name_confirms_nothing(source):
    move(source, 1, 1_000_000, status="confirming")
    sightings = Sightings()
    sightings.look("host1", "another machine", [uuid_of(1)], [], [], source.clock.utcnow())
    SightingsFile(str(source.path)).write(sightings)
    run = poll(source)
    assert (run.outcome, run.changes) == ("partial", [])
    sightings.look("host1", source.hypervisor.identity, [], [], [], source.clock.utcnow())
    SightingsFile(str(source.path)).write(sightings)
    assert [change.outcome for change in poll(source).changes] == ["done"]
