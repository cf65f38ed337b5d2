# SPDX-License-Identifier: Apache-2.0
"""cleanup_incomplete_migrations: the reference's cases, who may still use the files, faults."""

import datetime
import json
import os

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute.sightings import FILE_NAME, Sightings, SightingsFile
from cepheid_plugins.database import models
from cepheid_plugins.database.records import BrokenMigration
from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.storage_users import REGISTRY, StorageUsers
from cepheid_plugins.tasks.cleanup_incomplete_migrations import (
    CleanupIncompleteMigrations,
    decide,
)
from tests.leftover_worlds import (
    add_dead,
    add_migration,
    build,
    fill,
    hold,
    left,
    leftover_world,
)
from tests.worlds import uuid_of

RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def world(tmp_path):
    world = leftover_world(tmp_path)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return build(world, CleanupIncompleteMigrations)


def add(world, number, suffixes=("",), migration=(), **columns):
    """Insert a deleted instance of host2 whose migration came to nothing."""
    add_dead(world, number, suffixes, **{"host": "host2", **columns})
    return add_migration(world, number, **dict(migration))


def leave_of_a_live_one(world):
    """Let a failed migration have left files of an instance that lives on host2."""
    world.add(1, host="host2")
    fill(world, 1)
    add_migration(world, 1)


def statuses(world):
    return [row.status for row in world.rows(models.migrations)]


# The decision.


NOW = datetime.datetime(2026, 11, 23, 12)


def broken(number=1, **fields):
    values = {"id": number, "status": "error", "source_compute": "host1", "dest_compute": "host2",
              "uuid": "a", "display_name": "a", "host": "host2", "deleted_at": NOW,
              "is_deleted": True, "is_moving": False}  # fmt: skip
    return BrokenMigration(**{**values, **fields})


@pytest.mark.parametrize(
    ("fields", "there", "verdict"),
    [
        ({}, True, "due"),
        ({}, False, "clean"),
        ({"status": "failed"}, True, "due"),
        ({"deleted_at": None}, True, "skipped"),
        ({"deleted_at": None}, False, "clean"),
        ({"is_moving": True}, True, "skipped"),
        ({"is_deleted": False, "deleted_at": None}, True, "live"),
        ({"is_deleted": False, "deleted_at": None}, False, "elsewhere"),
        ({"is_deleted": False, "deleted_at": None, "is_moving": True}, True, "elsewhere"),
    ],
)
def test_what_becomes_of_a_failed_migration(fields, there, verdict):
    plan = decide([broken(**fields)], {"a"} if there else set(), Sightings())
    found = [name for name, value in vars(plan).items() if value]
    assert found == [verdict]


def test_one_that_was_seen_alive_after_its_deletion_is_left_alone():
    later = NOW + datetime.timedelta(seconds=1)
    plan = decide([broken()], {"a"}, Sightings(last_alive={"a": later.isoformat()}))
    assert "old copy" in plan.skipped["a"]


# The reference's cases.


@pytest.mark.parametrize("side", ["source_compute", "dest_compute"])
@pytest.mark.parametrize("kind", ["resize", "migration", "live-migration", "evacuation", None])
def test_what_is_left_of_deleted_instances_is_removed_on_either_side(world, task, side, kind):
    others = {"source_compute": "host2", "dest_compute": "host2", side: "host1"}
    for number in (1, 2):
        add(world, number, migration={**others, "migration_type": kind})
    run = world.agent.run(task)
    assert run.outcome == "ok"
    assert [(c.kind, c.before, c.after) for c in run.changes] == [
        ("delete_files", "1 directory", None),
        ("delete_files", "1 directory", None),
        ("migration_status", "error", "failed"),
        ("migration_status", "error", "failed"),
    ]
    assert (left(world), statuses(world)) == ([], ["failed", "failed"])
    assert world.agent.run(task).counters == {}


def test_says_of_how_many_the_files_were_removed(world, task, reports):
    add(world, 1)
    add(world, 2)
    world.agent.run(task)
    assert reports == [(0, 2), (1, 2), (2, 2)]


def test_an_instance_of_this_host_is_left_to_its_own_deletion(world, task):
    add(world, 1, host="host1")
    assert world.agent.run(task).counters == {}
    assert (left(world), statuses(world)) == (["1"], ["error"])


