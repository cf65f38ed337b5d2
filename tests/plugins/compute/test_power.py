# SPDX-License-Identifier: Apache-2.0
"""Stopping instances: asked together, waited for together, recorded as Nova does."""

import pytest

from cepheid.errors import CepheidError
from cepheid.run import Raced, Run
from cepheid_plugins.compute.operations import NotPossible
from cepheid_plugins.compute.opts import OPTIONS
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.database import actions, models
from cepheid_plugins.database.records import ActionStart, InstanceUpdate
from cepheid_plugins.hypervisor.driver import HypervisorError
from tests.worlds import fake_world, uuid_of

RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, dict.fromkeys(range(3), RUNNING))
    world.agent.conf.register_opts(OPTIONS, group="compute")
    world.add_many(range(3))
    yield world
    world.close()


@pytest.fixture
def operations(world):
    return PowerOperations(world.agent)


def instances(world):
    return sorted(world.database.instances_on_host("host1"), key=lambda row: row.uuid)


def test_guests_that_listen_are_shut_down_and_not_powered_off(world, operations):
    assert set(operations.stop(instances(world), "req-1").values()) == {None}
    assert {call for call, _ in world.hypervisor.acts} == {"virDomainShutdown"}
    for number in range(3):
        row = world.row(number)
        assert (row.vm_state, row.task_state, row.power_state) == ("stopped", None, SHUTDOWN)
        assert row.progress == 0


def test_a_guest_that_does_not_listen_is_asked_again_and_then_powered_off(world, operations):
    world.hypervisor.deaf.add(uuid_of(1))
    started = world.clock.monotonic()
    operations.stop(instances(world), "req-1")
    acts = [call for call, uuid in world.hypervisor.acts if uuid == uuid_of(1)]
    assert acts == ["virDomainShutdown"] * 6 + ["virDomainDestroy"]
    assert world.clock.monotonic() - started == 60
    assert world.row(1).vm_state == "stopped"


def test_deaf_guests_are_waited_for_together(world, operations):
    world.hypervisor.deaf |= {uuid_of(number) for number in range(3)}
    started = world.clock.monotonic()
    operations.stop(instances(world), "req-1")
    assert world.clock.monotonic() - started == 60
    assert world.hypervisor.calls["virConnectGetAllDomainStats"] == 62


def test_an_images_own_timeout_goes_first(world, operations):
    world.hypervisor.deaf.add(uuid_of(1))
    with world.engine.begin() as connection:
        connection.execute(
            models.instance_system_metadata.insert().values(
                instance_uuid=uuid_of(1), key="image_os_shutdown_timeout", value="5", deleted=0
            )
        )
    started = world.clock.monotonic()
    operations.stop(instances(world), "req-1")
    assert world.clock.monotonic() - started == 5


def test_a_guest_that_cannot_be_stopped_leaves_a_fault_and_the_others_go_on(world, operations):
    world.hypervisor.deaf.add(uuid_of(1))
    world.hypervisor.stubborn.add(uuid_of(1))
    results = operations.stop(instances(world), "req-1")
    assert "does not end" in str(results[uuid_of(1)])
    row = world.row(1)
    assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)
    (fault,) = world.rows(models.instance_faults)
    assert (fault.instance_uuid, fault.code, fault.host) == (uuid_of(1), 500, "host1")
    assert "HypervisorError" in fault.details
    events = {event.result for event in world.rows(models.instance_actions_events)}
    assert events == {"Success", "Error"}
    messages = {a.instance_uuid: a.message for a in world.rows(models.instance_actions)}
    assert messages[uuid_of(1)] == "Error"
    assert [world.row(number).vm_state for number in (0, 2)] == ["stopped", "stopped"]


def test_a_hypervisor_that_goes_away_leaves_the_instances_idle_and_not_stopped(
    world, operations, monkeypatch
):
    def vanish(uuid):
        world.hypervisor.available = False

    monkeypatch.setattr(world.hypervisor, "shutdown", vanish)
    results = operations.stop(instances(world), "req-1")
    assert all(isinstance(result, Exception) for result in results.values())
    for number in range(3):
        row = world.row(number)
        assert (row.vm_state, row.task_state) == ("active", None)
    assert len(world.rows(models.instance_faults)) == 3


def test_a_domain_that_vanishes_while_it_is_stopped_is_stopped(world, operations, monkeypatch):
    def vanish(uuid):
        del world.hypervisor.states[uuid]

    monkeypatch.setattr(world.hypervisor, "shutdown", vanish)
    operations.stop(instances(world), "req-1")
    assert world.row(1).vm_state == "stopped"
    assert world.row(1).power_state == 0


def test_a_guest_that_the_last_look_left_out_is_not_gone(world, operations, monkeypatch):
    look = world.hypervisor.domains

    def look_then_hide():
        found = look()
        world.hypervisor.hidden.add(uuid_of(1))
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_then_hide)
    operations.stop(instances(world), "req-1")
    assert world.row(1).power_state == SHUTDOWN


