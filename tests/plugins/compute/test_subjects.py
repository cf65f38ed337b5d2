# SPDX-License-Identifier: Apache-2.0
"""What an operator means: instances by every name they have, files by their paths."""

import datetime
import os

import pytest

from cepheid import errors
from cepheid_plugins.compute import opts, subjects
from tests.worlds import fake_world, uuid_of

RUNNING, SHUTDOWN = 1, 4


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {1: RUNNING, 2: SHUTDOWN, 7: RUNNING})
    world.agent.conf.register_opts(opts.OPTIONS, group="compute")
    (tmp_path / "instances").mkdir()
    world.add(1)
    world.add(2)
    yield world
    world.close()


def find(world, name):
    return subjects.find(world.agent, name)


def delete(world, number):
    deleted = world.row(number).id
    world.update(number, deleted=deleted, deleted_at=world.clock.utcnow(), vm_state="deleted")


@pytest.mark.parametrize("name", [uuid_of(1), "guest-1"])
def test_an_instance_is_found_by_its_uuid_and_by_its_name(world, name):
    subject = find(world, name)
    assert (subject.kind, subject.name, subject.targets) == ("instance", "guest-1", {uuid_of(1)})
    assert subject.facts["vm_state"] == "active"
    assert (subject.facts["domain"], subject.facts["guest"]) == ("guest-1", "running")


def test_it_is_found_by_the_beginning_of_its_uuid_if_that_is_its_alone(world):
    world.update(1, uuid="aa" + uuid_of(1)[2:])
    assert find(world, "aa000000").targets == {"aa" + uuid_of(1)[2:]}


@pytest.mark.parametrize("name", ["aa00000", "ce00000"])
def test_less_than_eight_characters_are_no_beginning_of_a_uuid(world, name):
    world.update(1, uuid="aa" + uuid_of(1)[2:])
    with pytest.raises(errors.CepheidError, match="There is no instance"):
        find(world, name)


def test_it_is_found_by_the_name_of_its_domain(world):
    world.hypervisor.names[uuid_of(1)] = "instance-00000001"
    assert find(world, "instance-00000001").name == "guest-1"


def test_one_on_another_host_is_found_too(world):
    world.add(3, host="host2")
    facts = find(world, "guest-3").facts
    assert (facts["is_of_this_host"], facts["domain"]) == (False, "none on this host")


def test_several_candidates_are_named_and_none_is_taken(world):
    with pytest.raises(errors.CepheidError) as caught:
        find(world, "ce000000")
    text = str(caught.value)
    assert text.startswith("'ce000000' may be any of 3: ")
    assert f"{uuid_of(2)} (guest-2, active, on host1; domain guest-2)" in text
    assert f"{uuid_of(7)} (in no row; domain guest-7)" in text
    assert text.endswith("Give the uuid.")


def test_a_name_that_a_row_and_a_strange_domain_have_is_ambiguous(world):
    world.hypervisor.names[uuid_of(7)] = "guest-1"
    with pytest.raises(errors.CepheidError, match="may be any of 2"):
        find(world, "guest-1")


def test_a_deleted_row_is_found_where_no_live_one_has_the_name(world):
    delete(world, 2)
    del world.hypervisor.states[uuid_of(2)]
    assert find(world, "guest-2").facts["inventory"] == "deleted"
    world.update(1, display_name="guest-2")
    assert find(world, "guest-2").targets == {uuid_of(1)}


def test_a_deleted_row_is_found_by_the_domain_that_it_still_has(world):
    delete(world, 2)
    assert find(world, "guest-2").facts["inventory"] == "deleted"


def test_a_domain_without_a_row_is_not_in_the_inventory(world):
    facts = find(world, "guest-7").facts
    assert facts["inventory"] == "not in the inventory"
    assert facts["guest"] == "running"


def test_a_whole_uuid_may_be_asked_about_though_nothing_is_left_of_it(world):
    assert find(world, uuid_of(9)).facts["inventory"] == "not in the inventory"


