# SPDX-License-Identifier: Apache-2.0
"""Released Ceilometer makes samples of what we send, through a real RabbitMQ.

A real program sends it; Ceilometer's own agent consumes it, by its own definitions.
"""

import datetime
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute.audit_periods import last_completed
from cepheid_plugins.compute.instance_exists import message_id
from cepheid_plugins.database import models
from tests.functional.ceilometer import Ceilometer
from tests.functional.notifying_host import INSTANCE, TASK, NotifyingHost, settings
from tests.functional.rabbitmq import RabbitMQ
from tests.worlds import uuid_of

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

OURS = Path(__file__).parents[2] / "etc" / "cepheid" / "ceilometer-volume-usage.yaml"

#: What Ceilometer knows of an instance from each of its notifications: name, unit, volume.
OF_INSTANCE = {
    ("memory", "MiB", 512),
    ("vcpus", "vcpu", 2),
    ("disk.root.size", "GiB", 10),
    ("disk.ephemeral.size", "GiB", 3),
}
OPERATIONS = [
    f"compute.instance.{verb}.{when}"
    for verb in ("power_off", "power_on")
    for when in ("start", "end")
]


@pytest.fixture(scope="module")
def broker():
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture
def host(tmp_path, broker):
    (tmp_path / "host").mkdir()
    return NotifyingHost(tmp_path / "host", settings(broker, more="notification_format = both\n"))


@pytest.fixture
def ceilometer(tmp_path, broker):
    path = tmp_path / "ceilometer"
    path.mkdir()
    with Ceilometer(path, broker.url) as ceilometer:
        yield ceilometer


@pytest.fixture
def taught_ceilometer(tmp_path, broker):
    """One that was given our definitions besides."""
    path = tmp_path / "ceilometer"
    (path / "meters.d").mkdir(parents=True)
    shutil.copy(OURS, path / "meters.d")
    with Ceilometer(path, broker.url, path / "meters.d") as ceilometer:
        yield ceilometer


def add_bandwidth(host, period):
    values = {"uuid": uuid_of(1), "mac": "fa:16:3e:00:00:01", "bw_in": 1000, "bw_out": 2000}
    with host.inventory.begin() as connection:
        connection.execute(
            sa.insert(models.bw_usage_cache).values(start_period=period.begin, deleted=0, **values)
        )


def of(samples, event):
    """Return the samples that were made of what an event was made of."""
    at = datetime.datetime.fromisoformat(event["generated"])
    return [
        one
        for one in samples
        if datetime.datetime.fromisoformat(one["timestamp"]).replace(tzinfo=None) == at
    ]


def traits(event):
    return {one["name"]: one["value"] for one in event["traits"]}


def test_its_own_definitions_make_samples_of_instances(host, ceilometer):
    host.run("instance", "stop", "web")
    host.run("instance", "start", "web")
    # Of the month that is over now, which may not be the one when this was imported.
    period = last_completed("month", datetime.datetime.now(datetime.UTC).replace(tzinfo=None))
    add_bandwidth(host, period)
    for _ in range(2):  # the second time there is nothing left to tell
        host.run("task", "run", "instance_usage_audit")
    host.run("task", "run", TASK)
    events = ceilometer.events(6)
    samples = ceilometer.samples(5 * len(OF_INSTANCE))

    assert [one["event_type"] for one in events] == [
        *OPERATIONS,
        "compute.instance.exists",
        "volume.usage",
    ]
    for event in events[:5]:
        found = of(samples, event)
        assert {(one["name"], one["unit"], one["volume"]) for one in found} == OF_INSTANCE
        assert len(found) == len(OF_INSTANCE)
        for one in found:
            assert (one["resource_id"], one["project_id"], one["user_id"], one["type"]) == (
                uuid_of(1),
                "project-1",
                "user-1",
                "gauge",
            )
            assert one["resource_metadata"]["display_name"] == "web"
            launched_at = INSTANCE["launched_at"].strftime("%Y-%m-%dT%H:%M:%S.%f")
            assert one["resource_metadata"]["launched_at"] == launched_at
    # It knows no meter of volume.usage.
    ceilometer.stop()
    assert ceilometer.samples(0) == samples

    exists = events[4]
    event = "compute.instance.exists"
    assert exists["message_id"] == message_id(event, uuid_of(1), period)
    assert traits(exists) == {
        **traits(exists),
        "resource_id": uuid_of(1),
        "host": "host1",
        "service": "compute",
        "state": "active",
        "memory_mb": 512,
        "disk_gb": 13,
        "audit_period_beginning": str(period.begin),
        "audit_period_ending": str(period.end),
    }
    assert [traits(one)["state"] for one in events[:4]] == [
        "active",
        "stopped",
        "stopped",
        "active",
    ]


def test_with_our_definitions_it_makes_samples_of_volumes(host, taught_ceilometer):
    host.run("task", "run", TASK)
    samples = taught_ceilometer.samples(4)
    with host.inventory.connect() as connection:
        (row,) = connection.execute(sa.select(models.volume_usage_cache))
    assert {one["name"]: (one["unit"], one["volume"]) for one in samples} == {
        "volume.read.requests": ("request", row.curr_reads),
        "volume.read.bytes": ("B", row.curr_read_bytes),
        "volume.write.requests": ("request", row.curr_writes),
        "volume.write.bytes": ("B", row.curr_write_bytes),
    }
    assert row.curr_read_bytes
    for one in samples:
        assert (one["resource_id"], one["project_id"], one["type"]) == (
            "volume-1",
            "project-1",
            "cumulative",
        )
        assert one["resource_metadata"]["instance_id"] == uuid_of(1)
