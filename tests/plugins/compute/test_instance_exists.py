# SPDX-License-Identifier: Apache-2.0
"""What is told of an instance that existed in a period, field by field, in both formats.

Beside what real Nova tells of the same rows: tests/functional/test_nova_usage_audit.py.
"""

import dataclasses
import datetime
import json

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute import instance_exists
from cepheid_plugins.compute.audit_periods import AuditPeriod
from cepheid_plugins.compute.instance_exists import bandwidth, exists
from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.records import AuditedTraffic, NewInstance
from cepheid_plugins.network import network_info
from tests.worlds import fake_world, uuid_of

BEGIN, END = datetime.datetime(2026, 10, 1), datetime.datetime(2026, 11, 1)
PERIOD = AuditPeriod(BEGIN, END)
MACS = ("fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03")


def vif(mac, label="private", address="10.0.0.3", **fields):
    subnets = [network_info.subnet("10.0.0.0/16", [network_info.ip(address)])]
    network = network_info.network("network-1", label, "br-int", subnets, {})
    return network_info.vif("port-1", mac, network=network, devname="tap1", **fields)


def tiny():
    new = NewInstance(uuid_of(1), "guest-1", "host1", "node1", "active", 1, 1, 128, 10)
    return flavors.of_new(new)


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {})
    yield world
    world.close()


def add(world, network="[]", flavor=None, **columns):
    """Insert an instance and what hangs on it; return it as the audit reads it."""
    values = {"project_id": "project-1", "user_id": "user-1", "launched_at": BEGIN, "vcpus": 2,
              "memory_mb": 256, "root_gb": 5, "ephemeral_gb": 0, **columns}  # fmt: skip
    world.add(1, **values)
    common = {"instance_uuid": uuid_of(1), "deleted": 0}
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_info_caches).values(network_info=network, **common)
        )
        connection.execute(sa.insert(models.instance_extra).values(flavor=flavor, **common))
    return read(world)


def read(world, with_devices=False):
    (found,) = world.database.audited_instances("host1", PERIOD, None, 10, with_devices)
    return found


def payload(instance, versioned=False, with_devices=False):
    (one,) = exists(instance, PERIOD, [versioned], "req-1", with_devices).notifications
    assert one.versioned == versioned
    assert json.loads(json.dumps(one.payload)) == one.payload
    return one.payload


def data(instance, **options):
    """Return the versioned payload's fields."""
    return payload(instance, versioned=True, **options)["nova_object.data"]


def test_the_unversioned_one_has_all_that_novas_of_pike_has(world):
    found = payload(add(world, flavor=tiny()))
    assert set(found) == {
        "tenant_id", "user_id", "instance_id", "display_name", "reservation_id", "hostname",
        "instance_type", "instance_type_id", "instance_flavor_id", "architecture", "memory_mb",
        "vcpus", "root_gb", "ephemeral_gb", "disk_gb", "host", "node", "availability_zone",
        "cell_name", "created_at", "launched_at", "terminated_at", "deleted_at", "image_ref_url",
        "os_type", "kernel_id", "ramdisk_id", "state", "state_description", "progress",
        "access_ip_v4", "access_ip_v6", "image_meta", "metadata", "audit_period_beginning",
        "audit_period_ending", "bandwidth",
    }  # fmt: skip
    assert (found["audit_period_beginning"], found["audit_period_ending"]) == (
        "2026-10-01 00:00:00", "2026-11-01 00:00:00",
    )  # fmt: skip
    # What its flavor says goes before what its row says.
    assert (found["memory_mb"], found["vcpus"], found["disk_gb"]) == (128, 1, 10)
    assert found["bandwidth"] == {}


def test_bandwidth_adds_up_by_network():
    usages = [
        AuditedTraffic(MACS[0], 10, 20),
        AuditedTraffic(MACS[1].upper(), 1, 2),
        AuditedTraffic(MACS[2], 5, 6),
    ]
    vifs = [vif(MACS[0]), vif(MACS[1]), vif(MACS[2], "public")]
    assert bandwidth(usages, vifs) == {
        "private": {"bw_in": 11, "bw_out": 22},
        "public": {"bw_in": 5, "bw_out": 6},
    }


