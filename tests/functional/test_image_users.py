# SPDX-License-Identifier: Apache-2.0
"""What instances need of the image cache, asked of three databases."""

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.records import NewInstance
from tests.worlds import uuid_of

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]


def insert(engine, table, rows):
    with engine.begin() as connection:
        connection.execute(sa.insert(table), rows)


def fill(engine, numbers):
    new = NewInstance("", "", "host1", "node1", "active", 1, 1, 128, 0)
    hosts = ("host1", "host2", "host3")
    insert(engine, models.instances, [
        {"uuid": uuid_of(n), "host": hosts[n % 3], "deleted": 0, "image_ref": f"image-{n}",
         "kernel_id": "", "vm_state": "active"}
        for n in numbers
    ])  # fmt: skip
    insert(engine, models.instance_extra, [
        {"instance_uuid": uuid_of(n), "flavor": flavors.of_new(new), "deleted": 0} for n in numbers
    ])  # fmt: skip
    insert(engine, models.block_device_mapping, [
        {"instance_uuid": uuid_of(n), "source_type": "blank", "destination_type": "local",
         "guest_format": guest_format, "volume_size": size, "deleted": 0}
        for n in numbers for guest_format, size in (("swap", 64), ("ext4", 5), (None, 6))
    ])  # fmt: skip


def test_those_of_the_hosts_and_those_on_their_way_in_four_statements(database, engine):
    fill(engine, range(9))
    insert(engine, models.migrations, [
        {"instance_uuid": uuid_of(2), "source_compute": "host3", "dest_compute": "host1",
         "status": "migrating", "deleted": 0},
        {"instance_uuid": uuid_of(5), "source_compute": "host3", "dest_compute": "host1",
         "status": "completed", "deleted": 0},
        {"instance_uuid": uuid_of(8), "source_compute": "host1", "dest_compute": "host3",
         "status": None, "deleted": 0},
    ])  # fmt: skip
    database.statements.clear()
    users = {user.uuid: user for user in database.image_users(["host1", "host2"])}
    assert database.statements["SELECT"] == 4
    assert set(users) == {uuid_of(n) for n in (0, 1, 2, 3, 4, 6, 7, 8)}
    user = users[uuid_of(2)]
    assert (user.images, user.swap_mb, user.ephemeral_gb, user.sizes_known) == (
        {"image-2"}, {64}, {5, 6}, True
    )  # fmt: skip


def test_several_rows_of_extra_are_all_read(database, engine):
    fill(engine, [0])
    insert(engine, models.instance_extra,
           [{"instance_uuid": uuid_of(0), "flavor": "{", "deleted": 0}])  # fmt: skip
    (user,) = database.image_users(["host1"])
    assert not user.sizes_known
    assert user.swap_mb == {64}


def test_a_thousand_instances_take_as_many_statements_as_ten(database, engine):
    fill(engine, range(1000))
    database.statements.clear()
    assert len(database.image_users(["host1", "host2", "host3"])) == 1000
    assert database.statements["SELECT"] == 4
