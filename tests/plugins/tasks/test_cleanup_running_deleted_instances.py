# SPDX-License-Identifier: Apache-2.0
"""cleanup_running_deleted_instances: the reference's cases, and the worlds that would fool it."""

import datetime

import pytest
import sqlalchemy as sa

from cepheid.explanation import Kind
from cepheid_plugins.compute import domain_names, opts
from cepheid_plugins.compute.reaping import ReapingOperations
from cepheid_plugins.compute.sightings import FILE_NAME, Sightings, SightingsFile
from cepheid_plugins.database import models
from cepheid_plugins.storage import open_files
from cepheid_plugins.tasks.cleanup_running_deleted_instances import (
    CleanupRunningDeletedInstances,
)
from tests.explained import instance
from tests.worlds import (
    World,
    add_with_disk,
    disk_world,
    fake_world,
    let_another_domain_use,
    uuid_of,
)

RUNNING, SHUTDOWN = 1, 4
NOVA = (
    "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"
)


@pytest.fixture
def world(tmp_path):
    """Instance 1 is alive; 2 and 3 are deleted, and their domains and files are still here."""
    world = disk_world(tmp_path, [1, 2, 3])
    delete(world, 2, 3)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return make(world)


def make(world, action="reap", **options):
    task = world.agent.build(CleanupRunningDeletedInstances)
    world.agent.set(task.name, running_deleted_instance_action=action, **options)
    return task


def delete(world, *numbers, minutes_ago=120, **columns):
    """Delete instances in the inventory, and there only."""
    deleted_at = world.clock.utcnow() - datetime.timedelta(minutes=minutes_ago)
    for number in numbers:
        row_id = world.row(number).id
        values = {"vm_state": "deleted", "deleted": row_id, "deleted_at": deleted_at, **columns}
        world.update(number, **values)


def undelete(world, number):
    world.update(number, vm_state="active", deleted=0, deleted_at=None)


def left(world):
    """Return the numbers of the instances of which there is anything here."""
    there = {path.name for path in (world.path / "instances").iterdir()}
    there |= set(world.hypervisor.states)
    return [number for number in range(1, 9) if uuid_of(number) in there]


def passes(world, task, count=2):
    runs = []
    for _ in range(count):
        runs.append(world.agent.run(task))
        world.clock.sleep(1800)
    return runs


# The actions.


def test_noop_reads_nothing(world):
    assert world.agent.run(make(world, "noop")).outcome == "ok"
    assert world.statements() == 0
    assert world.hypervisor.calls.total() == 0


def test_log_is_the_default_and_names_them_once(tmp_path, caplog):
    world = disk_world(tmp_path, [1, 2])
    delete(world, 2)
    task = world.agent.build(CleanupRunningDeletedInstances)
    runs = passes(world, task, 3)
    assert [run.changes for run in runs] == [[], [], []]
    assert caplog.text.count("still has a domain (action log)") == 1
    assert left(world) == [1, 2]
    world.close()


def test_d1_shutdown_powers_off_and_keeps_everything(world):
    task = make(world, "shutdown")
    first, second, third = passes(world, task, 3)
    assert first.counters == {"domains": 3, "left_over": 2, "first_seen": 2}
    assert second.counters == {"domains": 3, "left_over": 2, "done": 2}
    assert third.changes == []
    assert world.hypervisor.states == {
        uuid_of(1): RUNNING, uuid_of(2): SHUTDOWN, uuid_of(3): SHUTDOWN
    }  # fmt: skip
    assert left(world) == [1, 2, 3]


def test_reap_removes_domain_and_files_at_the_second_look(world, task):
    world.hypervisor.states[uuid_of(3)] = SHUTDOWN
    first, second = passes(world, task)
    assert (first.changes, first.counters["first_seen"]) == ([], 2)
    assert second.counters == {"domains": 3, "left_over": 2, "done": 2}
    assert left(world) == [1]
    assert [world.row(number).cleaned for number in (2, 3)] == [1, 1]
    # The rows stay as they are, but for that.
    assert world.row(2).vm_state == "deleted"
    assert world.agent.run(task).counters == {"domains": 1}


