# SPDX-License-Identifier: Apache-2.0
"""A restore and a reclaim of the same instance, in two processes, one hundred times."""

import datetime
import multiprocessing
import time

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.database import models
from cepheid_plugins.tasks.reclaim_queued_deletes import ReclaimQueuedDeletes
from tests.functional import servers
from tests.worlds import World, fake_world, uuid_of

pytestmark = pytest.mark.functional

SHUTDOWN = 4
ROUNDS = 100
#: Seconds that the agent is given in steps, from none to twenty of them.
HEAD_START_SECONDS = 0.001
#: Seconds that a process waits for the other at most.
PATIENCE_SECONDS = 60


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield sa.make_url(f"sqlite:///{tmp_path}/inventory.sqlite")
        return
    with getattr(servers, request.param)() as server:
        yield servers.new_database(server, "cepheid_restores")


def settings(tmp_path, url):
    connection = url.render_as_string(hide_password=False)
    instances = f"[compute]\ninstances_path = {tmp_path}/instances\n"
    return f"[database]\nconnection = {connection}\n{instances}"


def open_world(tmp_path, name, url) -> World:
    """Open the inventory as one of the two processes; the disks are the same for both."""
    (tmp_path / name).mkdir()
    states = dict.fromkeys(range(ROUNDS), SHUTDOWN)
    return fake_world(tmp_path / name, states, settings=settings(tmp_path, url))


def reclaim(tmp_path, url, barrier, results):
    """Let the agent make a pass in each round."""
    world = open_world(tmp_path, "agent", url)
    task = world.agent.build(ReclaimQueuedDeletes)
    world.agent.set(task.name, reclaim_instance_interval=3600)
    deleted = set()
    for _ in range(ROUNDS):
        barrier.wait(PATIENCE_SECONDS)
        run = world.agent.run(task)
        deleted |= {change.target for change in run.changes if change.outcome == "done"}
        barrier.wait(PATIENCE_SECONDS)
    results.put(("deleted", deleted))
    world.close()


def restore(tmp_path, url, barrier, results):
    """Let an operator restore one instance in each round."""
    world = open_world(tmp_path, "operator", url)
    world.agent.build(ReclaimQueuedDeletes)
    operations = DeletionOperations(world.agent)
    restored = set()
    long_ago = world.clock.utcnow() - datetime.timedelta(hours=2)
    for number in range(ROUNDS):
        world.update(number, vm_state="soft-delete", power_state=SHUTDOWN, deleted_at=long_ago)
        rows = world.database.instances_by_uuid([uuid_of(number)])
        barrier.wait(PATIENCE_SECONDS)
        # A pass has more to do before its claim; so now the one is earlier, now the other.
        time.sleep((number % 20) * HEAD_START_SECONDS)
        if operations.restore(rows, f"req-{number}") == {uuid_of(number): None}:
            restored.add(uuid_of(number))
        barrier.wait(PATIENCE_SECONDS)
    results.put(("restored", restored))
    world.close()


def test_exactly_one_of_them_wins_each_time_and_no_disk_of_a_restored_one_is_gone(tmp_path, url):
    world = open_world(tmp_path, "maker", url)
    world.add_many(range(ROUNDS))
    for number in range(ROUNDS):
        (tmp_path / "instances" / uuid_of(number)).mkdir(parents=True)
        (tmp_path / "instances" / uuid_of(number) / "disk").touch()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    rivals = [
        context.Process(target=rival, args=(tmp_path, url, barrier, results))
        for rival in (reclaim, restore)
    ]
    for rival in rivals:
        rival.start()
    outcome = dict(results.get(timeout=3 * PATIENCE_SECONDS) for _ in rivals)
    for rival in rivals:
        rival.join(PATIENCE_SECONDS)
    assert outcome["deleted"]
    assert outcome["restored"]
    assert not outcome["deleted"] & outcome["restored"]
    assert len(outcome["deleted"] | outcome["restored"]) == ROUNDS
    rows = world.rows(models.instances)
    assert {row.uuid for row in rows if row.deleted} == outcome["deleted"]
    assert {row.uuid for row in rows if row.vm_state == "active"} == outcome["restored"]
    assert {row.task_state for row in rows} == {None}
    left = {path.name for path in (tmp_path / "instances").iterdir()}
    assert left == outcome["restored"]
    world.close()
