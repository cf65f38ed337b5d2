# SPDX-License-Identifier: Apache-2.0
"""Queries on what is left of deleted instances: in how many statements, and which rows."""

import datetime

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import models
from tests.leftover_worlds import add_attempts, add_dead, add_migration, attempts, leftover_world
from tests.worlds import uuid_of


@pytest.fixture
def world(tmp_path):
    world = leftover_world(tmp_path)
    yield world
    world.close()


def dead_many(world, numbers):
    world.add_many(numbers, vm_state="deleted", cleaned=0, deleted_at=world.clock.utcnow())
    table = models.instances
    with world.engine.begin() as connection:
        connection.execute(
            sa.update(table).where(table.c.vm_state == "deleted").values(deleted=table.c.id)
        )


@pytest.mark.parametrize("count", [10, 400])
def test_recording_costs_the_same_whatever_the_number(world, count):
    numbers = range(1000, 1000 + count)
    dead_many(world, numbers)
    for number in numbers[: count // 2]:
        add_attempts(world, number, "1")
    uuids = {uuid_of(number): 2 for number in numbers}
    world.database.statements.clear()
    assert world.database.record_cleaning(uuids, list(uuids)) == set(uuids)
    # The counts that are known, those that are not, and cleaned, each looked for before.
    assert world.statements() == 5
    assert {attempts(world, number) for number in (numbers[0], numbers[-1])} == {"2"}


def test_only_deleted_instances_become_clean(world):
    add_dead(world, 1)
    assert world.database.record_cleaning({}, [uuid_of(1), uuid_of(99)]) == {uuid_of(1)}
    assert (world.row(1).cleaned, world.row(99).cleaned) == (1, None)


def test_a_count_is_gone_on_with_where_it_is_and_its_neighbours_stay(world):
    add_dead(world, 1, attempts="3")
    add_dead(world, 2, attempts="4")
    (before,) = [r for r in world.rows(models.instance_system_metadata) if r.value == "4"]
    world.database.record_cleaning({uuid_of(1): 4}, [])
    rows = {row.instance_uuid: row for row in world.rows(models.instance_system_metadata)}
    mine = rows[uuid_of(1)]
    assert (mine.value, mine.deleted, mine.updated_at) == ("4", 1, world.clock.utcnow())
    assert rows[uuid_of(2)] == before
    # Nor is the instance itself said to have changed.
    assert world.row(1).updated_at is None


def test_of_several_counts_the_newest_row_is_read_and_written(world):
    add_dead(world, 1, attempts="1")
    add_attempts(world, 1, "2")
    (row,) = world.database.dead_instances("host1", ())
    assert row.clean_attempts == "2"
    world.database.record_cleaning({uuid_of(1): 3}, [])
    assert [r.value for r in world.rows(models.instance_system_metadata)] == ["1", "3"]


def test_a_hosts_dead_come_newest_first_and_those_with_files_though_they_are_clean(world):
    for number in (1, 2, 3, 4):
        add_dead(world, number, cleaned=1 if number > 2 else 0)
    found = world.database.dead_instances("host1", [uuid_of(3), uuid_of(99)])
    assert [row.uuid for row in found] == [uuid_of(number) for number in (3, 2, 1)]


def test_those_that_were_deleted_since_come_as_well_though_they_are_clean(world):
    add_dead(world, 1, cleaned=1, seconds_ago=600)
    add_dead(world, 2, cleaned=1, seconds_ago=601)
    since = world.clock.utcnow() - datetime.timedelta(seconds=600)
    found = world.database.dead_instances("host1", (), since)
    assert [row.uuid for row in found] == [uuid_of(1)]


@pytest.mark.parametrize(
    ("columns", "is_moving"),
    [
        ({"status": "running"}, True),
        ({"status": None}, True),
        ({"status": "completed"}, False),
        ({"status": "error"}, False),
        ({"status": "running", "deleted": 1}, False),
        ({"status": None, "deleted": 1}, False),
    ],
)
def test_a_migration_goes_on_until_it_is_known_to_have_ended_or_is_deleted(
    world, columns, is_moving
):
    add_dead(world, 1)
    add_migration(world, 1, **columns)
    (row,) = world.database.dead_instances("host1", ())
    assert row.is_moving is is_moving


def test_a_broken_migration_is_told_with_its_instance(world):
    add_dead(world, 1, host="host2")
    broken = add_migration(world, 1, deleted=9)
    failed = add_migration(world, 1, status="failed")
    add_migration(world, 1, status="completed")
    add_dead(world, 2, host="host2")
    add_migration(world, 2, source_compute="host3", dest_compute="host2")
    assert [one.id for one in world.database.broken_migrations("host1", ())] == [broken]
    found = world.database.broken_migrations("host1", [uuid_of(1)])
    assert [(one.id, one.status) for one in found] == [(broken, "error"), (failed, "failed")]
    assert {(one.uuid, one.host) for one in found} == {(uuid_of(1), "host2")}
    assert {(one.is_deleted, one.is_moving) for one in found} == {(True, False)}