def test_says_how_many_were_powered_off(world, reports):
    passes(world, make(world, "shutdown"))
    assert reports == [(0, 2), (1, 2), (2, 2)]


def test_says_of_how_many_domain_and_files_were_removed(world, task, reports):
    passes(world, task)
    assert reports == [(0, 2), (1, 2), (2, 2), (2, 4), (3, 4), (4, 4)]


def test_one_that_fails_does_not_keep_the_others_waiting(world, task):
    world.hypervisor.stubborn.add(uuid_of(2))
    _, second = passes(world, task)
    assert second.counters == {"domains": 3, "left_over": 2, "done": 1, "failed": 1}
    assert left(world) == [1, 2]
    assert world.row(2).cleaned != 1
    world.hypervisor.stubborn.clear()
    world.agent.run(task)
    assert left(world) == [1]


def test_the_deletion_must_be_older_than_the_timeout(tmp_path):
    world = disk_world(tmp_path, [1, 2, 3])
    delete(world, 2, minutes_ago=0)
    delete(world, 3, minutes_ago=120)
    task = make(world, running_deleted_instance_timeout=3600)
    for _ in range(2):
        world.agent.run(task)
    assert left(world) == [1, 2]
    world.close()


def test_one_deleted_on_another_host_is_removed_here_too(world, task):
    world.update(2, host="host2")
    passes(world, task)
    assert left(world) == [1]


def test_a_pass_removes_five_at_most_unless_told_otherwise(world, task):
    assert task.conf.max_changes == 5
    world.agent.set(task.name, max_changes=1)
    _, second = passes(world, task)
    assert (second.outcome, second.counters["refused"]) == ("limited", 1)
    assert len(left(world)) == 2


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("action", ["shutdown", "reap"])
def test_however_many_cannot_be_removed_the_others_have_their_turn(world, action, restarts):
    task = make(world, action)
    delete(world, 1)
    world.add(9)
    world.agent.set(task.name, max_changes=1)
    world.agent.run(task)
    first, second, third = (change.target for change in world.agent.run(task, dry_run=True).changes)
    world.hypervisor.stubborn |= {first, second}
    for _ in range(3):
        passes(world, make(world, action) if restarts else task, 1)
    assert world.hypervisor.states.get(third) != RUNNING


def test_d2_volumes_are_left_to_their_service(world, task):
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping).values(
                instance_uuid=uuid_of(2), volume_id="kept", destination_type="volume",
                delete_on_termination=True, deleted=1,
            )
        )  # fmt: skip
    before = world.rows(models.block_device_mapping)
    passes(world, task)
    assert world.rows(models.block_device_mapping) == before


# What is never touched.


def test_a_domain_that_no_row_knows_is_never_touched(world, task):
    world.hypervisor.states[uuid_of(8)] = RUNNING
    world.hypervisor.names[uuid_of(8)] = "foreign"
    passes(world, task, 3)
    assert left(world) == [1, 8]


@pytest.mark.parametrize("state", ["soft-delete", "active", "error", "building", "deleted"])
def test_a_row_that_is_alive_is_never_touched_whatever_its_state(world, task, state):
    world.update(2, vm_state=state, deleted=0, deleted_at=None)
    passes(world, task, 3)
    assert left(world) == [1, 2]


@pytest.mark.parametrize("action", ["log", "shutdown", "reap"])
def test_a_hidden_one_lives_on_in_another_cell_and_is_never_touched(world, action):
    delete(world, 2, hidden=True)
    delete(world, 3, hidden=None)
    task = make(world, action)
    for _ in range(3):
        run = world.agent.run(task)
        world.clock.sleep(1800)
        assert run.counters.get("left_over", 0) <= 1
        assert uuid_of(2) not in {change.target for change in run.changes}
    assert left(world) == ([1, 2] if action == "reap" else [1, 2, 3])
    assert world.hypervisor.states[uuid_of(2)] == RUNNING


def test_one_that_is_hidden_meanwhile_is_not_touched(world, task, monkeypatch):
    world.agent.run(task)
    world.clock.sleep(1800)
    deleted = world.database.deleted_instances

    def then_hide(uuids):
        world.update(2, hidden=True)
        return deleted(uuids)

    monkeypatch.setattr(world.database, "deleted_instances", then_hide)
    world.agent.run(task)
    assert left(world) == [1, 2]


