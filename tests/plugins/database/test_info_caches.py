# SPDX-License-Identifier: Apache-2.0
"""What is cached of instances' networks, with the order of their interfaces in Nova's database."""

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import models
from tests.worlds import fake_world, uuid_of


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {})
    for number in (1, 2, 3):
        world.add(number)
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_info_caches),
            [
                {"instance_uuid": uuid_of(1), "network_info": "[1]", "deleted": 0},
                {"instance_uuid": uuid_of(2), "network_info": None, "deleted": 0},
                {"instance_uuid": uuid_of(3), "network_info": "[3]", "deleted": 3},
            ],
        )
    yield world
    world.close()


def caches(world, *numbers):
    found = world.database.info_caches([uuid_of(number) for number in numbers])
    return {one.uuid: one for one in found}


def test_an_instance_is_told_with_its_live_cache(world):
    world.update(2, host="host2", task_state="deleting")
    assert not world.database.is_novas()
    world.database.statements.clear()
    found = caches(world, 1, 2, 3, 99)
    assert [found[uuid_of(number)].network_info for number in (1, 2, 3)] == ["[1]", None, None]
    assert [found[uuid_of(number)].cache_id is None for number in (1, 2, 3)] == [False, False, True]
    assert (found[uuid_of(2)].host, found[uuid_of(2)].task_state) == ("host2", "deleting")
    assert len(found) == 3
    assert world.statements() == 1


def test_the_order_of_interfaces_is_that_of_each_instance_in_novas_database(world, monkeypatch):
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE virtual_interfaces "
            "(id INTEGER PRIMARY KEY, uuid TEXT, instance_uuid TEXT, deleted INTEGER)"
        )
        for number, port, deleted in ((2, "b", 0), (1, "a", 0), (2, "a", 0), (1, "gone", 5)):
            connection.execute(
                sa.insert(models.virtual_interfaces).values(
                    instance_uuid=uuid_of(number), uuid=f"{port}-{number}", deleted=deleted
                )
            )
    assert {one.order for one in caches(world, 1, 2).values()} == {()}
    monkeypatch.setattr(world.database, "is_novas", lambda: True)
    found = caches(world, 1, 2, 3)
    assert [found[uuid_of(number)].order for number in (1, 2, 3)] == [("a-1",), ("b-2", "a-2"), ()]
