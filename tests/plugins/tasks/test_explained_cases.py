# SPDX-License-Identifier: Apache-2.0
"""What tasks say of an instance that they count, meter or tell of, and when a verdict changes."""

import datetime

import pytest

from cepheid.explanation import Kind
from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.compute import opts
from cepheid_plugins.hypervisor.driver import BlockCounters
from cepheid_plugins.tasks.check_instance_build_time import CheckInstanceBuildTime
from cepheid_plugins.tasks.heal_instance_info_cache import HealInstanceInfoCache
from cepheid_plugins.tasks.instance_usage_audit import InstanceUsageAudit
from cepheid_plugins.tasks.poll_bandwidth_usage import PollBandwidthUsage
from cepheid_plugins.tasks.poll_unconfirmed_resizes import PollUnconfirmedResizes
from cepheid_plugins.tasks.poll_volume_usage import PollVolumeUsage
from cepheid_plugins.tasks.reclaim_queued_deletes import ReclaimQueuedDeletes
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from cepheid_plugins.tasks.sync_scheduler_instance_info import SyncSchedulerInstanceInfo
from cepheid_plugins.tasks.update_available_resource import UpdateAvailableResource
from tests.explained import ask, instance
from tests.fakes import FakeNetwork, FakeScheduler
from tests.plugins.tasks import test_heal_instance_info_cache as networks
from tests.plugins.tasks import test_instance_usage_audit as audits
from tests.plugins.tasks import test_poll_bandwidth_usage as bandwidth
from tests.plugins.tasks import test_poll_volume_usage as volumes
from tests.worlds import fake_world, move_many, uuid_of

RUNNING, SHUTDOWN = 1, 4
MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def world(tmp_path):
    world = fake_world(tmp_path, {1: RUNNING, 2: SHUTDOWN, 7: RUNNING})
    (tmp_path / "instances").mkdir()
    yield world
    world.close()


def said(world, task, number=1):
    """Return what a task says of an instance: (kind, text) of each verdict."""
    verdicts = ask(world, task, [instance(uuid_of(number))])[uuid_of(number)]
    return [(verdict.kind, verdict.text) for verdict in verdicts]


def the(world, task, number=1):
    (verdict,) = ask(world, task, [instance(uuid_of(number))])[uuid_of(number)]
    return verdict


def test_not_reclaimed_yet_and_when(world):
    task = world.agent.build(ReclaimQueuedDeletes)
    deleted_at = world.clock.utcnow() - 3 * MINUTE
    world.add(2, vm_state="soft-delete", deleted_at=deleted_at)
    assert (the(world, task, 2).kind, the(world, task, 2).rule) == (
        Kind.OFF,
        "reclaim_instance_interval = 0",
    )
    world.agent.set(task.name, reclaim_instance_interval=1800)
    verdict = the(world, task, 2)
    assert verdict.kind is Kind.LEAVES
    assert verdict.text.startswith("soft-deleted 3 min ago; ")
    assert verdict.rule == "reclaim_instance_interval = 1800"
    assert verdict.changes_at == deleted_at + 30 * MINUTE
    assert verdict.evidence == {"since": deleted_at, "age_seconds": 180}
    # At the time itself it is not more than that ago; a moment later it is.
    world.clock.sleep(27 * 60)
    assert the(world, task, 2).kind is Kind.LEAVES
    world.clock.sleep(1)
    assert the(world, task, 2).kind is Kind.ACTS


def test_a_guest_that_was_off_and_is_on_when_asked_again_is_said_to_be(world, monkeypatch):
    task = world.agent.build(SyncPowerStates)
    world.add(2, power_state=SHUTDOWN)
    look = world.hypervisor.domains

    def look_and_start():
        found = look()
        world.hypervisor.states[uuid_of(2)] = RUNNING
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_and_start)
    assert said(world, task, 2) == [
        (Kind.LEAVES, "its guest was off, and when asked once more was not: it is not stopped")
    ]


@pytest.mark.parametrize(
    ("factory", "columns"),
    [(CheckInstanceBuildTime, {"vm_state": "building", "created_at": None})],
)
def test_what_cannot_be_judged_is_skipped_with_its_reason(world, factory, columns):
    task = world.agent.build(factory)
    world.agent.set(task.name, instance_build_timeout=600)
    world.add(1, **columns)
    (skipped,) = said(world, task)
    assert skipped == (Kind.SKIPS, "its created_at is NULL, so its age is not known")


def test_what_cannot_be_read_is_not_known_and_says_why(world):
    task = world.agent.build(SyncPowerStates)
    world.add(1)
    world.hypervisor.available = False
    verdict = the(world, task)
    assert (verdict.kind, verdict.text) == (Kind.UNKNOWN, world.agent.run(task).error)
    assert verdict.text


def test_a_resize_says_when_it_is_confirmed(world):
    task = world.agent.build(PollUnconfirmedResizes)
    world.agent.set(task.name, resize_confirm_window=600)
    world.add(1)
    move_many(world, [1], seconds_ago=120, dest_compute="host1", source_compute="host2")
    verdict = the(world, task)
    assert verdict.text.startswith("its resize ended 2 min ago; ")
    assert verdict.changes_at == world.clock.utcnow() + 8 * MINUTE


def test_a_resize_whose_instance_is_in_error_is_given_up_and_heard_of_the_instance(world):
    task = world.agent.build(PollUnconfirmedResizes)
    world.agent.set(task.name, resize_confirm_window=600)
    world.add(1)
    move_many(world, [1], seconds_ago=1200, dest_compute="host1", source_compute="host2")
    world.update(1, vm_state="error")
    verdict = the(world, task)
    assert (verdict.kind, verdict.evidence["change"]) == (Kind.ACTS, "migration_status")
    world.update(1, vm_state="resized", task_state="resize_reverting")
    assert said(world, task)[0][0] is Kind.LEAVES


