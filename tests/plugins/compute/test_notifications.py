# SPDX-License-Identifier: Apache-2.0
"""Notifications of operations, as Nova's legacy ones, through oslo.messaging's log driver."""

import json
import logging

import pytest
import sqlalchemy as sa

from cepheid import errors
from cepheid_plugins.compute.deletion import DeletionOperations
from cepheid_plugins.compute.notifications import Notifications
from cepheid_plugins.compute.power import PowerOperations
from cepheid_plugins.database import models
from cepheid_plugins.notifications.driver import Notification, NotificationsRefused, Notifier
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


def test_the_noop_driver_counts_as_none(make):
    world = make(settings="[oslo_messaging_notifications]\ndriver = noop\n")
    assert not Notifications(world.agent).wanted()
    assert "notifications" not in world.agent.drivers.kinds


@pytest.mark.parametrize(
    ("chosen", "formats"),
    [("unversioned", [False]), ("versioned", [True]), ("both", [False, True])],
)
def test_each_format_is_sent_where_it_is_wanted(make, caplog, chosen, formats):
    world = make(settings=f"notification_format = {chosen}\n{LOG_DRIVER}")  # as once in nova.conf
    notifications = Notifications(world.agent)
    assert [one for one in (False, True) if notifications.wanted(one)] == formats
    with caplog.at_level(logging.INFO):
        notifications.send([Notification("x", {"v": one}, versioned=one) for one in (False, True)])
    assert [one["payload"]["v"] for one in sent(caplog)] == formats


class UnreliableNotifier(Notifier):
    """One that takes something now and then."""

    full = True

    def send(self, notifications):
        if self.full:
            raise NotificationsRefused("The outbox is full.")


def test_an_operation_goes_on_when_it_cannot_be_told(make, caplog):
    caplog.set_level(logging.INFO)
    world = make()
    notifier = UnreliableNotifier()
    world.agent.drivers.use("notifications", notifier)
    operations = PowerOperations(world.agent)
    assert operations.stop(rows(world, 1), "req-1") == {UUID: None}
    assert operations.start(rows(world, 1), "req-2") == {UUID: None}
    assert world.row(1).task_state is None
    text = "What is done to instances is not told: The outbox is full."
    assert caplog.messages.count(text) == 1
    notifier.full = False
    operations.stop(rows(world, 1), "req-3")
    assert caplog.messages.count(f"Over: {text}") == 1


def test_what_is_configured_and_cannot_work_is_named_when_an_agent_begins(make):
    world = make(settings="[oslo_messaging_notifications]\ndriver = pigeon\n")
    with pytest.raises(errors.ConfigError, match="driver = pigeon: no such driver"):
        PowerOperations(world.agent)
