# SPDX-License-Identifier: Apache-2.0
"""An operation that is interrupted (Ctrl-C): what is done is on record, nothing is half given back.

By a real signal: tests/functional/test_ctrl_c.py.
"""

import pytest

from cepheid.run import Change, Run
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.compute.shelving import ShelvingOperations
from cepheid_plugins.database import models
from tests.worlds import disk_world, uuid_of

FIRST, SECOND, THIRD = UUIDS = [uuid_of(number) for number in (1, 2, 3)]
RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def world(tmp_path):
    world = disk_world(tmp_path, [1, 2, 3])
    yield world
    world.close()


def operate(world, do, uuids=UUIDS):
    """Carry an operation out as an operator's command does; return its run."""
    rows = world.database.instances_by_uuid(uuids)

    def act(context):
        context.change_many(
            "operation",
            [Change(row.uuid) for row in rows],
            lambda changes: do(rows, context.request_id),
        )

    run = Run("operation", "test", "operator", False, world.clock.utcnow())
    try:
        world.agent.runner.execute(run, act)
    except KeyboardInterrupt:
        assert run.error == "KeyboardInterrupt"
    return run


def interrupt(world, do, step, at=SECOND):
    """Do so, and let Ctrl-C be typed right after a step on the hypervisor for an instance."""
    take = getattr(world.hypervisor, step)

    def take_and_interrupt(uuid, *arguments, **named):
        take(uuid, *arguments, **named)
        if uuid == at:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.hypervisor, step, take_and_interrupt)
        run = operate(world, do)
    assert run.error
    return run


def outcomes(run):
    return {change.target: (change.outcome, change.error) for change in run.changes}


def recorded(world, run):
    """Return the outcomes that the journal has."""
    changes = world.agent.journal.changes([run.id])
    return {change["target"]: change["outcome"] for change in changes}


def events(world):
    return {
        action.instance_uuid: event.result
        for action, event in zip(
            world.rows(models.instance_actions),
            world.rows(models.instance_actions_events),
            strict=True,
        )
    }


def files(world):
    return sorted(path.name for path in (world.path / "instances").iterdir())


def test_a_deletion_keeps_what_it_has_begun_and_gives_back_what_it_has_not(world):
    run = interrupt(world, DeletionOperations(world.agent).delete, "undefine")
    first, second, third = (world.row(number) for number in (1, 2, 3))
    assert (first.vm_state, first.task_state, first.deleted) == ("deleted", None, first.id)
    assert (second.vm_state, second.task_state, second.deleted) == ("active", "deleting", 0)
    assert (third.vm_state, third.task_state, third.deleted) == ("active", None, 0)
    # The files go when all domains have gone; what is left of them another pass removes.
    assert (first.cleaned, files(world)) == (0, UUIDS)
    assert world.hypervisor.states == {THIRD: RUNNING}
    assert outcomes(run) == {
        FIRST: ("done", ""),
        SECOND: ("unknown", ""),
        THIRD: ("failed", "The delete was interrupted before it began."),
    }
    assert recorded(world, run) == {FIRST: "done", SECOND: "unknown", THIRD: "failed"}
    assert events(world) == {FIRST: "Success", SECOND: None, THIRD: "Error"}


def test_a_deletion_that_was_interrupted_is_carried_on_with_and_not_given_back(world):
    operations = DeletionOperations(world.agent)
    interrupt(world, operations.delete, "undefine")
    rows = world.database.instances_by_uuid(UUIDS)
    run = Run("releasing", "test", "test", False, world.clock.utcnow())
    world.agent.runner.execute(run, lambda context: operations.release_interrupted(context, rows))
    assert (run.changes, world.row(2).task_state) == ([], "deleting")
    again = operate(world, operations.delete, [SECOND])
    assert outcomes(again) == {SECOND: ("done", "")}
    assert world.row(2).deleted == world.row(2).id
    assert files(world) == [FIRST, THIRD]


def test_an_offload_keeps_what_it_has_begun_and_gives_back_what_it_has_not(world):
    operations = ShelvingOperations(world.agent)
    operate(world, operations.shelve)
    run = interrupt(world, operations.offload, "undefine")
    states = [(world.row(n).vm_state, world.row(n).task_state) for n in (1, 2, 3)]
    assert states == [
        ("shelved", "shelving_offloading"),
        ("shelved", "shelving_offloading"),
        ("shelved", None),
    ]
    assert [outcome for outcome, _ in outcomes(run).values()] == ["unknown", "unknown", "failed"]
    again = operate(world, operations.offload, [FIRST, SECOND])
    assert outcomes(again) == {FIRST: ("done", ""), SECOND: ("done", "")}
    assert files(world) == [THIRD]


def test_an_instance_whose_shelving_was_interrupted_is_as_if_nobody_had_shelved_it(world):
    operations = ShelvingOperations(world.agent)
    run = interrupt(world, operations.shelve, "require_no_saved_memory")
    assert {world.row(n).vm_state for n in (1, 2, 3)} == {"active"}
    assert {world.row(n).task_state for n in (1, 2, 3)} == {None}
    assert {outcome for outcome, _ in outcomes(run).values()} == {"failed"}
    again = operate(world, operations.shelve)
    assert {outcome for outcome, _ in outcomes(again).values()} == {"done"}
    assert world.database.system_metadata(UUIDS, "shelved_image_id") == dict(
        zip(UUIDS, UUIDS, strict=True)
    )


def test_an_instance_whose_resize_was_interrupted_waits_for_no_confirmation(world):
    operations = ResizeOperations(world.agent)

    def resize(rows, request_id):
        return operations.resize(rows, request_id, Size(2, 256))

    interrupt(world, resize, "define_resized")
    assert {world.row(n).vm_state for n in (1, 2, 3)} == {"active"}
    assert {world.row(n).task_state for n in (1, 2, 3)} == {None}
    assert world.rows(models.migrations) == []
    again = operate(world, resize)
    assert {outcome for outcome, _ in outcomes(again).values()} == {"done"}
    assert len(world.rows(models.migrations)) == 3


def test_what_is_only_started_or_stopped_is_idle_again(world):
    run = interrupt(world, PowerOperations(world.agent).hard_reboot, "start")
    assert {world.row(n).task_state for n in (1, 2, 3)} == {None}
    errors = {uuid: error for uuid, (_, error) in outcomes(run).items()}
    assert errors[SECOND] == "The reboot was interrupted."
    assert errors[THIRD] == "The reboot was interrupted before it began."
    assert set(events(world).values()) == {"Error"}
