# SPDX-License-Identifier: Apache-2.0
"""poll_volume_usage: the cases of the behaviour reference, and its arithmetic."""

import datetime
import json
import logging

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.driver import BlockCounters
from cepheid_plugins.notifications.driver import NotificationsRefused, Notifier
from cepheid_plugins.tasks.poll_volume_usage import PollVolumeUsage
from tests.worlds import fake_world, uuid_of

RUNNING, SHUTDOWN = 1, 4
LOG_DRIVER = "[oslo_messaging_notifications]\ndriver = log\n"


def make_world(path, settings="", count=3):
    world = fake_world(path, dict.fromkeys(range(1, count + 1), RUNNING), settings=settings)
    world.add_many(range(1, count + 1), project_id="project-1", user_id="user-1")
    return world


@pytest.fixture
def world(tmp_path):
    world = make_world(tmp_path)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return make(world)


def make(world, spacing=60):
    task = world.agent.build(PollVolumeUsage)
    world.agent.set(task.name, spacing=spacing)
    return task


def attach(world, number, volume="volume-1", device="/dev/vdb", **columns):
    values = {"destination_type": "volume", "deleted": 0, **columns}
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping).values(
                instance_uuid=uuid_of(number), volume_id=volume, device_name=device, **values
            )
        )


def detach(world, number):
    with world.engine.begin() as connection:
        connection.execute(
            sa.update(models.block_device_mapping)
            .where(
                models.block_device_mapping.c.instance_uuid == uuid_of(number),
                models.block_device_mapping.c.deleted == 0,
            )
            .values(deleted=models.block_device_mapping.c.id)
        )


def count(world, number, *numbers, target="vdb"):
    """Let a disk of a guest have these counters: reads, bytes, writes, bytes."""
    counters = world.hypervisor.counters.setdefault(uuid_of(number), {})
    counters[target] = BlockCounters(*numbers)


def usage(world, volume="volume-1"):
    """Return the totals and the present counters of a volume."""
    names = ("reads", "read_bytes", "writes", "write_bytes")
    rows = [row for row in world.rows(models.volume_usage_cache) if row.volume_id == volume]
    return [
        (
            tuple(getattr(r, f"tot_{n}") for n in names),
            tuple(getattr(r, f"curr_{n}") for n in names),
        )
        for r in rows
    ]


def sent(caplog):
    prefix = "oslo.messaging.notification.volume"
    return [json.loads(r.getMessage()) for r in caplog.records if r.name.startswith(prefix)]


def test_an_interval_of_zero_which_is_the_default_reads_nothing(world):
    attach(world, 1)
    assert world.agent.run(make(world, 0)).outcome == "ok"
    assert world.statements() == 0
    assert [o.default for o in PollVolumeUsage.all_options() if o.name == "spacing"] == [0]


def test_without_attached_volumes_the_hypervisor_is_not_asked(world, task):
    world.agent.run(task)
    assert world.statements() == 1
    assert world.hypervisor.calls.total() == 0


def test_devices_are_found_with_and_without_their_directory(world, task):
    attach(world, 1, "volume-1", "/dev/vde")
    attach(world, 1, "volume-2", "vda")
    count(world, 1, 1, 2, 3, 4, target="vde")
    count(world, 1, 5, 6, 7, 8, target="vda")
    world.agent.run(task)
    assert usage(world, "volume-1") == [((0, 0, 0, 0), (1, 2, 3, 4))]
    assert usage(world, "volume-2") == [((0, 0, 0, 0), (5, 6, 7, 8))]


def test_a_new_volume_has_a_row_and_one_notification_with_the_same_sums(tmp_path, caplog):
    world = make_world(tmp_path, LOG_DRIVER)
    task = make(world)
    attach(world, 1)
    count(world, 1, 100, 500, 25, 75)
    with caplog.at_level(logging.INFO):
        world.agent.run(task)
    assert usage(world) == [((0, 0, 0, 0), (100, 500, 25, 75))]
    (row,) = world.rows(models.volume_usage_cache)
    assert (row.instance_uuid, row.project_id, row.user_id) == (uuid_of(1), "project-1", "user-1")
    assert row.curr_last_refreshed == world.clock.utcnow()
    assert row.tot_last_refreshed is None
    (notification,) = sent(caplog)
    assert notification["event_type"] == "volume.usage"
    assert notification["payload"] == {
        "volume_id": "volume-1", "tenant_id": "project-1", "user_id": "user-1",
        "availability_zone": None, "instance_id": uuid_of(1),
        "last_refreshed": "2026-11-23 12:00:00+00:00",
        "reads": 100, "read_bytes": 500, "writes": 25, "write_bytes": 75,
    }  # fmt: skip
    world.close()