def test_d23_a_domain_that_somebody_else_made_is_not_ours_by_its_uuid_alone(world, task):
    world.hypervisor.names[uuid_of(2)] = "a-backup-under-test"
    runs = passes(world, task)
    assert runs[1].counters["skipped"] == 1
    assert left(world) == [1, 2]


def test_a_domain_of_novas_name_is_ours_and_its_definition_is_not_asked(world, task):
    row_id = world.row(2).id
    world.hypervisor.names[uuid_of(2)] = f"instance-{row_id:08x}"
    world.agent.run(task)
    assert world.hypervisor.calls["virDomainGetXMLDesc"] == 0
    world.agent.run(task)
    assert left(world) == [1]


def test_the_name_that_nova_gives_to_another_instance_does_not_make_it_ours(world, task):
    world.hypervisor.names[uuid_of(2)] = f"instance-{world.row(3).id:08x}"
    runs = passes(world, task)
    assert runs[1].counters["skipped"] == 1
    assert left(world) == [1, 2]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("vm-%d", "vm-26"),
        ("instance-%08x", "instance-0000001a"),
        ("vm-%(uuid)s", None),
        ("vm", None),
        ("vm-%d-%s", None),
        ("vm-%", None),
        ("%c", "\x1a"),
    ],
)
def test_names_are_made_of_novas_template_and_the_id_alone(template, name):
    assert domain_names.by_template(template, 26) == name


def test_a_template_that_the_id_does_not_fit_in_names_nothing():
    assert domain_names.by_template("%c", 2_000_000) is None


def test_a_domain_with_novas_metadata_is_ours_whatever_its_name(world, task):
    world.hypervisor.names[uuid_of(2)] = "web-of-last-year"
    text = world.hypervisor.definition(uuid_of(2))
    world.hypervisor.definitions[uuid_of(2)] = text.replace("<memory", f"{NOVA}<memory", 1)
    passes(world, task)
    assert left(world) == [1]


def test_one_that_is_deleted_right_after_the_first_look_is_left_to_the_next_pass(
    world, task, monkeypatch
):
    undelete(world, 2)
    undelete(world, 3)
    domain_names = world.hypervisor.domain_names

    def delete_meanwhile():
        delete(world, 2, minutes_ago=0)
        return domain_names()

    with monkeypatch.context() as patch:
        patch.setattr(world.hypervisor, "domain_names", delete_meanwhile)
        assert world.agent.run(task).counters == {"domains": 3}
    world.clock.sleep(1800)
    passes(world, task)
    assert left(world) == [1, 3]


def test_one_that_is_deleted_while_the_pass_looks_is_left_to_the_next(world, task, monkeypatch):
    """Nova is at it: its domain goes in a moment."""
    world.agent.run(task)
    domain_names = world.hypervisor.domain_names

    def then_delete():
        names = domain_names()
        delete(world, 1, minutes_ago=0)
        return names

    monkeypatch.setattr(world.hypervisor, "domain_names", then_delete)
    run = world.agent.run(task)
    assert {change.target for change in run.changes} == {uuid_of(2), uuid_of(3)}
    assert run.counters["left_over"] == 2


def test_one_that_is_undeleted_meanwhile_is_not_touched(world, task, monkeypatch):
    world.agent.run(task)
    asked = world.database.fates

    def ask_then_undelete(host, uuids):
        found = asked(host, uuids)
        undelete(world, 2)
        return found

    monkeypatch.setattr(world.database, "fates", ask_then_undelete)
    run = world.agent.run(task)
    assert run.counters["raced"] == 1
    assert left(world) == [1, 2]


def test_d21_a_deleted_at_that_is_null_is_one_bad_row(world, task):
    world.update(2, deleted_at=None)
    runs = passes(world, task)
    assert runs[1].counters == {"domains": 3, "skipped": 1, "left_over": 1, "done": 1}
    assert left(world) == [1, 2]