def test_an_instance_without_a_host_has_left_its_files_too(world, task):
    add(world, 1, host=None)
    world.agent.run(task)
    assert (left(world), statuses(world)) == ([], ["failed"])


def test_without_a_broken_migration_there_is_one_query(world, task):
    add_dead(world, 1, host="host2")
    assert world.agent.run(task).counters == {}
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0


def test_all_migrations_of_an_instance_are_handled_in_one_pass(world, task):
    add(world, 1, suffixes=["", "_resize"])
    add_migration(world, 1, source_compute="host2", dest_compute="host1")
    run = world.agent.run(task)
    assert [c.target for c in run.changes] == [uuid_of(1)] * 2
    assert "migration 1 and 2" in run.changes[0].reason
    assert (left(world), statuses(world)) == ([], ["failed", "failed"])


def test_a_migration_stays_in_error_until_its_files_are_gone(world, task, monkeypatch):
    add(world, 1)
    (world.path / "instances" / uuid_of(1) / "stuck").touch()
    unlink = os.unlink

    def refuse(path, **arguments):
        if path == "stuck":
            raise PermissionError(1, "Operation not permitted", path)
        unlink(path, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        run = world.agent.run(task)
    assert [(c.kind, c.outcome) for c in run.changes] == [("delete_files", "failed")]
    assert (left(world), statuses(world)) == (["1_del"], ["error"])
    world.agent.run(task)
    assert (left(world), statuses(world)) == ([], ["failed"])


@pytest.mark.parametrize("status", ["running", "finished", "confirmed", "completed", "done"])
def test_other_statuses_are_not_looked_at(world, task, status):
    add(world, 1, migration={"status": status})
    assert world.agent.run(task).counters == {}
    assert (left(world), statuses(world)) == (["1"], [status])


def test_d17_migrations_that_were_deleted_with_their_instance_are_seen(world, task):
    add(world, 1, migration={"deleted": 1, "deleted_at": world.clock.utcnow()})
    world.agent.run(task)
    assert (left(world), statuses(world)) == ([], ["failed"])
    (row,) = world.rows(models.migrations)
    assert (row.deleted, row.updated_at) == (1, world.clock.utcnow())


# Better than that.


def test_nothing_here_is_no_reason_to_wait(world, task):
    add(world, 1, suffixes=())
    run = world.agent.run(task)
    assert [c.kind for c in run.changes] == ["migration_status"]
    assert statuses(world) == ["failed"]
    assert world.hypervisor.calls["virConnectGetAllDomainStats"] == 0


def test_the_other_side_is_cleaned_though_the_first_has_written_that_it_failed(world, task):
    """host2 was there first; a live migration that was rolled back is failed from the start."""
    add(world, 1, migration={"status": "failed"})
    add(world, 2, migration={"status": "failed", "dest_compute": "host3"}, host="host3")
    add(world, 3, migration={"status": "failed", "source_compute": "host3"})
    run = world.agent.run(task)
    assert [c.kind for c in run.changes] == ["delete_files"] * 2
    assert left(world) == ["3"]
    assert world.agent.run(task).counters == {}


def test_files_that_cannot_be_removed_keep_nothing_else_waiting(world, task, monkeypatch):
    world.agent.set(task.name, max_changes=1)
    remove = task.leftovers._remove_aside
    monkeypatch.setattr(
        task.leftovers,
        "_remove_aside",
        lambda uuid, copies: StorageError("x") if uuid == uuid_of(1) else remove(uuid, copies),
    )
    add(world, 1)
    add(world, 2)
    add(world, 3, suffixes=())
    for _ in range(6):
        world.agent.run(task)
    assert (left(world), statuses(world)) == (["1_del"], ["error", "failed", "failed"])


# Those that live.


@pytest.fixture
def notices(caplog):
    return lambda: caplog.text.count("Nothing of it is removed while the instance lives")


def test_what_is_left_of_an_instance_that_lives_elsewhere_is_named_and_kept(
    world, task, caplog, notices
):
    world.add(1, host="host2")
    fill(world, 1, ["_resize"])
    add_migration(world, 1)
    for _ in range(3):
        run = world.agent.run(task)
        assert (run.outcome, run.changes) == ("ok", [])
        assert run.counters == {"migrations": 1, "left_of_live": 1}
    assert notices() == 1
    assert f"{uuid_of(1)}_resize" in caplog.text
    assert (left(world), statuses(world)) == (["1_resize"], ["error"])


def test_what_a_migration_that_begins_meanwhile_makes_is_not_called_a_left_over(
    world, task, monkeypatch, notices
):
    world.add(1, host="host2")
    add_migration(world, 1, status="failed")
    entries = task.leftovers.entries

    def begin_meanwhile():
        add_migration(world, 1, status="running")
        fill(world, 1)
        return entries()

    monkeypatch.setattr(task.leftovers, "entries", begin_meanwhile)
    assert world.agent.run(task).counters == {"migrations": 1}
    assert notices() == 0


def test_on_shared_storage_the_directory_is_the_instances_own(world, task, notices):
    leave_of_a_live_one(world)
    registry = world.path / "instances" / "compute_nodes"
    registry.write_text(json.dumps({"host1": 1.0, "host2": 1.0}))
    assert world.agent.run(task).counters == {"migrations": 1}
    assert notices() == 0
    registry.write_text("{")
    run = world.agent.run(task)
    assert (run.outcome, notices()) == ("partial", 0)
    assert left(world) == ["1", "compute_nodes"]


def test_a_host_that_the_registry_has_lost_is_remembered_to_share_the_storage(world, task, notices):
    """nova-compute begins a new registry where it cannot read the one that is there."""
    leave_of_a_live_one(world)
    users = StorageUsers(str(world.path / "instances"))
    users.register("host2", 1.0)
    (world.path / "instances" / REGISTRY).write_text(json.dumps({"host1": 2.0}))
    assert world.agent.run(task).counters == {"migrations": 1}
    assert notices() == 0


def test_the_operator_is_told_to_look_whether_the_storage_is_shared(world, task, caplog):
    """Without any registry it is not known here, and the directory may be the instance's own."""
    leave_of_a_live_one(world)
    world.agent.run(task)
    assert "instances_path is another storage there, or these are its own disks" in caplog.text


def test_on_shared_storage_the_directory_of_a_deleted_instance_goes(world, task):
    add(world, 1)
    registry = world.path / "instances" / "compute_nodes"
    registry.write_text(json.dumps({"host1": 1.0, "host2": 1.0}))
    world.agent.run(task)
    assert (left(world), statuses(world)) == (["compute_nodes"], ["failed"])


def test_one_that_is_tried_again_just_now_is_not_named(world, task, notices):
    leave_of_a_live_one(world)
    add_migration(world, 1, status="running")
    assert world.agent.run(task).counters == {"migrations": 1}
    assert notices() == 0


# What is never touched.


@pytest.mark.parametrize("state", [RUNNING, SHUTDOWN, None])
def test_the_files_of_a_domain_that_is_there_stay_whatever_its_state(world, task, state):
    add(world, 1)
    world.hypervisor.states[uuid_of(1)] = state
    world.hypervisor.names[uuid_of(1)] = "guest-1"
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert (left(world), statuses(world)) == (["1"], ["error"])


def test_files_that_a_process_has_open_stay(world, task):
    add(world, 1)
    hold(world, world.path / "instances" / uuid_of(1) / "disk")
    assert world.agent.run(task).changes == []
    assert (left(world), statuses(world)) == (["1"], ["error"])


def test_another_migration_that_goes_on_keeps_the_files(world, task, caplog):
    add(world, 1)
    add_migration(world, 1, status="migrating", dest_compute="host3")
    assert world.agent.run(task).outcome == "partial"
    assert "if nobody is at it any more, set migrations.status to failed" in caplog.text
    assert (left(world), statuses(world)) == (["1"], ["error", "migrating"])


@pytest.mark.parametrize("columns", [{"hidden": True}, {"migration": {"cross_cell_move": True}}])
def test_what_was_moved_to_another_cell_may_live_there(world, task, columns):
    add(world, 1, **columns)
    assert world.agent.run(task).counters == {}
    assert (left(world), statuses(world)) == (["1"], ["error"])


def test_one_that_is_undeleted_meanwhile_is_not_touched(world, task, monkeypatch):
    add(world, 1)
    obstacles = task.leftovers.obstacles

    def then_undelete(uuids):
        found = obstacles(uuids)
        world.update(1, deleted=0, deleted_at=None)
        return found

    monkeypatch.setattr(task.leftovers, "obstacles", then_undelete)
    assert world.agent.run(task).counters["raced"] == 1
    assert (left(world), statuses(world)) == (["1"], ["error"])


def test_an_inventory_that_vanished_removes_nothing(world, task):
    add(world, 1)
    SightingsFile(str(world.path)).write(
        Sightings("host1", world.hypervisor.identity, live={uuid_of(99)})
    )
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances).where(models.instances.c.deleted == 0))
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("partial", [])
    assert (left(world), statuses(world)) == (["1"], ["error"])


