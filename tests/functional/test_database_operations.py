# SPDX-License-Identifier: Apache-2.0
"""What operations on instances ask of the data layer, on SQLite, MariaDB and PostgreSQL alike."""

import datetime
import json
import multiprocessing

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import bulk, flavors, models
from cepheid_plugins.database.errors import DatabaseError
from cepheid_plugins.database.records import (
    ActionEnd,
    ActionStart,
    Confirmed,
    InstanceUpdate,
    NewInstance,
    Resized,
    Volume,
)
from tests.functional.inventories import add_many, open_database, rows
from tests.worlds import uuid_of

pytestmark = pytest.mark.functional

NOW = datetime.datetime(2026, 11, 23, 12, 0)  # as the agents' clock
EARLIER = NOW - datetime.timedelta(hours=1)
CONFIRM = ("confirmResize", "compute_confirm_resize")


def insert(engine, table, numbers, **columns):
    """Insert alike rows that hang on instances."""
    values = [{"instance_uuid": uuid_of(n), "deleted": 0, **columns} for n in numbers]
    with engine.begin() as connection:
        connection.execute(sa.insert(table), values)


def flavor(number, memory_mb=512):
    new = NewInstance(uuid_of(number), "guest", "host1", "node1", "active", 1, 1, memory_mb, 10)
    return flavors.of_new(new)


def memories(text):
    """Return the memory of each flavor: present, old, new."""
    found = json.loads(text)
    return tuple(
        found[name] and found[name]["nova_object.data"]["memory_mb"]
        for name in ("cur", "old", "new")
    )


def add_migrations(engine, numbers, status="finished", **columns):
    """Insert resized instances with their flavors and migrations."""
    add_many(engine, numbers, vm_state="resized")
    insert(engine, models.instance_extra, numbers, flavor=flavors.resized(flavor(0), RESIZED_TO),
           migration_context="{}")  # fmt: skip
    insert(engine, models.instance_system_metadata, numbers, key="old_vm_state", value="active")
    values = {"source_compute": "host1", "dest_compute": "host1", "status": status,
              "migration_type": "resize", "updated_at": EARLIER, **columns}  # fmt: skip
    insert(engine, models.migrations, numbers, **values)


RESIZED_TO = {"memory_mb": 1024, "vcpus": 2, "root_gb": 20}


def confirming(migrations, request="req-1"):
    return [ActionStart(row.instance_uuid, *CONFIRM, request, "host1") for row in migrations]


def confirmed(migrations):
    return [Confirmed(row.id, row.instance_uuid, "host1", "active") for row in migrations]


def resized(numbers):
    values = {"vm_state": "resized", "task_state": None, **RESIZED_TO}
    return [
        Resized(InstanceUpdate(uuid_of(n), "active", "resize_finish", values), "node1", "active")
        for n in numbers
    ]


def destroyed(numbers, **values):
    values = {"vm_state": "deleted", **values}
    return [InstanceUpdate(uuid_of(n), "soft-delete", None, values) for n in numbers]


def drop(engine, *tables):
    with engine.begin() as connection:
        for table in tables:
            connection.execute(sa.text(f"DROP TABLE {table.name}"))


# What is claimed.


def test_a_claim_holds_only_for_the_soft_deletion_that_it_was_decided_on(database, engine):
    add_many(engine, range(600), vm_state="soft-delete", deleted_at=EARLIER)
    judged = database.instances_in_vm_state("host1", "soft-delete")
    anew = [uuid_of(n) for n in range(3)]
    with engine.begin() as connection:
        table = models.instances
        again = sa.update(table).where(table.c.uuid.in_(anew)).values(deleted_at=NOW)
        connection.execute(again)
    claim = {"task_state": "deleting", "progress": 0}
    updates = [
        InstanceUpdate(row.uuid, "soft-delete", None, claim, row.deleted_at) for row in judged
    ]
    starts = [ActionStart(row.uuid, "delete", "delete", "req-1", "host1") for row in judged]
    database.statements.clear()
    won = database.begin(updates, starts, "host1")
    assert won == {row.uuid for row in judged} - set(anew)
    assert database.statements["UPDATE"] == 2
    claimed = {row.uuid for row in rows(engine, models.instances) if row.task_state == "deleting"}
    assert claimed == won == {row.instance_uuid for row in rows(engine, models.instance_actions)}


