# SPDX-License-Identifier: Apache-2.0
"""Every operation, killed before each of its steps and asked for again, ends as if it had not been.

On real guests, with SIGKILL: tests/functional/test_operations.py.
"""

import contextlib
import itertools
import shutil

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import models
from tests.fakes import FakeHypervisor
from tests.killing import Killed, Steps
from tests.operations import NUMBER, UUID, run
from tests.worlds import disk_world

# It starts qemu-img hundreds of times.
pytestmark = pytest.mark.process

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
    ["shelve", "delete"],
    ["delete"],
]


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