def test_the_traffic_of_an_interface_that_is_gone_is_not_lost():
    usages = [AuditedTraffic(MACS[0], 10, 20), AuditedTraffic(MACS[1], 1, 2)]
    assert bandwidth(usages, [vif(MACS[0])]) == {
        "private": {"bw_in": 10, "bw_out": 20},
        f"net-name-not-found-{MACS[1]}": {"bw_in": 1, "bw_out": 2},
    }


def test_bandwidth_is_that_of_the_period_and_of_the_first_of_two_rows(world):
    add(world, json.dumps([vif(MACS[0])]))
    common = {"uuid": uuid_of(1), "mac": MACS[0]}
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.bw_usage_cache),
            [
                {**common, "start_period": BEGIN, "bw_in": 1, "bw_out": None},
                {**common, "start_period": BEGIN, "bw_in": 100, "bw_out": 100},
                {**common, "start_period": END, "bw_in": 7, "bw_out": 7},
            ],
        )
    assert payload(read(world))["bandwidth"] == {"private": {"bw_in": 1, "bw_out": 0}}


def test_a_deleted_instance_is_told_of_as_it_was_also_where_nova_deleted_it(world):
    add(world, json.dumps([vif(MACS[0])]), tiny(), deleted=1, deleted_at=END)
    with world.engine.begin() as connection:
        for table in (models.instance_metadata, models.instance_system_metadata):
            rows = [
                ("kept", END + datetime.timedelta(seconds=0.01)),  # Nova takes each time anew
                ("removed", END - datetime.timedelta(days=1)),
            ]
            connection.execute(
                sa.insert(table),
                [
                    {"instance_uuid": uuid_of(1), "key": f"image_{key}", "value": "x",
                     "deleted": 1, "deleted_at": deleted_at}
                    for key, deleted_at in rows
                ],
            )  # fmt: skip
        connection.execute(
            sa.insert(models.bw_usage_cache).values(
                uuid=uuid_of(1), mac=MACS[0], start_period=BEGIN, bw_in=3, bw_out=4
            )
        )
    found = payload(read(world))
    assert found["metadata"] == {"image_kept": "x"}
    assert found["image_meta"] == {"kept": "x"}
    assert found["bandwidth"] == {"private": {"bw_in": 3, "bw_out": 4}}
    assert found["instance_type"] == "adopted"


def test_the_versioned_one_is_in_novas_envelope(world):
    found = payload(add(world, json.dumps([vif(MACS[0])]), tiny()), versioned=True)
    assert (found["nova_object.name"], found["nova_object.version"]) == (
        "InstanceExistsPayload", "2.1",
    )  # fmt: skip
    fields = found["nova_object.data"]
    versions = [
        (one["nova_object.name"], one["nova_object.version"], one["nova_object.namespace"])
        for one in (fields["flavor"], fields["audit_period"], fields["ip_addresses"][0])
    ]
    assert versions == [
        ("FlavorPayload", "1.4", "nova"),
        ("AuditPeriodPayload", "1.0", "nova"),
        ("IpPayload", "1.0", "nova"),
    ]
    assert fields["audit_period"]["nova_object.data"] == {
        "audit_period_beginning": "2026-10-01T00:00:00Z",
        "audit_period_ending": "2026-11-01T00:00:00Z",
    }
    assert fields["ip_addresses"][0]["nova_object.data"] == {
        "label": "private", "mac": MACS[0], "meta": {}, "port_uuid": "port-1", "version": 4,
        "address": "10.0.0.3", "device_name": "tap1",
    }  # fmt: skip
    assert (fields["power_state"], fields["state"]) == ("running", "active")
    assert (fields["tenant_id"], fields["auto_disk_config"]) == ("project-1", "MANUAL")
    assert fields["block_devices"] is None


def test_the_versioned_one_names_volumes_where_that_is_wanted(world):
    add(world)
    common = {"instance_uuid": uuid_of(1), "deleted": 0, "boot_index": None, "tag": "data",
              "delete_on_termination": None, "device_name": "/dev/vdb"}  # fmt: skip
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping),
            [
                {**common, "volume_id": "volume-1"},
                {**common, "volume_id": None},
                {**common, "volume_id": "volume-2", "deleted": 9},
            ],
        )
    (device,) = data(read(world, with_devices=True), with_devices=True)["block_devices"]
    assert (device["nova_object.name"], device["nova_object.version"]) == (
        "BlockDevicePayload", "1.0",
    )  # fmt: skip
    assert device["nova_object.data"] == {
        "volume_id": "volume-1", "device_name": "/dev/vdb", "boot_index": None,
        "delete_on_termination": False, "tag": "data",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "pending"), (3, "paused"), (4, "shutdown"), (6, "crashed"), (7, "suspended"), (5, None),
     (None, None)],
)  # fmt: skip
def test_the_power_state_is_in_words(world, number, text):
    assert data(add(world, power_state=number))["power_state"] == text