def test_one_whose_disk_another_domain_uses_is_not_touched(world, task):
    disk = world.path / "instances" / uuid_of(2) / "disk"
    let_another_domain_use(world, disk)
    _, second = passes(world, task)
    assert (second.counters["done"], second.counters["failed"]) == (1, 1)
    (failed,) = [change for change in second.changes if change.outcome == "failed"]
    assert (failed.target, failed.error) == (
        uuid_of(2),
        f"it is kept: {disk} is named in a definition of the domain guest-7",
    )
    assert disk.exists()
    assert world.hypervisor.states[uuid_of(2)] == RUNNING
    assert world.row(2).cleaned != 1
    assert left(world) == [1, 2, 7]


def test_its_own_use_of_its_disk_is_no_obstacle(world, task):
    disk = world.path / "instances" / uuid_of(2) / "disk"
    assert str(disk) in world.hypervisor.definition(uuid_of(2))
    passes(world, task)
    assert left(world) == [1]


def test_a_domain_that_is_off_is_kept_while_somebody_has_its_disk_open(world, task):
    world.hypervisor.states[uuid_of(2)] = SHUTDOWN
    with (world.path / "instances" / uuid_of(2) / "disk").open("rb"):
        _, second = passes(world, task)
        assert (second.counters["done"], second.counters["failed"]) == (1, 1)
        assert uuid_of(2) in world.hypervisor.states
    world.agent.run(task)
    assert left(world) == [1]


def test_files_that_somebody_has_open_outlive_their_running_domain(world, task):
    disk = world.path / "instances" / uuid_of(2) / "disk"
    with disk.open("rb"):
        _, second = passes(world, task)
    (failed,) = [change for change in second.changes if change.outcome == "failed"]
    assert failed.error == "somebody has begun to use its files; they are kept"
    assert disk.exists()
    assert world.row(2).cleaned != 1


@pytest.mark.parametrize("count", [1, 20])
def test_who_uses_the_files_is_looked_at_once_for_all(tmp_path, monkeypatch, count):
    looks = []
    holders = open_files.holders

    def look(*asked):
        looks.append(asked)
        return holders(*asked)

    monkeypatch.setattr(open_files, "holders", look)
    world = fake_world(tmp_path, dict.fromkeys(range(count), SHUTDOWN))
    world.add_many(range(count))
    delete(world, *range(count))
    for number in range(count):
        (tmp_path / "instances" / uuid_of(number)).mkdir(parents=True)
    operations = ReapingOperations(world.agent.build(CleanupRunningDeletedInstances).agent)
    results = operations.reap([uuid_of(number) for number in range(count)])
    assert list(results.values()) == [None] * count
    # Before the domains are touched, and when the files are set aside.
    assert len(looks) == 2
    assert world.hypervisor.calls["virConnectGetAllDomainStats"] == 1
    world.close()


# The worlds in which a naive version destroys good guests.


def test_an_empty_database_destroys_nothing_until_the_operator_confirms(world, task):
    undelete(world, 2)
    undelete(world, 3)
    world.agent.run(task)
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances))
    run = world.agent.run(task)
    assert run.outcome == "partial"
    passes(world, task, 3)
    assert left(world) == [1, 2, 3]


def test_an_inventory_that_vanished_destroys_not_even_what_it_says_is_deleted(world, task):
    passes(world, task, 1)
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances).where(models.instances.c.deleted == 0))
    for run in passes(world, task, 3):
        assert run.changes == []
    assert left(world) == [1, 2, 3]
    SightingsFile(str(world.path)).write(confirmed(world))
    passes(world, task)
    assert left(world) == [1]


def confirmed(world):
    """Return what 'cepheid host confirm' writes."""
    sightings = Sightings()
    live = {row.uuid for row in world.database.instances_on_host("host1")}
    domains = set(world.hypervisor.states)
    now = world.clock.utcnow()
    sightings.look("host1", world.hypervisor.identity, live, live, domains, now)
    return sightings


def test_an_emptied_host_is_no_vanished_inventory(world, task):
    world.agent.run(task)
    delete(world, 1, minutes_ago=0)
    world.clock.sleep(1800)
    passes(world, task)
    assert left(world) == []