# Faults, cost, dry run.


def test_a_hypervisor_that_does_not_answer_ends_the_pass(world, task):
    add(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert (left(world), statuses(world)) == (["1"], ["error"])


def test_an_unmounted_instances_path_is_not_an_empty_one(world, task):
    add(world, 1, suffixes=())
    (world.path / "instances").rmdir()
    assert world.agent.run(task).outcome == "failed"
    assert statuses(world) == ["error"]


def test_a_database_that_goes_away_in_the_middle_ends_the_pass(world, task, monkeypatch):
    add(world, 1)
    domains = world.hypervisor.domains

    def lose_the_database():
        (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
        return domains()

    monkeypatch.setattr(world.hypervisor, "domains", lose_the_database)
    run = world.agent.run(task)
    assert [change.outcome for change in run.changes] == ["failed"]
    assert left(world) == ["1"]


def test_a_migration_whose_status_somebody_changed_meanwhile_keeps_it(world, task, monkeypatch):
    add(world, 1)
    remove = task.leftovers.remove

    def then_write(uuids, is_dead):
        with world.engine.begin() as connection:
            connection.execute(sa.update(models.migrations).values(status="done"))
        return remove(uuids, is_dead)

    monkeypatch.setattr(task.leftovers, "remove", then_write)
    assert world.agent.run(task).counters["raced"] == 1
    assert statuses(world) == ["done"]


@pytest.mark.parametrize("count", [10, 1000])
def test_a_pass_costs_the_same_whatever_the_number_of_migrations(world, task, count):
    now = world.clock.utcnow()
    world.add_many(range(1000, 1000 + count), host="host2", vm_state="deleted", deleted_at=now)
    with world.engine.begin() as connection:
        table = models.instances
        connection.execute(
            sa.update(table).where(table.c.vm_state == "deleted").values(deleted=table.c.id)
        )
        connection.execute(
            sa.insert(models.migrations),
            [
                {"instance_uuid": uuid_of(number), "status": "error", "source_compute": "host1",
                 "dest_compute": "host2", "deleted": 1}
                for number in range(1000, 1000 + count)
            ],
        )  # fmt: skip
    for number in range(1000, 1010):
        (world.path / "instances" / uuid_of(number)).mkdir()
    run = world.agent.run(task, dry_run=True)
    assert run.counters["migrations"] == count
    assert run.counters["planned"] == min(count, 20)
    assert world.statements() == 3
    assert world.hypervisor.calls == {
        "virConnectGetCapabilities": 1, "virConnectGetAllDomainStats": 1,
        "virConnectListAllDomains": 1,
    }  # fmt: skip


def test_the_dry_run_plans_and_changes_nothing(world, task):
    add(world, 1)
    add(world, 2, suffixes=())
    run = world.agent.run(task, dry_run=True)
    assert [(c.kind, c.target, c.outcome) for c in run.changes] == [
        ("delete_files", uuid_of(1), "planned"),
        ("migration_status", uuid_of(2), "planned"),
    ]
    assert (left(world), statuses(world)) == (["1"], ["error", "error"])
    assert not (world.path / FILE_NAME).exists()


def test_nova_conf_sets_the_spacing(tmp_path):
    world = leftover_world(tmp_path, "instance_delete_interval = 120\n")
    assert world.agent.build(CleanupIncompleteMigrations).conf.spacing == 120
    world.close()