def test_counters_that_go_back_are_carried_over_all_four_of_them(tmp_path, caplog):
    world = make_world(tmp_path, LOG_DRIVER)
    task = make(world)
    attach(world, 1)
    for numbers in ((10, 0, 10, 0), (15, 0, 12, 0), (3, 0, 1, 0), (4, 0, 0, 0)):
        count(world, 1, *numbers)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            world.agent.run(task)
    # 15 before the restart, and 3 before the writes went back.
    assert usage(world) == [((18, 0, 13, 0), (4, 0, 0, 0))]
    assert sent(caplog)[0]["payload"]["reads"] == 22
    world.close()


def test_novas_own_example(world, task):
    attach(world, 1)
    for reads in (10000, 100, 200):
        count(world, 1, reads, 0, 0, 0)
        world.agent.run(task)
    assert [(tot[0], curr[0]) for tot, curr in usage(world)] == [(10000, 200)]


def test_zeros_count_and_what_did_not_change_is_not_written(world, task):
    attach(world, 1)
    count(world, 1, 0, 0, 0, 0)
    assert world.agent.run(task).counters["done"] == 1
    before = world.rows(models.volume_usage_cache)
    assert world.agent.run(task).changes == []
    assert world.rows(models.volume_usage_cache) == before


def test_a_guest_that_is_off_yields_nothing(world, task):
    attach(world, 1)
    count(world, 1, 1, 1, 1, 1)
    world.hypervisor.states[uuid_of(1)] = SHUTDOWN
    assert world.agent.run(task).counters == {"volumes": 1}
    assert usage(world) == []


def test_a_domain_or_a_device_that_is_gone_is_left_out_and_the_others_go_on(world, task):
    for number in (1, 2, 3):
        attach(world, number, f"volume-{number}")
    del world.hypervisor.states[uuid_of(1)]
    count(world, 2, 1, 1, 1, 1, target="vdz")
    count(world, 3, 9, 9, 9, 9)
    assert world.agent.run(task).counters == {"volumes": 3, "read": 1, "done": 1}
    assert usage(world, "volume-3") == [((0, 0, 0, 0), (9, 9, 9, 9))]


def test_what_is_no_volume_or_no_longer_attached_is_ignored(world, task):
    attach(world, 1, "volume-1", destination_type="local")
    attach(world, 1, "volume-2", deleted=7)
    attach(world, 2, "volume-3")
    world.update(2, host="host2")
    assert world.agent.run(task).counters == {}


def test_d21_a_null_device_name_is_one_bad_row(world, task):
    attach(world, 1, device=None)
    attach(world, 2, "volume-2")
    count(world, 2, 1, 1, 1, 1)
    run = world.agent.run(task)
    assert run.counters == {"volumes": 2, "skipped": 1, "read": 1, "done": 1}


@pytest.mark.parametrize(
    ("reads", "before"),
    [(2**63, {}), (-1, {}), (5, {"tot_reads": 2**63 - 2, "curr_reads": 9})],
    ids=["wrapped", "negative", "with what was counted before"],
)
def test_counters_that_no_row_can_hold_are_one_bad_row(world, task, reads, before, caplog):
    attach(world, 1)
    attach(world, 2, "volume-2")
    count(world, 1, reads, 0, 0, 0)
    count(world, 2, 1, 2, 3, 4)
    if before:
        with world.engine.begin() as connection:
            connection.execute(
                sa.insert(models.volume_usage_cache).values(
                    volume_id="volume-1", instance_uuid=uuid_of(1), deleted=0, **before
                )
            )
    written = usage(world)
    run = world.agent.run(task)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    assert "volume-1 skipped: its counters are negative, or" in caplog.text
    assert usage(world) == written
    assert usage(world, "volume-2") == [((0, 0, 0, 0), (1, 2, 3, 4))]