# What is read.


def test_builds_and_tasks_under_way_are_the_hosts_live_visible_ones(database, engine):
    for number, columns in enumerate(
        (
            {"created_at": EARLIER},
            {"created_at": NOW, "hidden": False},
            {"created_at": NOW, "hidden": True},
            {"created_at": NOW, "host": "host2"},
            {"created_at": NOW, "deleted": 5},
            {"created_at": NOW, "vm_state": "active", "task_state": None},
        )
    ):
        add_many(engine, [number], **{"vm_state": "building", "task_state": "spawning", **columns})
    newest_first = [uuid_of(1), uuid_of(0)]
    found = database.instances_in_vm_state("host1", "building")
    assert [row.uuid for row in found] == newest_first
    found = database.instances_in_task_states("host1", ["spawning", "rebooting"])
    assert [row.uuid for row in found] == newest_first
    assert database.instances_in_task_states("host1", []) == []


def test_volumes_are_the_attached_ones(database, engine):
    add_many(engine, range(3))
    volume = {"volume_id": "volume", "device_name": "/dev/vdb", "attachment_id": "attachment",
              "delete_on_termination": True, "destination_type": "volume", "boot_index": 0,
              "connection_info": "a secret"}  # fmt: skip
    insert(engine, models.block_device_mapping, [0], **volume)
    insert(engine, models.block_device_mapping, [1], **{**volume, "deleted": 7})
    insert(engine, models.block_device_mapping, [1], **{**volume, "destination_type": "local"})
    found = database.volumes([uuid_of(n) for n in range(3)])
    assert found == [Volume(uuid_of(0), "volume", "/dev/vdb", "attachment", True, 0)]


def test_facts_are_those_of_a_live_instance_and_those_a_deleted_one_had(database, engine):
    add_many(engine, [1], vm_state="soft-delete", image_ref="image")
    insert(engine, models.instance_extra, [1], flavor=flavor(1))
    insert(engine, models.instance_metadata, [1], key="role", value="web")
    insert(engine, models.instance_system_metadata, [1], key="image_os", value="debian")
    insert(engine, models.instance_system_metadata, [1], key="old_vm_state", value="active",
           deleted=9, deleted_at=EARLIER)  # fmt: skip
    uuid = uuid_of(1)
    before = database.instance_facts([uuid, uuid_of(2)])
    assert before.keys() == {uuid}
    assert before[uuid].columns["image_ref"] == "image"
    assert before[uuid].flavor["memory_mb"] == 512
    assert before[uuid].metadata == {"role": "web"}
    assert before[uuid].system_metadata == {"image_os": "debian"}
    assert database.destroy_instances("host1", destroyed([1])) == {uuid}
    after = database.instance_facts([uuid])[uuid]
    assert after.columns["deleted"] == after.columns["id"]
    assert (after.flavor, after.metadata) == (before[uuid].flavor, before[uuid].metadata)
    assert after.system_metadata == before[uuid].system_metadata


def test_migrations_are_found_by_host_status_and_age(database, engine):
    add_migrations(engine, [1])
    add_migrations(engine, [2], updated_at=NOW)
    add_migrations(engine, [3], dest_compute="host2")
    add_migrations(engine, [4], status="confirming")
    add_migrations(engine, [5], status="confirming", source_compute="host2")
    add_migrations(engine, [6], deleted=6)
    add_migrations(engine, [7], status="confirming", deleted=7)

    def numbers(found):
        return [int(row.instance_uuid[-4:], 16) for row in found]

    # A deleted instance's has to be seen to be set to error, as in Nova.
    waiting, finished = database.waiting_migrations("host1", EARLIER)
    assert (numbers(waiting), numbers(finished)) == ([4], [1, 6])
    uuids = [uuid_of(n) for n in range(8)]
    assert numbers(database.migrations_of(uuids, "finished")) == [1, 2, 3]
    assert numbers(database.migrations_of(uuids, "confirming")) == [4, 5]


