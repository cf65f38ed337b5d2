# SPDX-License-Identifier: Apache-2.0
"""Notifications of operations, as Nova's legacy ones, through oslo.messaging's log driver."""

import json
import logging

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.database import models
from tests.worlds import disk_world, uuid_of

UUID = uuid_of(1)
LOG_DRIVER = "[oslo_messaging_notifications]\ndriver = log\n"


@pytest.fixture
def make(tmp_path):
    made = []

    def make(settings=LOG_DRIVER):
        made.append(disk_world(tmp_path, [1, 2], settings=settings))
        return made[-1]

    yield make
    for world in made:
        world.close()


def rows(world, *numbers):
    return world.database.instances_by_uuid([uuid_of(number) for number in numbers])


def sent(caplog):
    """Return the notifications that oslo.messaging has logged."""
    prefix = "oslo.messaging.notification."
    return [json.loads(r.getMessage()) for r in caplog.records if r.name.startswith(prefix)]


def test_an_operation_tells_when_it_begins_and_when_it_has_succeeded(make, caplog):
    world = make()
    with world.engine.begin() as connection:
        for table, key in (
            (models.instance_metadata, "color"),
            (models.instance_system_metadata, "image_os_distro"),
            (models.instance_system_metadata, "owner"),
        ):
            connection.execute(
                sa.insert(table).values(instance_uuid=UUID, key=key, value="blue", deleted=0)
            )
    world.update(1, project_id="project-1", user_id="user-1")
    with caplog.at_level(logging.INFO):
        PowerOperations(world.agent).stop(rows(world, 1), "req-1")
    start, end = sent(caplog)
    assert start["event_type"] == "compute.instance.power_off.start"
    assert end["event_type"] == "compute.instance.power_off.end"
    assert start["publisher_id"] == "compute.host1"
    before, after = start["payload"], end["payload"]
    assert (before["state"], before["state_description"]) == ("active", "powering-off")
    assert (after["state"], after["state_description"]) == ("stopped", "")
    assert (after["instance_id"], after["tenant_id"], after["user_id"]) == (
        UUID,
        "project-1",
        "user-1",
    )
    assert (after["instance_type"], after["memory_mb"], after["vcpus"]) == ("adopted", 128, 1)
    assert after["metadata"] == {"color": "blue"}
    assert after["image_meta"] == {"os_distro": "blue"}
    assert after["launched_at"] == "2026-11-23T11:00:00.000000"


def test_one_that_fails_has_no_end(make, caplog):
    world = make()
    world.hypervisor.stubborn.add(UUID)
    with caplog.at_level(logging.INFO):
        DeletionOperations(world.agent).delete(rows(world, 1, 2), "req-1")
    assert [(n["event_type"], n["payload"]["instance_id"]) for n in sent(caplog)] == [
        ("compute.instance.delete.start", UUID),
        ("compute.instance.delete.start", uuid_of(2)),
        ("compute.instance.shutdown.start", UUID),
        ("compute.instance.shutdown.start", uuid_of(2)),
        ("compute.instance.shutdown.end", uuid_of(2)),
        ("compute.instance.delete.end", uuid_of(2)),
    ]
    # What was deleted is told of as it was.
    deleted = sent(caplog)[-1]["payload"]
    assert (deleted["state"], deleted["instance_type"]) == ("deleted", "adopted")
    assert deleted["deleted_at"]
    assert deleted["terminated_at"]


def test_without_a_driver_nothing_is_read_or_sent(make, caplog):
    world = make(settings="")
    found = rows(world, 1)
    world.database.statements.clear()
    PowerOperations(world.agent).stop(found, "req-1")
    silent = world.statements()
    assert sent(caplog) == []
    world.database.statements.clear()
    PowerOperations(world.agent).start(rows(world, 1), "req-2")
    assert world.statements() <= silent