def test_an_error_nobody_foresaw_leaves_the_instances_idle(world, operations, monkeypatch):
    def break_down(uuid):
        raise RuntimeError("broken")

    monkeypatch.setattr(world.hypervisor, "shutdown", break_down)
    with pytest.raises(RuntimeError):
        operations.stop(instances(world), "req-1")
    for number in range(3):
        row = world.row(number)
        assert (row.vm_state, row.task_state) == ("active", None)


def test_an_action_that_cannot_be_recorded_leaves_the_instances_idle(
    world, operations, monkeypatch
):
    def refuse(connection, starts, now):
        raise CepheidError("The database does not answer.")

    monkeypatch.setattr(actions, "start", refuse)
    with pytest.raises(CepheidError):
        operations.stop(instances(world), "req-1")
    assert {world.row(number).task_state for number in range(3)} == {None}
    assert world.hypervisor.acts == []


def test_an_instance_reset_while_its_guest_shuts_down_has_raced(world, operations, monkeypatch):
    shutdown = world.hypervisor.shutdown

    def shutdown_and_reset(uuid):
        shutdown(uuid)
        if uuid == uuid_of(1):
            world.update(1, vm_state="error", task_state=None)

    monkeypatch.setattr(world.hypervisor, "shutdown", shutdown_and_reset)
    results = operations.stop(instances(world), "req-1")
    assert isinstance(results[uuid_of(1)], Raced)
    assert world.row(1).vm_state == "error"
    assert results[uuid_of(0)] is results[uuid_of(2)] is None
    results_of_events = [event.result for event in world.rows(models.instance_actions_events)]
    assert sorted(results_of_events) == ["Error", "Success", "Success"]


def test_a_guest_that_is_off_already_is_not_asked(world, operations):
    world.hypervisor.states[uuid_of(1)] = SHUTDOWN
    started = world.clock.monotonic()
    operations.stop([row for row in instances(world) if row.uuid == uuid_of(1)], "req-1")
    assert world.hypervisor.acts == []
    assert world.clock.monotonic() == started
    assert world.row(1).vm_state == "stopped"


def test_where_none_can_be_stopped_nothing_is_sent(world, operations):
    world.update(1, launched_at=None)
    rows = [row for row in instances(world) if row.uuid == uuid_of(1)]
    world.database.statements.clear()
    operations.stop(rows, "req-1")
    assert world.statements() == 0
    assert world.hypervisor.calls.total() == 0


def test_an_images_timeout_that_is_no_number_is_not_used(world, operations):
    world.hypervisor.deaf.add(uuid_of(1))
    with world.engine.begin() as connection:
        connection.execute(
            models.instance_system_metadata.insert().values(
                instance_uuid=uuid_of(1), key="image_os_shutdown_timeout", value="²", deleted=0
            )
        )
    started = world.clock.monotonic()
    operations.stop(instances(world), "req-1")
    assert world.clock.monotonic() - started == 60


def test_an_instance_that_somebody_else_works_on_is_left_alone(world, operations):
    rows = instances(world)
    world.update(1, task_state="rebooting")
    results = operations.stop(rows, "req-1")
    assert results[uuid_of(1)] == "raced"
    assert world.row(1).task_state == "rebooting"
    assert world.hypervisor.states[uuid_of(1)] == RUNNING


def test_what_a_user_could_not_stop_is_refused_unless_forced(world, operations):
    world.update(1, vm_state="paused")
    world.update(2, launched_at=None)
    rows = instances(world)
    results = operations.stop(rows, "req-1")
    assert isinstance(results[uuid_of(1)], NotPossible)
    assert isinstance(results[uuid_of(2)], NotPossible)
    results = operations.stop([rows[1]], "req-2", force=True)
    assert results == {uuid_of(1): None}


# A stop that its agent did not end.


def interrupted(world, operations, monkeypatch):
    """Let a run of ours die in the middle of stopping instance 1; return its context."""

    def die(*arguments):
        raise SystemExit("killed")

    def stop(context):
        with monkeypatch.context() as patch:
            patch.setattr(operations, "_shut_down", die)
            patch.setattr(operations._claims, "record", die)
            operations.stop(instances(world)[1:2], context.request_id)

    run = Run("stopping", "test", "test", False, world.clock.utcnow())
    with pytest.raises(SystemExit):
        world.agent.runner.execute(run, stop)
    assert world.row(1).task_state == "powering-off"
    return run


def release(world, operations):
    run = Run("releasing", "test", "test", False, world.clock.utcnow())
    return world.agent.runner.execute(
        run, lambda context: operations.release_interrupted(context, instances(world))
    )


