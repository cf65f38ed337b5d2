# SPDX-License-Identifier: Apache-2.0
"""Adopting: which domains are taken in, which are known, and which look like left-overs."""

import os
import stat

import pytest

from cepheid_plugins.compute import opts
from cepheid_plugins.compute.adopt import adopt
from tests.worlds import fake_world, uuid_of

NEW, KNOWN, DELETED, ELSEWHERE = [uuid_of(number) for number in (1, 2, 3, 4)]
RUNNING = 1


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, dict.fromkeys((1, 2, 3, 4), RUNNING))
    world.agent.conf.register_opts(opts.OPTIONS, group="compute")
    world.add(2)
    world.add(3, vm_state="deleted", deleted=3, deleted_at=world.clock.utcnow())
    world.add(4, host="host2")
    yield world
    world.close()


def left_alone(world):
    return [(row.uuid, row.host, row.vm_state, row.deleted) for row in map(world.row, (2, 3, 4))]


@pytest.mark.parametrize("dry_run", [False, True])
def test_only_a_domain_that_no_row_knows_is_adopted(world, dry_run):
    before = left_alone(world)
    run, new, deleted = adopt(world.agent, dry_run)
    assert [change.target for change in run.changes] == list(new) == [NEW]
    assert [(row.uuid, row.power_state) for row in deleted.values()] == [(DELETED, RUNNING)]
    assert run.counters["known"] == 2
    assert left_alone(world) == before


def test_a_domain_whose_instance_is_deleted_is_named_with_what_becomes_of_it(world, caplog):
    run, _, _ = adopt(world.agent, dry_run=False)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    (warning,) = [text for text in caplog.messages if DELETED in text]
    assert f"was deleted at {world.clock.utcnow()}" in warning
    assert "running_deleted_instance_action is reap" in warning
    assert "define it under another uuid" in warning


def test_one_that_is_only_soft_deleted_is_known(world, caplog):
    world.update(3, vm_state="soft-delete", deleted=0)
    run, _, deleted = adopt(world.agent, dry_run=False)
    assert (run.outcome, run.counters["known"], deleted) == ("ok", 3, {})
    assert not [text for text in caplog.messages if DELETED in text]


def test_one_that_is_on_another_host_by_its_row_is_named_and_known(world, caplog):
    adopt(world.agent, dry_run=False)
    assert [text for text in caplog.messages if f"({ELSEWHERE}) is here" in text]


def test_qemu_passes_through_the_instances_path_and_nobody_lists_it_whatever_the_umask(world):
    previous = os.umask(0o077)
    try:
        adopt(world.agent, dry_run=False)
    finally:
        os.umask(previous)
    path = world.agent.conf.compute.instances_path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o711