def test_the_newest_migration_of_an_instance_is_its_last_live_one(database, engine):
    add_migrations(engine, [1, 2])
    for columns in ({"status": "error"}, {"status": "finished"}, {"deleted": 9}):
        insert(engine, models.migrations, [1], dest_compute="host2", **columns)
    add_migrations(engine, [3])
    found = database.migrations_of([uuid_of(n) for n in (1, 2, 3)], "finished")
    assert [row.instance_uuid for row in found] == [uuid_of(n) for n in (1, 2, 1, 3)]
    first, _, newest, _ = found
    assert database.newer_migrations(found) == {first.id: newest.id}
    assert database.newer_migrations([]) == {}


# What is written: who loses, and all or nothing.


def test_system_metadata_is_written_over_and_added_to(database, engine):
    add_many(engine, range(3))
    insert(engine, models.instance_system_metadata, [0, 2], key="known", value="before")
    insert(engine, models.instance_system_metadata, [1], key="known", value="gone", deleted=9)
    new = {"known": "after", "added": "ä" * 255}
    database.set_system_metadata({uuid_of(0): new, uuid_of(1): new})
    database.set_system_metadata({})
    found = {
        (int(row.instance_uuid[-4:], 16), row.key): row.value
        for row in rows(engine, models.instance_system_metadata)
        if not row.deleted
    }
    assert found == {
        (0, "known"): "after", (0, "added"): "ä" * 255, (1, "known"): "after",
        (1, "added"): "ä" * 255, (2, "known"): "before",
    }  # fmt: skip


def test_an_error_in_the_middle_of_system_metadata_leaves_nothing(database, engine):
    add_many(engine, [0])
    insert(engine, models.instance_system_metadata, [0], key="known", value="before")
    with pytest.raises(DatabaseError):
        database.set_system_metadata({uuid_of(0): {"known": "after", None: "no key"}})
    (row,) = rows(engine, models.instance_system_metadata)
    assert (row.key, row.value) == ("known", "before")


def test_what_is_destroyed_takes_with_it_what_hangs_on_it_and_nothing_else(database, engine):
    add_many(engine, range(4), vm_state="soft-delete")
    with engine.begin() as connection:
        table = models.instances
        for number, values in ((2, {"vm_state": "active"}), (3, {"host": "host2"})):
            connection.execute(
                sa.update(table).where(table.c.uuid == uuid_of(number)).values(**values)
            )
    add_what_hangs_on(engine, range(4))
    insert(engine, models.instance_faults, [0], code=500, deleted=77, deleted_at=EARLIER)
    insert(engine, models.instance_actions, [0], action="delete")
    updates = destroyed([0, 2, 3], terminated_at=NOW)
    assert database.destroy_instances("host1", updates) == {uuid_of(0)}
    assert database.destroy_instances("host1", updates) == set()
    found = {row.uuid: row for row in rows(engine, models.instances)}
    gone = found.pop(uuid_of(0))
    assert (gone.deleted, gone.deleted_at) == (gone.id, NOW)
    assert (gone.vm_state, gone.terminated_at) == ("deleted", NOW)
    assert {(row.deleted, row.deleted_at, row.terminated_at) for row in found.values()} == {
        (0, None, None)
    }
    for table in models.DEPENDANTS:
        for row in rows(engine, table):
            expected = (row.id, NOW) if row.instance_uuid == uuid_of(0) else (0, None)
            if row.deleted_at == EARLIER:
                expected = (77, EARLIER)
            assert (row.deleted, row.deleted_at) == expected, table.name
    (action,) = rows(engine, models.instance_actions)
    assert (action.deleted, action.deleted_at) == (0, None)


def add_what_hangs_on(engine, numbers):
    more = {
        models.instance_metadata: {"key": "role", "value": "web"},
        models.instance_system_metadata: {"key": "image_os", "value": "debian"},
        models.instance_faults: {"code": 500},
    }
    for table in models.DEPENDANTS:
        insert(engine, table, numbers, **more.get(table, {}))


def test_an_error_in_the_middle_of_a_deletion_leaves_the_instance(database, engine):
    add_many(engine, [0], vm_state="soft-delete")
    add_what_hangs_on(engine, [0])
    drop(engine, models.DEPENDANTS[-1])
    with pytest.raises(DatabaseError):
        database.destroy_instances("host1", destroyed([0]))
    for table in (models.instances, *models.DEPENDANTS[:-1]):
        (row,) = rows(engine, table)
        assert (row.deleted, row.deleted_at) == (0, None), table.name
    assert rows(engine, models.instances)[0].vm_state == "soft-delete"