def test_a_database_restored_from_an_old_copy_does_not_kill_who_was_seen_alive_since(world, task):
    """Instance 2 was deleted by mistake and brought back; the copy is from in between."""
    undelete(world, 2)
    passes(world, task, 2)
    delete(world, 2, minutes_ago=300)
    runs = passes(world, task, 3)
    assert [run.counters["skipped"] for run in runs] == [1, 1, 1]
    assert left(world) == [1, 2]


def test_a_renamed_host_destroys_nothing_until_the_operator_confirms(world, task):
    world.agent.run(task)
    world.agent.close()
    renamed = World(world.path, world.hypervisor, settings="host = host9\n", clock=world.clock)
    renamed.agent.conf.register_opts(opts.OPTIONS, group="compute")
    for run in passes(renamed, make(renamed), 3):
        assert (run.outcome, run.changes) == ("partial", [])
    assert left(renamed) == [1, 2, 3]
    renamed.close()


def test_another_hypervisor_under_the_same_name_destroys_nothing(world, task):
    world.agent.run(task)
    world.hypervisor.system_uuid = "another machine"
    for run in passes(world, task, 3):
        assert run.changes == []
    assert left(world) == [1, 2, 3]


def test_a_replica_that_lags_for_one_pass_destroys_nothing(world, task, monkeypatch):
    """Instances 2 and 3 were undeleted, and what one pass reads is from before that."""
    undelete(world, 2)
    undelete(world, 3)
    world.agent.run(task)
    with monkeypatch.context() as patch:
        world.clock.sleep(1800)
        delete(world, 2, 3, minutes_ago=1)  # after all that was seen
        old = world.database.fates("host1", [uuid_of(2), uuid_of(3)])
        undelete(world, 2)
        undelete(world, 3)
        patch.setattr(world.database, "fates", lambda host, uuids: old)
        assert world.agent.run(task).counters["first_seen"] == 2
    passes(world, task, 2)
    assert left(world) == [1, 2, 3]


def test_the_database_of_another_cell_destroys_nothing(tmp_path):
    """There the instances of this host are deleted: they have moved to this cell."""
    world = disk_world(tmp_path, [2, 3])
    delete(world, 2, 3)
    task = make(world)
    for run in passes(world, task, 3):
        assert (run.outcome, run.changes) == ("partial", [])
    assert left(world) == [2, 3]
    # Whereas a cell that knows the host is its own, even without instances there.
    with world.engine.begin() as connection:
        values = dict.fromkeys(
            ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used",
             "hypervisor_version"), 0,
        )  # fmt: skip
        connection.execute(
            sa.insert(models.compute_nodes).values(
                host="host1", hypervisor_hostname="node1", hypervisor_type="QEMU", cpu_info="{}",
                deleted=0, **values,
            )
        )  # fmt: skip
    passes(world, task)
    assert left(world) == []
    world.close()


def test_half_a_migration_destroys_neither_side(world, task):
    """The row names the other host still, or already; the domain is on both."""
    add_with_disk(world, 4, host="host2", task_state="migrating")
    world.hypervisor.states[uuid_of(4)] = 3
    world.hypervisor.names[uuid_of(4)] = "guest-4"
    passes(world, task, 3)
    assert left(world) == [1, 4]


# Faults, cost, dry run.


def test_a_hypervisor_that_does_not_answer_ends_the_pass(world, task):
    world.agent.run(task)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert left(world) == [1, 2, 3]