def test_a_confirmation_that_was_left_behind_says_what_came_after_it(world):
    task = world.agent.build(PollUnconfirmedResizes)
    world.agent.set(task.name, resize_confirm_window=600)
    world.add(1)
    move_many(world, [1], seconds_ago=7200, status="confirming")
    world.update(1, host="host1", vm_state="active")
    assert said(world, task)[0] == (
        Kind.SKIPS,
        f"nothing is confirmed by it: {uuid_of(1)} is active, idle, not resized",
    )
    move_many(world, [1], status="migrating", dest_compute="host3")
    kind, text = said(world, task)[0]
    assert kind is Kind.SKIPS
    assert text.startswith(f"nothing is confirmed by it: migration 2 of {uuid_of(1)} is newer")


def test_volumes_that_are_read_written_and_not_told(world):
    world.add_many([1, 2], project_id="p", user_id="u")
    task = volumes.make(world)
    volumes.attach(world, 1)
    volumes.attach(world, 2, volume="volume-2")
    world.hypervisor.counters[uuid_of(1)] = {"vdb": BlockCounters(1, 2, 3, 4)}
    assert said(world, task) == [(Kind.ACTS, "the counters of volume volume-1 (vdb) are written")]
    assert said(world, task, 2)[0][0] is Kind.LEAVES
    world.agent.run(task)
    verdict = the(world, task)
    assert verdict.text == "the counters of volume volume-1 (vdb) are as on record"
    assert verdict.evidence == {"reads": 1, "read_bytes": 2, "writes": 3, "write_bytes": 4}
    world.agent.set(task.name, spacing=0)
    assert the(world, task).kind is Kind.OFF
    assert said(world, PollVolumeUsage(world.agent), 7)[0][0] is Kind.OFF


def test_interfaces_that_are_read_written_and_not_told(world):
    world.add_many([1, 2])
    world.agent.drivers.use("bandwidth", LibvirtMeter(world.agent))
    task = world.agent.build(PollBandwidthUsage)
    bandwidth.count(world, 1, 10, 20)
    name = f"interface {bandwidth.MAC}"
    assert said(world, task) == [(Kind.ACTS, f"the counters of {name} are written")]
    assert said(world, task, 2)[0][0] is Kind.LEAVES
    world.agent.run(task)
    assert said(world, task) == [(Kind.LEAVES, f"the counters of {name} are as on record")]
    bandwidth.count(world, 1, 5, 20)
    assert "which began anew" in said(world, task)[0][1]


def test_a_network_is_looked_up_as_if_it_were_its_turn(world):
    world.network = FakeNetwork()
    world.agent.drivers.use("network", world.network)
    for number in range(1, 5):
        networks.add(world, number)
    world.update(4, vm_state="building")
    task = world.agent.build(HealInstanceInfoCache)
    turn, change = said(world, task, 3)
    assert turn == (
        Kind.LEAVES, "it is looked up in one of 4 runs; this is what it comes to then"
    )  # fmt: skip
    assert change[0] is Kind.ACTS
    assert networks.looked_up(world) == [3]
    assert said(world, task, 4) == [(Kind.LEAVES, "it is building, and not looked up meanwhile")]
    world.agent.set(task.name, instances_per_run=9)
    world.agent.run(task)
    assert said(world, task, 3) == [(Kind.LEAVES, "its network is as it is cached")]
    # The turns of the task itself go on as they were.
    assert task._choose(9) != []


def test_schedulers_are_told_or_not(world):
    scheduler = FakeScheduler()
    world.agent.drivers.use("scheduler", scheduler)
    task = world.agent.build(SyncSchedulerInstanceInfo)
    world.add(1)
    assert said(world, task) == [(Kind.COUNTS, "schedulers are told that this host has it")]
    assert scheduler.messages == []
    world.agent.set(task.name, track_instance_changes=False)
    assert the(world, task).kind is Kind.OFF


def test_what_is_counted_of_the_host(world):
    world.agent.conf.register_opts(opts.OPTIONS, group="compute")
    world.agent.set("compute", instances_path=str(world.path / "instances"))
    task = world.agent.build(UpdateAvailableResource)
    sizes = {"memory_mb": 128, "vcpus": 2, "root_gb": 1, "ephemeral_gb": 0}
    world.add(1, **sizes)
    world.add(2, vm_state="shelved_offloaded", **sizes)
    world.add(3)
    ((kind, text),) = said(world, task)
    assert (kind, text) == (
        Kind.COUNTS, "it is counted: 2 vCPUs, 128 MiB of memory, 1 GiB of disk"
    )  # fmt: skip
    assert "nothing is counted for it" in said(world, task, 2)[0][1]
    assert said(world, task, 3)[0][0] is Kind.SKIPS
    assert said(world, task, 7) == [
        (Kind.WARNS, "its domain is in no row, so nothing is counted for it")
    ]


def test_in_which_audits_an_instance_is_told_of(tmp_path):
    world = audits.make_world(tmp_path)
    task = world.agent.build(InstanceUsageAudit)
    # Its neighbours differ in the last digit of the uuid only.
    audits.add(world, *range(20))
    world.add(30, launched_at=audits.at("2026-11-20"))
    assert said(world, task, 7) == [
        (Kind.COUNTS, "it is told of in 2026-10-01 00:00 to 2026-11-01 00:00 UTC")
    ]
    assert said(world, task, 30)[0][0] is Kind.UNCONCERNED
    world.agent.run(task)
    ((kind, text),) = said(world, task, 7)
    assert kind is Kind.OFF
    assert "the period that ended at 2026-11-01 00:00:00 has been audited" in text
    assert audits.told(world) == sorted(range(20))
    world.close()
