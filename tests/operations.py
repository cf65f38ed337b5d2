# SPDX-License-Identifier: Apache-2.0
"""All operations on instances by name, on one instance of a world, as an operator's commands."""

from cepheid.run import Run
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.compute.rescue import RescueOperations
from cepheid_plugins.compute.resizing import ResizeOperations, Size
from cepheid_plugins.compute.shelving import ShelvingOperations
from tests.worlds import uuid_of

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


def run(world, name):
    """Carry an operation out in a run, as an operator's command does; return its results."""
    found = {}
    run = Run(f"instance_{name}", "test", "operator", False, world.clock.utcnow())
    ran = world.agent.runner.execute(
        run, lambda context: found.update(OPERATIONS[name](world, context.request_id))
    )
    assert not ran.error
    return found