def test_only_what_waits_for_its_confirmation_is_being_confirmed(database, engine):
    add_migrations(engine, [1])
    add_migrations(engine, [2], status="reverted")
    add_migrations(engine, [3], dest_compute="host2")  # its instance is here already again
    add_migrations(engine, range(4, 8))
    with engine.begin() as connection:
        table = models.instances
        for number, values in (
            (4, {"task_state": "resize_reverting"}),
            (5, {"vm_state": "active"}),
            (6, {"deleted": 6}),
            (7, {"host": "host2"}),
        ):
            connection.execute(
                sa.update(table).where(table.c.uuid == uuid_of(number)).values(**values)
            )
    uuids = [uuid_of(n) for n in range(8)]
    waiting = [
        row for status in ("finished", "reverted") for row in database.migrations_of(uuids, status)
    ]
    before = {row.id: row.status for row in rows(engine, models.migrations)}
    (first,) = [row for row in waiting if row.instance_uuid == uuid_of(1)]
    assert database.start_confirming(waiting, confirming(waiting)) == {first.id}
    assert database.start_confirming(waiting, confirming(waiting)) == set()
    after = {row.id: row.status for row in rows(engine, models.migrations)}
    assert after == {**before, first.id: "confirming"}
    (action,) = rows(engine, models.instance_actions)
    assert (action.instance_uuid, action.action) == (uuid_of(1), "confirmResize")
    assert database.unfinished_actions(uuids, CONFIRM[1], "host1") == {uuid_of(1): "req-1"}


def test_nothing_is_confirmed_by_a_migration_that_a_newer_one_has_followed(database, engine):
    add_migrations(engine, [1], status="finished")
    add_migrations(engine, [2], status="confirming")
    insert(engine, models.migrations, [1, 2], status="error", dest_compute="host3")
    uuids = [uuid_of(1), uuid_of(2)]
    finished = database.migrations_of(uuids, "finished")
    waiting = database.migrations_of(uuids, "confirming")
    before = rows(engine, models.migrations), rows(engine, models.instance_extra)
    assert database.start_confirming(finished, confirming(finished)) == set()
    assert database.still_confirming(waiting) == set()
    assert database.complete_confirmations(confirmed(waiting)) == set()
    assert (rows(engine, models.migrations), rows(engine, models.instance_extra)) == before


def test_a_confirmation_goes_on_while_its_instance_waits_for_it(database, engine):
    add_migrations(engine, range(1, 6), status="confirming")
    add_migrations(engine, [6], status="reverted")
    for number, values in (
        (2, {"vm_state": "active"}),
        (3, {"task_state": "resize_reverting"}),
        (4, {"host": "host2"}),
        (5, {"deleted": 5}),
    ):
        with engine.begin() as connection:
            table = models.instances
            connection.execute(
                sa.update(table).where(table.c.uuid == uuid_of(number)).values(**values)
            )
    found = rows(engine, models.migrations)
    assert database.still_confirming(found) == {found[0].id}
    assert rows(engine, models.migrations) == found


def test_an_error_in_the_middle_of_a_confirmations_start_leaves_nothing(database, engine):
    add_migrations(engine, [1])
    found = database.migrations_of([uuid_of(1)], "finished")
    drop(engine, models.instance_actions_events)
    with pytest.raises(DatabaseError):
        database.start_confirming(found, confirming(found))
    assert database.migrations_of([uuid_of(1)], "finished") == found
    assert rows(engine, models.instance_actions) == []


def test_a_migrations_status_is_set_where_it_is_as_expected(database, engine):
    add_migrations(engine, [1])
    add_migrations(engine, [2], status="reverting")
    ids = [row.id for row in rows(engine, models.migrations)]
    assert database.set_migration_status(ids, "finished", "error") == {ids[0]}
    assert database.set_migration_status(ids, "finished", "error") == set()
    assert database.set_migration_status([], "finished", "error") == set()
    found = [(row.status, row.updated_at) for row in rows(engine, models.migrations)]
    assert found == [("error", NOW), ("reverting", EARLIER)]