def test_a_database_that_goes_away_in_the_middle_ends_the_pass(world, task, monkeypatch):
    world.agent.run(task)
    domain_names = world.hypervisor.domain_names

    def lose_the_database():
        (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
        return domain_names()

    monkeypatch.setattr(world.hypervisor, "domain_names", lose_the_database)
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    (world.path / "elsewhere").rename(world.path / "cepheid.sqlite")
    assert left(world) == [1, 2, 3]


def test_a_file_of_sightings_that_cannot_be_read_ends_the_pass(world, task):
    world.agent.run(task)
    (world.path / FILE_NAME).write_text("{")
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert "cepheid host confirm" in run.error
    assert left(world) == [1, 2, 3]


def test_files_that_cannot_be_removed_are_tried_again(world, task):
    directory = world.path / "instances" / uuid_of(2)
    (directory / "disk").rename(world.path / "precious")
    directory.rmdir()
    directory.symlink_to(world.path)
    _, second = passes(world, task)
    assert second.counters["failed"] == 1
    assert (world.path / "precious").exists()
    assert world.row(2).cleaned != 1


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement_and_one_call(tmp_path, count):
    world = fake_world(tmp_path, dict.fromkeys(range(count), RUNNING))
    world.add_many(range(count))
    task = make(world)
    world.agent.run(task)
    world.database.statements.clear()
    world.hypervisor.calls.clear()
    assert world.agent.run(task).counters == {"domains": count}
    assert world.statements() == 1
    assert world.hypervisor.calls["virConnectListAllDomains"] == 1
    world.close()


def test_the_dry_run_plans_and_changes_nothing(world, task):
    world.agent.run(task)
    before = (world.path / FILE_NAME).read_bytes()
    run = world.agent.run(task, dry_run=True)
    assert {(c.kind, c.outcome) for c in run.changes} == {("reap", "planned")}
    assert left(world) == [1, 2, 3]
    assert (world.path / FILE_NAME).read_bytes() == before


def test_a_dry_run_and_explain_say_which_a_run_would_keep(world, task):
    disk = world.path / "instances" / uuid_of(2) / "disk"
    let_another_domain_use(world, disk)
    world.agent.run(task)
    planned = {c.target: c.reason for c in world.agent.run(task, dry_run=True).changes}
    verdicts = {one.kind: one.text for one in task.explain(instance(uuid_of(2)))}
    failed = {c.target: c.error for c in world.agent.run(task).changes if c.outcome == "failed"}
    kept = f"it is kept: {disk} is named in a definition of the domain guest-7"
    assert failed == {uuid_of(2): kept}
    assert planned[uuid_of(2)].endswith("; " + kept.replace("it is", "it would be"))
    assert verdicts[Kind.ACTS] == planned[uuid_of(2)]
    assert "kept" not in planned[uuid_of(3)]


def test_a_run_that_acts_looks_at_obstacles_once(world, task, monkeypatch):
    looks = []
    obstacles = ReapingOperations.obstacles
    monkeypatch.setattr(
        ReapingOperations, "obstacles", lambda *a: looks.append(len(a[1])) or obstacles(*a)
    )
    world.agent.run(task)
    world.agent.set(task.name, max_changes=1)
    world.agent.run(task, dry_run=True)
    task.explain(instance(uuid_of(1)))
    assert looks == [1]
    world.agent.run(task)
    assert looks == [1, 1]


def test_d18_the_help_says_what_a_spacing_of_0_does(task):
    (spacing,) = [o for o in task.all_options() if o.name == "spacing"]
    assert spacing.default == 1800
    assert "0 means 60; a negative number switches the task off" in spacing.help


def test_nova_conf_sets_action_timeout_and_spacing(tmp_path):
    settings = (
        "running_deleted_instance_action = reap\nrunning_deleted_instance_timeout = 7\n"
        "running_deleted_instance_poll_interval = 120\ninstance_name_template = vm-%x\n"
    )
    world = fake_world(tmp_path, {}, settings=settings)
    task = world.agent.build(CleanupRunningDeletedInstances)
    conf = task.conf
    assert conf.running_deleted_instance_action == "reap"
    assert (conf.running_deleted_instance_timeout, conf.spacing) == (7, 120)
    assert task.agent.conf.compute.instance_name_template == "vm-%x"
    world.close()


@pytest.mark.parametrize("action", ["log", "shutdown", "reap"])
def test_an_action_that_changes_in_the_middle_of_a_pass_is_for_the_next(world, monkeypatch, action):
    task = make(world, action)
    world.agent.run(task)
    names = world.hypervisor.domain_names

    def meanwhile():
        world.agent.set(task.name, running_deleted_instance_action="noop")
        return names()

    monkeypatch.setattr(world.hypervisor, "domain_names", meanwhile)
    run = world.agent.run(task)
    kinds = {"log": set(), "shutdown": {"power_off"}, "reap": {"reap"}}
    assert {change.kind for change in run.changes} == kinds[action]
    assert world.agent.run(task).changes == []
