# SPDX-License-Identifier: Apache-2.0
"""Queries on instances: what is read, and that a write finds the row as it was decided on."""

import datetime
import threading

import pytest

from cepheid_plugins.database import models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.errors import DatabaseError, DatabaseUnavailable
from cepheid_plugins.database.records import ANY, ActionStart, InstanceUpdate, NewInstance
from tests.worlds import fake_world, uuid_of


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {})
    yield world
    world.close()


def uuids(rows):
    return {row.uuid for row in rows}


def test_a_hosts_instances_are_the_live_ones_hidden_and_soft_deleted_included(world):
    here = {world.add(1), world.add(2, hidden=True), world.add(3, vm_state="soft-delete")}
    world.add(4, host="host2")
    world.add(5, deleted=5)
    world.add(6, host="HOST1")
    assert uuids(world.database.instances_on_host("host1")) == here
    assert set(world.database.instance_uuids_on_host("host1")) == here


def test_of_deleted_instances_the_hidden_ones_are_left_out(world):
    for number, hidden in ((1, False), (2, True), (3, None)):
        world.add(number, hidden=hidden)
        world.update(number, deleted=world.row(number).id)
    world.add(4)
    all_of_them = [uuid_of(number) for number in (1, 2, 3, 4)]
    assert uuids(world.database.deleted_instances(all_of_them)) == {uuid_of(1), uuid_of(3)}
    assert world.database.known_uuids([*all_of_them, uuid_of(5)]) == set(all_of_them)


def test_what_became_of_those_who_have_a_domain_here(world):
    """The others of them are alive elsewhere, hidden and so in another cell, or not known."""
    then = world.clock.utcnow()
    world.add(1)
    world.add(2, vm_state="soft-delete", deleted_at=then)
    for number, hidden in ((3, False), (4, True)):
        world.add(number, deleted_at=then, hidden=hidden)
        world.update(number, deleted=world.row(number).id)
    world.add(5, host="host2")
    world.add(6, host=None)
    world.add(7, deleted=1234)  # by no rule of Nova's
    world.add(9)
    fates = world.database.fates("host1", [uuid_of(number) for number in range(2, 9)])
    assert fates.live == {uuid_of(1): None, uuid_of(2): then, uuid_of(9): None}
    assert fates.deleted == [(world.row(3).id, uuid_of(3), world.row(3).display_name, then)]
    assert fates.alive_elsewhere == {uuid_of(5), uuid_of(6)}


def test_null_in_every_nullable_column_can_be_read(world):
    with world.engine.begin() as connection:
        connection.execute(
            models.instances.insert().values(uuid=uuid_of(1), host="host1", deleted=0)
        )
    (row,) = world.database.instances_on_host("host1")
    assert (row.vm_state, row.power_state, row.created_at, row.hidden) == (None,) * 4


def test_builds_come_newest_first(world):
    now = world.clock.utcnow()
    for number, minute in ((1, 5), (2, 7), (3, 6)):
        world.add(number, vm_state="building", created_at=now.replace(minute=minute))
    rows = world.database.instances_in_vm_state("host1", "building")
    assert [row.uuid for row in rows] == [uuid_of(2), uuid_of(3), uuid_of(1)]


@pytest.mark.parametrize(
    ("vm_state", "task_state", "written"),
    [
        ("active", None, True),
        ("stopped", None, False),
        (None, None, False),
        ("active", "rebooting", False),
        (ANY, None, True),
        (ANY, ANY, True),
        ("active", ANY, True),
    ],
)
def test_an_update_writes_only_in_the_states_it_was_decided_on(
    world, vm_state, task_state, written
):
    uuid = world.add(1)
    update = InstanceUpdate(uuid, vm_state, task_state, {"power_state": 4})
    assert world.database.update_instances("host1", [update]) == ({uuid} if written else set())
    row = world.row(1)
    assert row.power_state == (4 if written else 1)
    assert row.updated_at == (world.clock.utcnow() if written else None)


def test_an_update_leaves_other_hosts_and_deleted_rows(world):
    updates = [
        InstanceUpdate(world.add(1, host="host2"), ANY, ANY, {"power_state": 4}),
        InstanceUpdate(world.add(2, deleted=2), ANY, ANY, {"power_state": 4}),
        InstanceUpdate(uuid_of(3), ANY, ANY, {"power_state": 4}),
    ]
    assert world.database.update_instances("host1", updates) == set()


def test_an_update_writes_only_to_what_was_soft_deleted_when_it_was_decided_on(world):
    now = world.clock.utcnow()
    earlier = now - datetime.timedelta(hours=1)
    expected = {1: now, 2: earlier, 3: None, 4: None, 5: now, 6: ANY}
    for number, deleted_at in {1: now, 2: now, 3: now, 4: None, 5: None, 6: now}.items():
        world.add(number, vm_state="soft-delete", deleted_at=deleted_at)
    updates = [
        InstanceUpdate(uuid_of(number), "soft-delete", None, {"task_state": "deleting"}, then)
        for number, then in expected.items()
    ]
    written = {uuid_of(1), uuid_of(4), uuid_of(6)}
    assert world.database.update_instances("host1", updates) == written
    claimed = {row.uuid for row in world.rows(models.instances) if row.task_state == "deleting"}
    assert claimed == written
    assert world.statements() == 2