def test_an_instance_whose_stop_was_interrupted_is_made_idle(world, operations, monkeypatch):
    interrupted(world, operations, monkeypatch)
    run = release(world, operations)
    assert [(c.kind, c.target, c.outcome) for c in run.changes] == [
        ("task_state", uuid_of(1), "done")
    ]
    row = world.row(1)
    assert (row.vm_state, row.task_state) == ("active", None)
    (event,) = world.rows(models.instance_actions_events)
    assert (event.result, event.details) == ("Error", "The stop was interrupted.")
    assert release(world, operations).changes == []


def test_an_instance_that_somebody_else_is_stopping_is_left_alone(world, operations):
    uuid = uuid_of(1)
    world.database.begin(
        [InstanceUpdate(uuid, "active", None, {"task_state": "powering-off"})],
        [ActionStart(uuid, "stop", "compute_stop_instance", "req-of-nova", "host1")],
        "host1",
    )
    world.update(2, task_state="powering-off")
    assert release(world, operations).changes == []
    assert world.row(1).task_state == world.row(2).task_state == "powering-off"


def test_an_instance_whose_stop_goes_on_is_left_alone(world, operations, monkeypatch):
    found = []

    def look(context):
        monkeypatch.setattr(operations, "_shut_down", lambda *_: found.append(release_now()))
        operations.stop(instances(world)[1:2], context.request_id)

    def release_now():
        return release(world, operations).changes

    world.agent.runner.execute(Run("stopping", "test", "test", False, world.clock.utcnow()), look)
    assert found == [[]]


# Start and hard reboot.


def test_starting_starts_the_guests_that_are_off_and_records_them_as_active(world, operations):
    for number, state in ((0, SHUTDOWN), (1, SHUTDOWN), (2, RUNNING)):
        world.update(number, vm_state="stopped", power_state=SHUTDOWN)
        world.hypervisor.states[uuid_of(number)] = state
    assert set(operations.start(instances(world), "req-1").values()) == {None}
    assert world.hypervisor.acts == [("virDomainCreate", uuid_of(n)) for n in (0, 1)]
    for number in range(3):
        row = world.row(number)
        assert (row.vm_state, row.task_state, row.power_state) == ("active", None, RUNNING)
    actions_made = {(a.action, a.message) for a in world.rows(models.instance_actions)}
    assert actions_made == {("start", None)}


def test_a_guest_that_does_not_start_leaves_a_fault_and_stays_stopped(
    world, operations, monkeypatch
):
    for number in range(3):
        world.update(number, vm_state="stopped")
        world.hypervisor.states[uuid_of(number)] = SHUTDOWN
    del world.hypervisor.states[uuid_of(1)]
    results = operations.start(instances(world), "req-1")
    assert "has no domain" in str(results[uuid_of(1)])
    assert (world.row(1).vm_state, world.row(1).task_state) == ("stopped", None)
    assert [world.row(number).vm_state for number in (0, 2)] == ["active", "active"]
    assert len(world.rows(models.instance_faults)) == 1


def test_only_a_stopped_instance_is_started(world, operations):
    results = operations.start(instances(world), "req-1")
    assert all(isinstance(result, NotPossible) for result in results.values())
    assert world.hypervisor.acts == []


def test_a_hard_reboot_powers_off_and_starts(world, operations):
    world.update(1, vm_state="error")
    world.hypervisor.deaf |= {uuid_of(number) for number in range(3)}
    assert set(operations.hard_reboot(instances(world), "req-1").values()) == {None}
    assert [call for call, _ in world.hypervisor.acts] == [
        "virDomainDestroy",
        "virDomainCreate",
    ] * 3
    assert {world.row(number).vm_state for number in range(3)} == {"active"}


def test_a_guest_that_does_not_come_back_from_a_reboot_is_in_error(world, operations, monkeypatch):
    start = world.hypervisor.start

    def start_but_one(uuid):
        if uuid == uuid_of(1):
            raise HypervisorError(f"{uuid}: no memory")
        start(uuid)

    monkeypatch.setattr(world.hypervisor, "start", start_but_one)
    operations.hard_reboot(instances(world), "req-1")
    row = world.row(1)
    assert (row.vm_state, row.task_state) == ("error", None)
    assert [world.row(number).vm_state for number in (0, 2)] == ["active", "active"]
    (fault,) = world.rows(models.instance_faults)
    assert "no memory" in fault.message


def test_a_guest_that_runs_after_all_counts_as_rebooted(world, operations, monkeypatch):
    start = world.hypervisor.start

    def start_and_complain(uuid):
        start(uuid)
        raise HypervisorError(f"{uuid}: a warning")

    monkeypatch.setattr(world.hypervisor, "start", start_and_complain)
    assert set(operations.hard_reboot(instances(world), "req-1").values()) == {None}
    assert {world.row(number).vm_state for number in range(3)} == {"active"}