def test_a_resize_is_recorded_with_its_flavors_and_migration(database, engine):
    add_many(engine, [1, 2], task_state="resize_finish")
    add_many(engine, [3], task_state="deleting")
    insert(engine, models.instance_extra, [1, 2, 3], flavor=flavor(0))
    assert database.finish_resizes("host1", resized([1, 3])) == {uuid_of(1)}
    assert database.finish_resizes("host1", resized([1])) == set()
    found = {row.uuid: row for row in rows(engine, models.instances)}
    done = found[uuid_of(1)]
    assert (done.vm_state, done.task_state, done.memory_mb) == ("resized", None, 1024)
    assert {found[uuid_of(n)].vm_state for n in (2, 3)} == {"active"}
    assert [memories(row.flavor) for row in rows(engine, models.instance_extra)] == [
        (1024, 512, 1024), (512, None, None), (512, None, None),
    ]  # fmt: skip
    (migration,) = rows(engine, models.migrations)
    assert (migration.instance_uuid, migration.status) == (uuid_of(1), "finished")
    assert database.system_metadata([uuid_of(1)], "old_vm_state") == {uuid_of(1): "active"}
    assert len(rows(engine, models.instance_system_metadata)) == 1


def test_a_flavor_that_cannot_be_read_stays_what_it_is(database, engine):
    add_many(engine, [1, 2, 3], task_state="resize_finish")
    for number, text in ((1, None), (2, "no flavor: 100 % ä"), (3, flavor(0))):
        insert(engine, models.instance_extra, [number], flavor=text)
    assert len(database.finish_resizes("host1", resized([1, 2]))) == 2
    assert len(database.finish_resizes("host1", resized([3]))) == 1
    first, second, third = rows(engine, models.instance_extra)
    assert (first.flavor, second.flavor) == (None, "no flavor: 100 % ä")
    assert memories(third.flavor) == (1024, 512, 1024)


def test_an_error_in_the_middle_of_a_resizes_record_leaves_nothing(database, engine):
    add_many(engine, [1], task_state="resize_finish")
    insert(engine, models.instance_extra, [1], flavor=flavor(0))
    drop(engine, models.migrations)
    with pytest.raises(DatabaseError):
        database.finish_resizes("host1", resized([1]))
    (row,) = rows(engine, models.instances)
    assert (row.vm_state, row.task_state, row.memory_mb) == ("active", "resize_finish", None)
    assert memories(rows(engine, models.instance_extra)[0].flavor) == (512, None, None)
    assert rows(engine, models.instance_system_metadata) == []


def test_a_confirmation_is_recorded_once_and_leaves_who_is_busy_all_that_is_his(database, engine):
    add_migrations(engine, [1, 2, 3], status="confirming")
    add_migrations(engine, [4], status="reverting")
    with engine.begin() as connection:
        table = models.instances
        connection.execute(
            sa.update(table).where(table.c.uuid == uuid_of(2)).values(task_state="deleting")
        )
    migrations = [row for row in rows(engine, models.migrations) if row.instance_uuid != uuid_of(3)]
    assert database.complete_confirmations(confirmed(migrations)) == {uuid_of(1)}
    assert database.complete_confirmations(confirmed(migrations)) == set()
    assert [row.status for row in rows(engine, models.migrations)] == [
        "confirmed", "confirming", "confirming", "reverting",
    ]  # fmt: skip
    assert [(row.vm_state, row.task_state) for row in rows(engine, models.instances)] == [
        ("active", None), ("resized", "deleting"), ("resized", None), ("resized", None),
    ]  # fmt: skip
    extra = rows(engine, models.instance_extra)
    after, before = (1024, None, None), (1024, 512, 1024)
    assert [memories(row.flavor) for row in extra] == [after, before, before, before]
    assert [row.migration_context for row in extra] == [None, "{}", "{}", "{}"]
    uuids = [uuid_of(n) for n in range(5)]
    left = database.system_metadata(uuids, "old_vm_state")
    assert left.keys() == {uuid_of(2), uuid_of(3), uuid_of(4)}


def test_an_error_in_the_middle_of_a_confirmations_record_leaves_nothing(database, engine):
    add_migrations(engine, [1], status="confirming")
    migrations = rows(engine, models.migrations)
    drop(engine, models.instance_system_metadata)
    with pytest.raises(DatabaseError):
        database.complete_confirmations(confirmed(migrations))
    assert rows(engine, models.migrations) == migrations
    assert rows(engine, models.instances)[0].vm_state == "resized"
    assert memories(rows(engine, models.instance_extra)[0].flavor) == (1024, 512, 1024)