def test_an_unreadable_flavor_is_made_up_for_by_the_row(world):
    instance = add(world, flavor="{")
    assert payload(instance)["memory_mb"] == 256
    fields = data(instance)["flavor"]["nova_object.data"]
    assert (fields["name"], fields["memory_mb"], fields["vcpus"], fields["root_gb"]) == (
        "", 256, 2, 5,
    )  # fmt: skip
    assert (fields["disabled"], fields["is_public"], fields["swap"]) == (False, True, 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"vcpus": None}, "neither its flavor nor its row says what it takes"),
        ({"deleted": 1}, "neither terminated_at nor deleted_at says when"),
        ({"flavor": tiny().replace('"root_gb": 10', '"root_gb": null')}, "its flavor cannot"),
    ],
)
def test_what_cannot_be_told_says_why(world, fields, reason):
    instance = add(world, **fields)
    with pytest.raises(ValueError, match=reason):
        exists(instance, PERIOD, [False, True], "req-1")


@pytest.mark.parametrize(
    "network",
    [
        "[{",
        pytest.param("[" * 9999, id="deep"),
        '{"address": "x"}',
        '["x"]',
        '[{"address": 7}]',
        '[{"address": "x", "network": "y"}]',
        '[{"address": "x", "network": {"label": []}}]',
        '[{"address": "x", "network": {"subnets": [1]}}]',
        '[{"address": "x", "network": {"subnets": [{"ips": [1]}]}}]',
    ],
)
def test_one_whose_networks_cannot_be_read_is_told_of_with_all_that_it_is_billed_by(world, network):
    instance = add(world, network, flavor=tiny())
    traffic = AuditedTraffic(MACS[0], 5, 7)
    instance = dataclasses.replace(instance, bandwidth=(traffic,))
    told = exists(instance, PERIOD, [False, True], "req-1")
    assert told.missing.startswith("its network_info cannot be read: ")
    legacy, versioned = (one.payload for one in told.notifications)
    assert (legacy["memory_mb"], legacy["vcpus"], legacy["disk_gb"]) == (128, 1, 10)
    assert legacy["bandwidth"] == {f"net-name-not-found-{MACS[0]}": {"bw_in": 5, "bw_out": 7}}
    fields = versioned["nova_object.data"]
    assert fields["flavor"]["nova_object.data"]["memory_mb"] == 128
    assert fields["ip_addresses"] == []


def test_one_interface_that_cannot_be_read_does_not_take_the_others_with_it(world):
    network = json.dumps([vif(MACS[0]), {"address": MACS[1], "network": 7}, vif(MACS[2])])
    told = exists(add(world, network), PERIOD, [True], "req-1")
    assert told.missing
    found = told.notifications[0].payload["nova_object.data"]["ip_addresses"]
    assert [one["nova_object.data"]["mac"] for one in found] == [MACS[0], MACS[2]]


@pytest.mark.parametrize("network", [None, "", "[]", '[{"address": "x", "network": null}]'])
def test_no_network_is_no_error(world, network):
    instance = add(world, network)
    assert payload(instance)["bandwidth"] == {}
    assert data(instance)["ip_addresses"] == []


def test_what_is_long_and_told_to_nobody_is_not_read(world):
    columns = add(world, user_data="x", key_data="y").facts.columns
    assert not {"user_data", "key_data"} & set(columns)


def test_the_two_formats_have_ids_of_their_own(world):
    instance = add(world)
    told = exists(instance, PERIOD, [False, True], "req-1").notifications
    ids = {one.message_id for one in told}
    assert len(ids) == 2
    again = exists(instance, PERIOD, [True, False], "req-2").notifications
    assert ids == {one.message_id for one in again}
    assert set(instance_exists.EVENTS.values()) == {"compute.instance.exists", "instance.exists"}