def test_null_states_are_expected_as_null(world):
    uuid = world.add(1, vm_state=None, task_state="spawning")
    update = InstanceUpdate(uuid, None, "spawning", {"vm_state": "error"})
    assert world.database.update_instances("host1", [update]) == {uuid}


@pytest.mark.parametrize("count", [10, 400])
def test_equal_updates_share_their_statements(world, count):
    world.add_many(range(count))
    updates = [
        InstanceUpdate(uuid_of(number), "active", None, {"power_state": 4})
        for number in range(count)
    ]
    assert len(world.database.update_instances("host1", updates)) == count
    assert world.statements() == 2


def test_of_two_that_want_one_instance_exactly_one_wins_each_time(world):
    """One hundred instances, two connections, threads that start together."""
    world.add_many(range(100))
    rivals = [world.database, Database(world.agent)]
    wins: list[set[str]] = [set(), set()]
    for number in range(100):
        barrier = threading.Barrier(2)

        def claim(rival, number=number, barrier=barrier):
            values = {"task_state": "powering-off", "display_name": f"rival-{rival}"}
            barrier.wait()
            wins[rival] |= rivals[rival].update_instances(
                "host1", [InstanceUpdate(uuid_of(number), "active", None, values)]
            )

        threads = [threading.Thread(target=claim, args=(rival,)) for rival in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wins[0] & wins[1]
    assert len(wins[0] | wins[1]) == 100
    for rival in (0, 1):
        for uuid in wins[rival]:
            assert world.row(int(uuid[-4:], 16)).display_name == f"rival-{rival}"
    rivals[1].close()


def test_a_new_instance_comes_with_the_rows_that_hang_on_it(world):
    world.database.create_instances(
        [NewInstance(uuid_of(1), "guest", "host1", "node1", "active", 1, 2, 512, 10)]
    )
    row = world.row(1)
    assert (row.vm_state, row.hidden, row.cleaned, row.deleted) == ("active", False, 0, 0)
    (cache,) = world.rows(models.instance_info_caches)
    (extra,) = world.rows(models.instance_extra)
    assert (cache.instance_uuid, cache.network_info) == (uuid_of(1), "[]")
    assert '"memory_mb": 512' in extra.flavor


def test_new_instances_that_were_written_after_all_are_not_refused(world):
    """The answer to the first COMMIT was lost, and it is tried again."""
    new = [
        NewInstance(uuid_of(n), f"guest-{n}", "host1", "node1", "active", 1, 2, 512, 10)
        for n in (1, 2)
    ]
    assert world.database.create_instances(new) == {}
    assert world.database.create_instances(new) == {}
    assert len(world.rows(models.instances)) == 2
    world.update(2, host="host2")
    assert set(world.database.create_instances(new)) == {uuid_of(2)}


def test_new_instances_before_the_database_went_away_are_not_refused(world, monkeypatch):
    new = [
        NewInstance(uuid_of(n), f"guest-{n}", "host1", "node1", "active", 1, 2, 512, 10)
        for n in (1, 2, 3)
    ]
    write, writes = world.database._write, []

    def going_away(query, rows, *rest):
        writes.append(rows)
        if len(rows) > 1:
            raise DatabaseError("a name cannot be held")
        if rows[0] is new[1]:
            raise DatabaseUnavailable("it went away")
        return write(query, rows, *rest)

    monkeypatch.setattr(world.database, "_write", going_away)
    assert set(world.database.create_instances(new)) == {uuid_of(2), uuid_of(3)}
    assert len(writes) == 3
    assert [row.uuid for row in world.rows(models.instances)] == [uuid_of(1)]


def test_no_statement_is_sent_for_nothing(world):
    world.database.create_instances([])
    world.database.begin([], [], "host1")
    world.database.end_actions([])
    world.database.add_faults([])
    assert world.database.update_instances("host1", []) == set()
    assert world.statements() == 0


def test_actions_of_a_thousand_instances_share_their_statements(world):
    world.add_many(range(1000))
    numbers = range(1000)
    world.database.begin(
        [InstanceUpdate(uuid_of(n), "active", None, {"progress": 0}) for n in numbers],
        [
            ActionStart(uuid_of(n), "stop", "compute_stop_instance", "req-1", "host1")
            for n in numbers
        ],
        "host1",
    )
    assert world.statements() == 2 * 2 + 3  # the rows, then actions, their ids, events
    assert len(world.rows(models.instance_actions_events)) == 1000