# Constant cost.


class Sent:
    """How many statements were sent: by the driver, and on MariaDB by what the server has seen."""

    WORDS = ("select", "insert", "update", "delete")

    def __init__(self, database, engine):
        self._database = database
        self._engine = engine

    def __call__(self):
        """Return the statements since the last call."""
        sent = sum(self._database.statements[word.upper()] for word in self.WORDS)
        if self._engine.dialect.name == "mysql":
            counters = ", ".join(f"'Com_{word}'" for word in self.WORDS)
            with self._engine.connect() as connection:
                status = connection.execute(
                    sa.text(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({counters})")
                )
                seen = sum(int(row.Value) for row in status)
            sent, self._seen = seen - getattr(self, "_seen", 0), seen
        self._database.statements.clear()
        return sent


def counted(database, engine, count):
    """Return how many statements each call takes for so many instances."""
    sent = Sent(database, engine)
    numbers = range(count)
    uuids = [uuid_of(n) for n in numbers]
    found = {}

    def count_of(name, *arguments):
        sent()
        result = getattr(database, name)(*arguments)
        found[name] = sent()
        return result

    add_many(engine, numbers, task_state="resize_finish")
    insert(engine, models.instance_extra, numbers, flavor=flavor(0))
    assert len(count_of("instances_in_vm_state", "host1", "active")) == count
    assert len(count_of("instances_in_task_states", "host1", ["resize_finish"])) == count
    assert len(count_of("finish_resizes", "host1", resized(numbers))) == count
    assert len(count_of("instance_facts", uuids)) == count
    _, finished = count_of("waiting_migrations", "host1", NOW)
    assert len(finished) == count
    migrations = count_of("migrations_of", uuids, "finished")
    assert len(count_of("start_confirming", migrations, confirming(migrations))) == count
    waiting, _ = count_of("waiting_migrations", "host1", NOW)
    assert len(waiting) == count
    assert count_of("newer_migrations", waiting) == {}
    assert len(count_of("still_confirming", waiting)) == count
    ids = [row.id for row in migrations]
    assert len(count_of("set_migration_status", ids, "confirming", "confirming")) == count
    assert len(count_of("complete_confirmations", confirmed(migrations))) == count
    count_of("end_actions", [ActionEnd(uuid, CONFIRM[1], "req-1") for uuid in uuids])
    for value in ("added", "changed"):
        database.statements.clear()
        count_of("set_system_metadata", {uuid: {"shelved_at": value} for uuid in uuids})
        found[f"set_system_metadata, {value}"] = found.pop("set_system_metadata")
    insert(engine, models.block_device_mapping, numbers, destination_type="volume")
    assert len(count_of("volumes", uuids)) == count
    with engine.begin() as connection:
        connection.execute(sa.update(models.instances).values(vm_state="soft-delete"))
    assert len(count_of("destroy_instances", "host1", destroyed(numbers))) == count
    return found


def test_a_thousand_instances_take_as_many_statements_as_ten(database, engine):
    few = counted(database, engine, 10)
    with engine.begin() as connection:
        for table in reversed(models.metadata.sorted_tables):
            connection.execute(sa.delete(table))
    many = counted(database, engine, 1000)
    batches = 1000 // bulk.BATCH
    too_many = {name: (few[name], many[name]) for name in few if many[name] > few[name] * batches}
    assert too_many == {}
    assert max(few.values()) <= 15


# Two processes that want the same.

ROUNDS = 100
PATIENCE_SECONDS = 60


def _confirm(database, number, name):
    found = database.migrations_of([uuid_of(number)], "finished")
    return bool(database.start_confirming(found, confirming(found, f"req-{name}")))


def _give_up(database, number, name):
    found = database.migrations_of([uuid_of(number)], "finished")
    return bool(database.set_migration_status([row.id for row in found], "finished", "error"))


def _destroy(database, number, name):
    return bool(database.destroy_instances("host1", destroyed([number])))


def _restore(database, number, name):
    update = InstanceUpdate(uuid_of(number), "soft-delete", None, {"vm_state": "active"})
    return bool(database.update_instances("host1", [update]))


def _complete(database, number, name):
    found = database.migrations_of([uuid_of(number)], "confirming")
    return bool(database.complete_confirmations(confirmed(found)))


def _destroy_resized(database, number, name):
    update = InstanceUpdate(uuid_of(number), "resized", None, {"vm_state": "deleted"})
    return bool(database.destroy_instances("host1", [update]))


def _rival(path, url, name, act, barrier, wins):
    """Try to be first with each instance, in a process of its own."""
    path.mkdir()
    agent, database = open_database(path, url)
    won = set()
    # What a process does but once is not to let it lose the first round.
    database.instances_on_host("nowhere")
    database.is_novas()
    for number in range(ROUNDS):
        barrier.wait(PATIENCE_SECONDS)
        if act(database, number, name):
            won.add(number)
    wins.put((name, won))
    database.close()
    agent.close()


def race(tmp_path, url, acts):
    """Let two processes act on each of one hundred instances at once; return who won which."""
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(2), context.Queue()
    rivals = [
        context.Process(target=_rival, args=(tmp_path / name, url, name, act, barrier, wins))
        for name, act in acts.items()
    ]
    for rival in rivals:
        rival.start()
    won = dict(wins.get(timeout=PATIENCE_SECONDS) for _ in rivals)
    for rival in rivals:
        rival.join(PATIENCE_SECONDS)
        assert rival.exitcode == 0
    return won


def test_of_two_agents_that_want_to_confirm_exactly_one_does(tmp_path, url, database, engine):
    add_migrations(engine, range(ROUNDS))
    won = race(tmp_path, url, {"one": _confirm, "two": _confirm})
    assert not won["one"] & won["two"]
    assert won["one"] | won["two"] == set(range(ROUNDS))
    assert {row.status for row in rows(engine, models.migrations)} == {"confirming"}
    actions = rows(engine, models.instance_actions)
    assert sorted((row.instance_uuid, row.request_id) for row in actions) == sorted(
        (uuid_of(n), f"req-{name}") for name, numbers in won.items() for n in numbers
    )
    assert len(rows(engine, models.instance_actions_events)) == ROUNDS


def test_a_migration_is_either_confirmed_or_given_up(tmp_path, url, database, engine):
    add_migrations(engine, range(ROUNDS))
    won = race(tmp_path, url, {"confirm": _confirm, "give up": _give_up})
    assert not won["confirm"] & won["give up"]
    assert won["confirm"] | won["give up"] == set(range(ROUNDS))
    found = rows(engine, models.migrations)
    left = {
        status: {row.instance_uuid for row in found if row.status == status}
        for status in ("confirming", "error")
    }
    assert left == {
        "confirming": {uuid_of(n) for n in won["confirm"]},
        "error": {uuid_of(n) for n in won["give up"]},
    }
    started = {row.instance_uuid for row in rows(engine, models.instance_actions)}
    assert started == left["confirming"]


def test_an_instance_is_either_destroyed_or_restored(tmp_path, url, database, engine):
    add_many(engine, range(ROUNDS), vm_state="soft-delete")
    insert(engine, models.instance_extra, range(ROUNDS), flavor=flavor(0))
    won = race(tmp_path, url, {"destroy": _destroy, "restore": _restore})
    assert not won["destroy"] & won["restore"]
    assert won["destroy"] | won["restore"] == set(range(ROUNDS))
    gone = {uuid_of(n) for n in won["destroy"]}
    found = rows(engine, models.instances)
    assert {row.uuid for row in found if row.deleted} == gone
    assert {row.uuid for row in found if row.vm_state == "active"} == {
        uuid_of(n) for n in won["restore"]
    }
    extra = rows(engine, models.instance_extra)
    assert {row.instance_uuid for row in extra if row.deleted} == gone


def test_a_confirmation_and_a_deletion_at_once_both_come_to_an_end(tmp_path, url, database, engine):
    add_migrations(engine, range(ROUNDS), status="confirming")
    won = race(tmp_path, url, {"complete": _complete, "destroy": _destroy_resized})
    # Who confirms first leaves the instance active; who deletes first leaves nothing to confirm.
    assert not won["complete"] & won["destroy"]
    assert won["complete"] | won["destroy"] == set(range(ROUNDS))