def test_a_hypervisor_that_does_not_answer_leaves_the_row(world):
    world.hypervisor.available = False
    assert find(world, "guest-1").facts["domain"].startswith("not known: ")
    with pytest.raises(errors.CepheidError, match="not known whether there is such a domain"):
        find(world, "nobody")


@pytest.mark.parametrize("name", ["nobody", "", "%", "guest-_"])
def test_what_is_nothing_is_one_line_with_the_remedy(world, name):
    with pytest.raises(errors.CepheidError) as caught:
        find(world, name)
    assert "\n" not in str(caught.value)


def test_a_file_of_an_instance_is_known_by_that(world):
    directory = world.path / "instances" / f"{uuid_of(1)}_resize"
    directory.mkdir()
    disk = directory / "disk"
    disk.write_bytes(b"x" * 7)
    modified = datetime.datetime(2026, 11, 1, 12, 30)
    at = modified.replace(tzinfo=datetime.UTC).timestamp()
    os.utime(disk, (at, at))
    subject = find(world, str(disk))
    assert subject.targets == {str(disk), uuid_of(1)}
    assert subject.facts == {
        "path": str(disk),
        "type": "file",
        "size_bytes": 7,
        "modified_at": modified,
        "beneath": "[compute] instances_path",
        "instance": uuid_of(1),
    }
    assert find(world, str(directory)).facts["type"] == "directory"


def test_a_file_of_the_image_cache_is_known_by_its_name_there(world):
    base = world.path / "instances" / "_base"
    assert find(world, f"{base}/swap_1").targets == {f"{base}/swap_1", "swap_1"}
    aside = f"{base}/.cepheid-removed/swap_1@1700000000"
    assert find(world, aside).targets == {aside, "swap_1@1700000000"}
    assert find(world, f"{base}/deeper/swap_1").targets == {f"{base}/deeper/swap_1"}


def test_a_relative_path_is_one_too(world, monkeypatch):
    monkeypatch.chdir(world.path / "instances")
    assert find(world, "./x").facts["path"] == str(world.path / "instances" / "x")
    (world.path / "instances" / "plain").touch()
    assert find(world, "plain").kind == "file"


def test_links_above_a_path_are_followed_and_it_itself_is_not(world):
    (world.path / "link").symlink_to(world.path / "instances")
    outside = world.path / "outside"
    outside.mkdir()
    (world.path / "instances" / uuid_of(1)).symlink_to(outside)
    subject = find(world, f"{world.path}/link/{uuid_of(1)}")
    assert subject.facts["type"] == f"symbolic link to {outside}, which is not followed"
    assert subject.facts["instance"] == uuid_of(1)
    # What is reached through it lies elsewhere.
    beyond = find(world, f"{world.path}/link/{uuid_of(1)}/disk")
    assert beyond.targets == {str(outside / "disk")}
    assert beyond.facts["beneath"].endswith("no task looks there")


def test_instances_path_may_be_a_link_itself(world):
    (world.path / "instances").rename(world.path / "there")
    (world.path / "instances").symlink_to(world.path / "there")
    assert find(world, f"{world.path}/instances/{uuid_of(1)}").targets >= {uuid_of(1)}
    assert find(world, f"{world.path}/there/{uuid_of(1)}").targets >= {uuid_of(1)}


@pytest.mark.parametrize("end", ["", "/"])
def test_instances_path_itself_is_not_said_to_be_elsewhere(world, end):
    subject = find(world, f"{world.path}/instances{end}")
    assert subject.facts["beneath"].startswith("it is [compute] instances_path itself")


@pytest.mark.parametrize("name", ["/", "/etc/passwd", "/no/such", "//", "/etc/../etc"])
def test_whatever_is_not_ours_is_said_to_be_so(world, name):
    assert find(world, name).facts["beneath"].endswith("no task looks there")