def test_d14_a_volume_of_two_instances_is_counted_for_each(world, task):
    for number in (1, 2):
        attach(world, number)
        count(world, number, 100 * number, 0, 0, 0)
    for _ in range(3):
        world.agent.run(task)
    assert [(tot[0], curr[0]) for tot, curr in usage(world)] == [(0, 100), (0, 200)]


def test_a_volume_that_is_attached_anew_goes_on_with_its_row(world, task):
    attach(world, 1)
    count(world, 1, 10, 0, 0, 0)
    world.agent.run(task)
    detach(world, 1)
    attach(world, 2)
    count(world, 2, 4, 0, 0, 0)
    world.agent.run(task)
    assert [(tot[0], curr[0]) for tot, curr in usage(world)] == [(10, 4)]
    assert world.rows(models.volume_usage_cache)[0].instance_uuid == uuid_of(2)


def test_on_another_instance_a_volume_counts_from_zero_however_much_it_was_used(world, task):
    attach(world, 1)
    count(world, 1, 10, 10, 10, 10)
    world.agent.run(task)
    detach(world, 1)
    attach(world, 2)
    # More than on record, so the counters alone do not tell.
    count(world, 2, 11, 12, 13, 14)
    for _ in range(2):
        world.agent.run(task)
    assert usage(world) == [((10, 10, 10, 10), (11, 12, 13, 14))]


@pytest.mark.parametrize("counted", [(11, 12, 13, 14), (10, 10, 10, 10)], ids=["more", "as_much"])
def test_attached_anew_between_two_passes_it_counts_from_zero_on_the_same_instance(
    world, task, counted
):
    attach(world, 1, created_at=world.clock.utcnow())
    count(world, 1, 10, 10, 10, 10)
    world.clock.sleep(60)
    world.agent.run(task)
    world.clock.sleep(60)
    detach(world, 1)
    attach(world, 1, created_at=world.clock.utcnow())
    count(world, 1, *counted)
    for _ in range(3):
        world.clock.sleep(60)
        world.agent.run(task)
    assert usage(world) == [((10, 10, 10, 10), counted)]


@pytest.mark.parametrize("minutes", [-600, 600], ids=["behind", "ahead"])
def test_an_attachment_dated_by_a_wrong_clock_adds_nothing(world, task, minutes):
    created_at = world.clock.utcnow() + datetime.timedelta(minutes=minutes)
    attach(world, 1, created_at=created_at)
    for reads in (10, 20, 30):
        count(world, 1, reads, 0, 0, 0)
        world.clock.sleep(60)
        world.agent.run(task)
    assert usage(world) == [((0, 0, 0, 0), (30, 0, 0, 0))]


def test_d14_the_attachment_that_is_left_of_several_goes_on_with_its_own_row(world, task):
    for number in (1, 2):
        attach(world, number)
        count(world, number, 100 * number, 0, 0, 0)
    world.agent.run(task)
    detach(world, 1)
    count(world, 2, 210, 0, 0, 0)
    for _ in range(2):
        world.agent.run(task)
    assert [(tot[0], curr[0]) for tot, curr in usage(world)] == [(0, 100), (0, 210)]
    # Then it is with a third, which has no row: the oldest goes on, and nothing is lost.
    detach(world, 2)
    attach(world, 3)
    count(world, 3, 500, 0, 0, 0)
    for _ in range(2):
        world.agent.run(task)
    assert [(tot[0], curr[0]) for tot, curr in usage(world)] == [(100, 500), (0, 210)]


def test_a_hypervisor_that_does_not_answer_ends_the_pass(world, task):
    attach(world, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])


@pytest.mark.parametrize("number", [10, 1000])
def test_a_steady_pass_costs_the_same_whatever_the_number_of_volumes(tmp_path, number):
    world = make_world(tmp_path, count=number)
    task = make(world)
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.block_device_mapping),
            [
                {"instance_uuid": uuid_of(n), "volume_id": f"volume-{n}", "device_name": "vdb",
                 "destination_type": "volume", "deleted": 0}
                for n in range(1, number + 1)
            ],
        )  # fmt: skip
    for n in range(1, number + 1):
        count(world, n, n, 0, 0, 0)
    world.agent.run(task)
    world.database.statements.clear()
    world.hypervisor.calls.clear()
    assert world.agent.run(task).changes == []
    assert world.statements() == 3
    assert world.hypervisor.calls == {"virConnectGetAllDomainStats": 1}
    world.close()


