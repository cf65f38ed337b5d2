# SPDX-License-Identifier: Apache-2.0
"""Which instance an operator means, and that nobody else's is taken for it."""

import pytest

from cepheid import errors
from cepheid_plugins.compute.cli import find_instance
from tests.worlds import fake_world, uuid_of

CUSTOMER = "db1e4c3a-1111-4222-8333-444455556666"


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {})
    world.add(1, display_name="customer")
    world.update(1, uuid=CUSTOMER)
    yield world
    world.close()


def find(world, name, whole=False):
    return find_instance(world.agent, name, whole=whole).display_name


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", [CUSTOMER, "customer"])
def test_an_instance_is_found_by_its_whole_uuid_and_by_its_name(world, name, whole):
    assert find(world, name, whole) == "customer"


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_an_empty_name_is_nobodys(world, name, whole):
    with pytest.raises(errors.CepheidError, match="empty; maybe a variable"):
        find(world, name, whole)


@pytest.mark.parametrize("name", ["d", "db1", "db1e4c3"])
def test_less_than_eight_characters_are_no_beginning_of_a_uuid(world, name):
    with pytest.raises(errors.CepheidError, match="There is no instance"):
        find(world, name)


@pytest.mark.parametrize("name", ["db1e4c3a", "db1e4c3a-11", CUSTOMER[:-1]])
def test_the_beginning_of_a_uuid_will_do_only_where_nothing_is_lost(world, name):
    assert find(world, name) == "customer"
    with pytest.raises(errors.CepheidError, match=f"beginning of {CUSTOMER}") as caught:
        find(world, name, whole=True)
    assert "\n" not in str(caught.value)


def test_a_uuid_comes_before_a_name_and_a_name_before_the_beginning_of_a_uuid(world):
    world.add(2, display_name="db1e4c3a")
    world.add(3, display_name=CUSTOMER)
    assert find(world, "db1e4c3a") == "db1e4c3a"
    assert find(world, "db1e4c3a", whole=True) == "db1e4c3a"
    assert find(world, CUSTOMER) == "customer"


def test_a_name_that_several_have_is_nobodys(world):
    world.add(2, display_name="customer")
    with pytest.raises(errors.CepheidError, match="may be any of 2 instances") as caught:
        find(world, "customer")
    assert uuid_of(2) in str(caught.value)


def test_a_name_in_other_letters_is_another(world):
    with pytest.raises(errors.CepheidError, match="There is no instance"):
        find(world, "Customer", whole=True)


def test_a_deleted_instance_is_not_found(world):
    world.add(2, display_name="gone", deleted=2)
    with pytest.raises(errors.CepheidError, match="There is no instance"):
        find(world, "gone")
