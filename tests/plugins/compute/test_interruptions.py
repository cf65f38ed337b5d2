# SPDX-License-Identifier: Apache-2.0
"""Every operation, killed before each of its steps and asked for again, ends as if it had not been.

On real guests, with SIGKILL: tests/functional/test_operations.py.
"""

import contextlib
import itertools
import shutil

import pytest
import sqlalchemy as sa

from cepheid.run import Run
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.compute.rescue import RescueOperations
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.compute.shelving import ShelvingOperations
from cepheid_plugins.database import models
from tests.fakes import FakeHypervisor
from tests.killing import Killed, Steps
from tests.worlds import disk_world, uuid_of

NUMBER = 1
UUID = uuid_of(NUMBER)


def row(world):
    (found,) = world.database.instances_by_uuid([UUID])
    return found


def rescue(world, request):
    image = world.path / "rescue.img"
    image.write_bytes(b"\0" * 65536)
    return RescueOperations(world.agent).rescue([row(world)], request, str(image))


OPERATIONS = {
    "stop": lambda world, request: PowerOperations(world.agent).stop([row(world)], request),
    "start": lambda world, request: PowerOperations(world.agent).start([row(world)], request),
    "reboot": lambda world, request: PowerOperations(world.agent).hard_reboot(
        [row(world)], request
    ),
    "rescue": rescue,
    "unrescue": lambda world, request: RescueOperations(world.agent).unrescue(
        [row(world)], request
    ),
    "resize": lambda world, request: ResizeOperations(world.agent).resize(
        [row(world)], request, Size(2, 256, 1)
    ),
    "confirm": lambda world, request: ResizeOperations(world.agent).confirm_instances(
        [row(world)], request
    ),
    "shelve": lambda world, request: ShelvingOperations(world.agent).shelve([row(world)], request),
    "offload": lambda world, request: ShelvingOperations(world.agent).offload(
        [row(world)], request
    ),
    "unshelve": lambda world, request: ShelvingOperations(world.agent).unshelve(
        [row(world)], request
    ),
    "soft-delete": lambda world, request: DeletionOperations(world.agent).soft_delete(
        [row(world)], request
    ),
    "restore": lambda world, request: DeletionOperations(world.agent).restore(
        [row(world)], request
    ),
    "delete": lambda world, request: DeletionOperations(world.agent).delete([row(world)], request),
}

#: What comes before the operation that is looked at, the last of each line.
LINES = [
    ["stop"],
    ["stop", "start"],
    ["reboot"],
    ["rescue"],
    ["rescue", "unrescue"],
    ["resize"],
    ["resize", "confirm"],
    ["shelve"],
    ["shelve", "offload"],
    ["shelve", "unshelve"],
    ["shelve", "offload", "unshelve"],
    ["soft-delete"],
    ["soft-delete", "restore"],
    ["soft-delete", "delete"],
    ["delete"],
]


def run(world, name):
    """Carry an operation out in a run, as an operator's command does; return its results."""
    found = {}
    run = Run(f"instance_{name}", "test", "operator", False, world.clock.utcnow())
    ran = world.agent.runner.execute(
        run, lambda context: found.update(OPERATIONS[name](world, context.request_id))
    )
    assert not ran.error
    return found


def state(world):
    """Return all that an operation is to bring about, but for times and what was tried."""
    instance = world.row(NUMBER)
    files = sorted(
        str(path.relative_to(world.path))
        for folder in ("instances", "shelved")
        for path in (world.path / folder).rglob("*")
    )
    with world.engine.connect() as connection:
        extra = connection.execute(
            sa.select(models.instance_extra.c.flavor, models.instance_extra.c.deleted)
        ).all()
        migrations = connection.execute(
            sa.select(models.migrations.c.status, models.migrations.c.deleted)
        ).all()
    columns = ("vm_state", "task_state", "power_state", "host", "deleted", "cleaned", "vcpus",
               "memory_mb", "root_gb")  # fmt: skip
    return {
        **{name: getattr(instance, name) for name in columns},
        "times": [getattr(instance, n) is None for n in ("deleted_at", "terminated_at")],
        "domains": dict(world.hypervisor.states),
        "definitions": dict(world.hypervisor.definitions),
        "files": files,
        "extra": extra,
        "migrations": migrations,
    }


def prepared(path, line):
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    world = disk_world(path, [NUMBER])
    for name in line[:-1]:
        assert run(world, name) == {UUID: None}
    world.hypervisor.acts.clear()
    return world


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_killed_before_any_step_and_repeated_it_ends_in_the_same_state(tmp_path, line):
    world = prepared(tmp_path / "world", line)
    assert run(world, line[-1]) == {UUID: None}
    expected = state(world)
    assert expected["task_state"] is None
    world.close()
    for last in itertools.count():
        world = prepared(tmp_path / "world", line)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, FakeHypervisor, last)
            with contextlib.suppress(Killed):
                run(world, line[-1])
        if not steps.killed:
            break
        if state(world) != expected:
            assert run(world, line[-1]) == {UUID: None}, steps.taken
        assert state(world) == expected, steps.taken
        undefined = [act for act in world.hypervisor.acts if act[0] == "virDomainUndefineFlags"]
        assert len(undefined) <= 1, steps.taken
        world.close()
    assert last >= 3