def test_a_thousand_that_differ_are_written_in_batches(tmp_path):
    world = make_world(tmp_path, count=1000)
    task = make(world)
    for n in range(1, 1001):
        attach(world, n, f"volume-{n}")
    for counters in (1, 2):
        for n in range(1, 1001):
            count(world, n, counters, n, 0, 0)
        world.database.statements.clear()
        world.agent.run(task)
    assert world.statements() == 3 + 2
    assert usage(world, "volume-700") == [((0, 0, 0, 0), (2, 700, 0, 0))]
    world.close()


def test_the_dry_run_plans_and_changes_nothing(tmp_path, caplog):
    world = make_world(tmp_path, LOG_DRIVER)
    task = make(world)
    attach(world, 1)
    count(world, 1, 1, 1, 1, 1)
    with caplog.at_level(logging.INFO):
        run = world.agent.run(task, dry_run=True)
    assert [c.outcome for c in run.changes] == ["planned"]
    assert usage(world) == []
    assert sent(caplog) == []
    world.close()


def test_both_formats_tell_the_same(tmp_path, caplog):
    world = make_world(tmp_path, f"{LOG_DRIVER}[notifications]\nnotification_format = both\n")
    task = make(world)
    attach(world, 1)
    world.update(1, availability_zone="az-1")
    count(world, 1, 100, 500, 25, 75)
    with caplog.at_level(logging.INFO):
        world.agent.run(task)
    legacy, versioned = sent(caplog)
    assert (legacy["publisher_id"], versioned["publisher_id"]) == (
        "compute.host1",
        "nova-compute:host1",
    )
    assert legacy["payload"]["availability_zone"] == "az-1"
    assert versioned["event_type"] == "volume.usage"
    assert versioned["payload"] == {
        "nova_object.name": "VolumeUsagePayload",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.0",
        "nova_object.data": {
            "volume_id": "volume-1", "project_id": "project-1", "user_id": "user-1",
            "availability_zone": "az-1", "instance_uuid": uuid_of(1),
            "last_refreshed": "2026-11-23T12:00:00Z",
            "reads": 100, "read_bytes": 500, "writes": 25, "write_bytes": 75,
        },
    }  # fmt: skip
    world.close()


def test_the_later_of_the_two_times_is_told(tmp_path, caplog):
    """Nova's own service refreshes the totals when it detaches, by its clock."""
    world = make_world(tmp_path, LOG_DRIVER)
    task = make(world)
    attach(world, 1)
    count(world, 1, 1, 1, 1, 1)
    world.agent.run(task)
    for hours in (-1, 1):
        at = world.clock.utcnow() + datetime.timedelta(hours=hours)
        with world.engine.begin() as connection:
            connection.execute(sa.update(models.volume_usage_cache).values(tot_last_refreshed=at))
        with caplog.at_level(logging.INFO):
            world.agent.run(task)
    assert [told["payload"]["last_refreshed"] for told in sent(caplog)] == [
        "2026-11-23 12:00:00+00:00",
        "2026-11-23 13:00:00+00:00",
    ]
    world.close()


def test_what_cannot_be_told_is_written_all_the_same_and_counted(tmp_path, caplog):
    world = make_world(tmp_path, LOG_DRIVER)
    task = make(world)
    attach(world, 1)
    count(world, 1, 1, 1, 1, 1)
    world.agent.drivers.use("notifications", FullNotifier())
    for _ in range(2):
        run = world.agent.run(task)
        assert run.outcome == "partial"
    assert (run.counters["read"], run.counters["failed"]) == (1, 1)
    assert usage(world) == [((0, 0, 0, 0), (1, 1, 1, 1))]
    assert caplog.text.count("volumes' usage is not told: The outbox is full.") == 1
    world.close()


class FullNotifier(Notifier):
    """One that takes nothing."""

    def send(self, notifications):
        raise NotificationsRefused("The outbox is full.")


def test_nova_conf_sets_the_interval(tmp_path):
    world = fake_world(tmp_path, {}, settings="volume_usage_poll_interval = 300\n")
    assert world.agent.build(PollVolumeUsage).conf.spacing == 300
    world.close()
