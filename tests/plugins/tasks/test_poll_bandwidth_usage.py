# SPDX-License-Identifier: Apache-2.0
"""poll_bandwidth_usage: the cases of the behaviour reference, and its arithmetic."""

import datetime
import json
import threading

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from cepheid_plugins.bandwidth.driver import InterfaceCounters, MeteredInterface
from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.driver import NetworkCounters
from cepheid_plugins.network import network_info
from cepheid_plugins.tasks.poll_bandwidth_usage import (
    MOST_BYTES,
    PollBandwidthUsage,
    counted,
    metered_interfaces,
)
from tests.fake_agent import FakeClock, eventually
from tests.fakes import FakeMeter
from tests.worlds import World, fake_world, uuid_of

RUNNING, SHUTDOWN = 1, 4
MAC = "fa:16:3e:00:00:01"
OCTOBER, NOVEMBER, DECEMBER = (datetime.datetime(2026, month, 1) for month in (10, 11, 12))
DAY_SECONDS = 86400


def make_world(path, count=3, **options):
    world = fake_world(path, dict.fromkeys(range(1, count + 1), RUNNING), **options)
    world.add_many(range(1, count + 1))
    world.agent.drivers.use("bandwidth", LibvirtMeter(world.agent))
    return world


@pytest.fixture
def world(tmp_path):
    world = make_world(tmp_path)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return world.agent.build(PollBandwidthUsage)


@pytest.fixture
def meter(world):
    """A vendor's meter in the place of libvirt's."""
    meter = FakeMeter(world.agent)
    world.agent.drivers.use("bandwidth", meter)
    return meter


def count(world, number, received, sent, mac=MAC):
    """Let an interface of a guest have these counters."""
    found = {one.mac: one for one in world.hypervisor.traffic.get(uuid_of(number), ())}
    found[mac] = NetworkCounters(mac, received, sent)
    world.hypervisor.traffic[uuid_of(number)] = list(found.values())


def record(world, number, start_period, *numbers, mac=MAC, **columns):
    """Write what is on record of an interface: bw_in, bw_out, last_ctr_in, last_ctr_out."""
    names = ("bw_in", "bw_out", "last_ctr_in", "last_ctr_out")
    values = {**dict(zip(names, numbers, strict=True)), "deleted": 0, **columns}
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.bw_usage_cache).values(
                uuid=uuid_of(number), mac=mac, start_period=start_period, **values
            )
        )


def cache_network(world, number, text):
    """Write what is cached of an instance's network."""
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_info_caches).values(
                instance_uuid=uuid_of(number), network_info=text, deleted=0
            )
        )


def usage(world, number=1, mac=MAC, start_period=NOVEMBER):
    """Return bw_in, bw_out, last_ctr_in and last_ctr_out of each row of an interface."""
    return [
        (row.bw_in, row.bw_out, row.last_ctr_in, row.last_ctr_out)
        for row in world.rows(models.bw_usage_cache)
        if (row.uuid, row.mac, row.start_period) == (uuid_of(number), mac, start_period)
    ]


# The reference's cases.


def test_a_meter_that_cannot_count_is_asked_once_and_named_once(world, meter, caplog):
    meter.error = NotImplementedError("no such chip")
    task = world.agent.build(PollBandwidthUsage)
    assert world.agent.run(task).outcome == "ok"
    world.database.statements.clear()
    for _ in range(3):
        assert world.agent.run(task).outcome == "ok"
    assert len(meter.asked) == 1
    assert world.statements() == 0
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "testing.bandwidth.MemoryMeter cannot count on this host: no such chip" in warning
    assert "[bandwidth] driver" in warning


def test_what_was_counted_since_the_last_look_is_added(world, task):
    record(world, 1, NOVEMBER, 3, 4, 0, 0)
    count(world, 1, 1, 2)
    world.agent.run(task)
    assert usage(world) == [(4, 6, 1, 2)]


def test_an_interface_that_was_never_seen_has_a_base_line_and_no_traffic(world, task):
    count(world, 1, 1000, 2000)
    world.agent.run(task)
    (row,) = world.rows(models.bw_usage_cache)
    assert usage(world) == [(0, 0, 1000, 2000)]
    assert row.last_refreshed == row.created_at == world.clock.utcnow()
    assert row.deleted == 0


def test_a_row_of_the_period_before_gives_the_last_look(world, task):
    record(world, 1, OCTOBER, 5, 6, 100, 200)
    count(world, 1, 150, 260)
    world.agent.run(task)
    assert usage(world) == [(50, 60, 150, 260)]
    assert usage(world, start_period=OCTOBER) == [(5, 6, 100, 200)]


def test_in_and_out_are_judged_separately(world, task):
    record(world, 1, NOVEMBER, 10, 20, 1000, 2000)
    count(world, 1, 400, 2500)
    run = world.agent.run(task)
    assert usage(world) == [(410, 520, 400, 2500)]
    assert run.changes[0].reason == "interfaces with other counters; 1 began anew"


def test_d13_every_run_counts_however_late_the_one_before_it_was(tmp_path):
    world = make_world(tmp_path)
    task = world.agent.build(PollBandwidthUsage)
    for late, received in ((0, 1), (400, 2), (0, 3), (599, 4), (1, 5)):
        count(world, 1, received, 0)
        world.clock.sleep(task.seconds_to_next_run() + late)
        task.periodic_tasks()
        # The next one is due at a boundary, less than one spacing from a late one.
        assert usage(world)[0][2] == received
        assert task.seconds_to_next_run() <= 600
    world.close()


def test_d13_a_clock_that_is_set_back_does_not_stop_the_counting(world, task):
    for received in (1, 2):
        count(world, 1, received, 0)
        world.clock._utc -= datetime.timedelta(days=3)
        world.agent.run(task)
    assert usage(world) == [(1, 0, 2, 0)]


def test_each_interface_has_a_row_and_all_have_one_time(world, task):
    count(world, 1, 1, 1)
    count(world, 1, 2, 2, mac="fa:16:3e:00:00:02")
    assert world.agent.run(task).counters == {"instances": 3, "read": 2, "done": 1}
    rows = world.rows(models.bw_usage_cache)
    assert len(rows) == 2
    assert {row.last_refreshed for row in rows} == {world.clock.utcnow()}


def test_a_meter_that_tells_nothing_writes_nothing(world, task):
    run = world.agent.run(task)
    assert (run.outcome, run.changes, world.rows(models.bw_usage_cache)) == ("ok", [], [])


def test_a_negative_interval_of_novas_switches_the_task_off(tmp_path):
    world = make_world(tmp_path, settings="bandwidth_poll_interval = -1\n")
    task = world.agent.build(PollBandwidthUsage)
    count(world, 1, 1, 1)
    world.clock.sleep(DAY_SECONDS)
    task.periodic_tasks()
    assert world.statements() == 0
    world.close()


def test_nova_conf_sets_the_interval_and_the_period(tmp_path):
    settings = "bandwidth_poll_interval = 300\ninstance_usage_audit_period = day\n"
    world = make_world(tmp_path, settings=settings)
    task = world.agent.build(PollBandwidthUsage)
    assert task.conf.spacing == 300
    count(world, 1, 1, 1)
    world.agent.run(task)
    (row,) = world.rows(models.bw_usage_cache)
    assert row.start_period == datetime.datetime(2026, 11, 23)
    world.close()


def test_what_went_through_across_a_boundary_belongs_to_the_new_period(world, task):
    count(world, 1, 100, 0)
    world.agent.run(task)
    count(world, 1, 150, 0)
    world.agent.run(task)
    count(world, 1, 190, 0)
    world.clock.sleep(8 * DAY_SECONDS)
    world.agent.run(task)
    assert usage(world) == [(50, 0, 150, 0)]
    assert usage(world, start_period=DECEMBER) == [(40, 0, 190, 0)]


def test_the_example_of_the_reference(world, task):
    record(world, 1, NOVEMBER, 1000, 0, 5000, 0)
    for counter, expected in ((5600, 1600), (40, 1640), (40, 1640)):
        count(world, 1, counter, 0)
        world.agent.run(task)
        assert usage(world) == [(expected, 0, counter, 0)]
    world.clock.sleep(8 * DAY_SECONDS)
    count(world, 1, 100, 0)
    world.agent.run(task)
    assert usage(world, start_period=DECEMBER) == [(60, 0, 100, 0)]


# The arithmetic.


@pytest.mark.parametrize(
    ("before", "last", "counter", "expected"),
    [
        (0, None, 700, 0),
        (None, None, 700, 0),
        (5, None, 700, 5),
        (5, 700, 700, 5),
        (5, 700, 701, 6),
        (5, 700, 699, 704),
        (5, 700, 0, 5),
        (None, 0, 700, 700),
        # A counter of 32 bits that wraps is one that began anew, for all that it tells.
        (0, 2**32 - 10, 5, 5),
        (2**62, 2**62, 2**62 + 1, 2**62 + 1),
    ],
)
def test_counts(before, last, counter, expected):
    assert counted(before, last, counter) == expected


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("traffic"), st.integers(0, 1000)),
        st.tuples(st.sampled_from(["restart", "look", "boundary"]), st.just(0)),
    ),
    max_size=60,
)


@given(EVENTS)
@settings(max_examples=300, deadline=None)
def test_all_that_went_through_is_counted_but_for_the_losses_that_the_reference_names(events):
    periods, last = [None], None  # what is on record
    counter = pending = went_through = lost = 0
    restarted = False
    for event, number in [*events, ("look", 0)]:
        if event == "traffic":
            counter, pending, went_through = (
                counter + number,
                pending + number,
                went_through + number,
            )
        elif event == "restart":
            # What went through since the last look cannot be told any more.
            lost, pending, counter, restarted = lost + pending, 0, 0, True
        elif event == "boundary":
            # The one before the last is not looked at.
            last = last if periods[-1] is not None else None
            periods.append(None)
        else:
            if last is None:
                lost += pending  # the base line
            elif restarted and counter >= last:
                lost += last  # it overtook the last look unseen
            periods[-1] = counted(periods[-1], last, counter)
            last, pending, restarted = counter, 0, False
    assert sum(period or 0 for period in periods) == went_through - lost
    assert all(period is None or period >= 0 for period in periods)


# Restarts, moves, and what is not there.


def test_a_guest_that_is_restarted_goes_on_with_its_sum(world, task):
    for received in (100, 600, 40, 90):
        count(world, 1, received, 0)
        world.agent.run(task)
    assert usage(world) == [(590, 0, 90, 0)]


def test_a_guest_that_comes_from_another_host_goes_on_with_its_sum(world, task):
    record(world, 3, NOVEMBER, 1000, 10, 5000, 50)
    count(world, 3, 7, 8)
    world.agent.run(task)
    assert usage(world, 3) == [(1007, 18, 7, 8)]


def test_a_guest_that_is_off_or_gone_keeps_its_row(world, task):
    for number in (1, 2):
        count(world, number, 10, 10)
    world.agent.run(task)
    before = world.rows(models.bw_usage_cache)
    world.hypervisor.states[uuid_of(1)] = SHUTDOWN
    del world.hypervisor.states[uuid_of(2)]
    assert world.agent.run(task).counters == {"instances": 3}
    assert world.rows(models.bw_usage_cache) == before


def test_an_interface_that_moves_to_another_instance_begins_there_with_a_base_line(world, task):
    count(world, 1, 100, 0)
    world.agent.run(task)
    count(world, 1, 150, 0)
    world.agent.run(task)
    world.hypervisor.traffic = {}
    count(world, 2, 30, 0)
    world.agent.run(task)
    count(world, 2, 35, 0)
    world.agent.run(task)
    assert usage(world, 1) == [(50, 0, 150, 0)]
    assert usage(world, 2) == [(5, 0, 35, 0)]


def test_an_interface_that_is_unplugged_and_comes_back_goes_on_with_its_row(world, task):
    record(world, 1, NOVEMBER, 50, 0, 150, 0)
    world.agent.run(task)
    count(world, 1, 20, 0)
    world.agent.run(task)
    assert usage(world) == [(70, 0, 20, 0)]


def test_instances_of_other_hosts_and_deleted_ones_are_not_asked_for(world, meter):
    task = world.agent.build(PollBandwidthUsage)
    world.update(1, host="host2")
    world.update(2, deleted=2)
    meter.told = [InterfaceCounters(uuid_of(n), MAC, 1, 1) for n in (1, 2, 3)]
    run = world.agent.run(task)
    assert [instance.uuid for instance in meter.asked[0]] == [uuid_of(3)]
    assert run.counters == {"instances": 1, "unknown": 2, "read": 1, "done": 1}
    assert run.outcome == "ok"
    assert usage(world, 3) == [(0, 0, 1, 1)]


def test_without_instances_the_meter_is_not_asked(world, meter):
    for number in (1, 2, 3):
        world.update(number, host="host2")
    world.agent.run(world.agent.build(PollBandwidthUsage))
    assert world.statements() == 1
    assert meter.asked == []


# What is on record.


def test_what_did_not_change_is_not_written(world, task):
    count(world, 1, 5, 5)
    world.agent.run(task)
    before = world.rows(models.bw_usage_cache)
    world.clock.sleep(600)
    assert world.agent.run(task).changes == []
    assert world.rows(models.bw_usage_cache) == before


def test_a_period_without_traffic_has_its_row_so_that_the_next_one_knows_the_last_look(world, task):
    count(world, 1, 5, 5)
    for _ in range(3):
        world.agent.run(task)
        world.clock.sleep(31 * DAY_SECONDS)
    count(world, 1, 12, 5)
    world.agent.run(task)
    february = datetime.datetime(2027, 2, 1)
    assert usage(world, start_period=february) == [(7, 0, 12, 5)]
    assert len(world.rows(models.bw_usage_cache)) == 4


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((None, None, None, None), (0, 0, 10, 20)),
        ((None, 7, 4, None), (6, 7, 10, 20)),
        ((3, None, None, 5), (3, 15, 10, 20)),
    ],
)
def test_d21_nulls_in_a_row_end_no_pass(world, task, row, expected):
    record(world, 1, NOVEMBER, *row)
    record(world, 2, NOVEMBER, 1, 1, 1, 1, mac=None)
    count(world, 1, 10, 20)
    count(world, 2, 10, 20)
    run = world.agent.run(task)
    assert (run.outcome, run.counters["done"]) == ("ok", 1)
    assert usage(world) == [expected]
    assert usage(world, 2) == [(0, 0, 10, 20)]


def test_of_two_rows_alike_the_older_one_is_written(world, task):
    record(world, 1, NOVEMBER, 1, 1, 10, 10)
    record(world, 1, NOVEMBER, 500, 500, 500, 500)
    count(world, 1, 30, 30)
    world.agent.run(task)
    assert usage(world) == [(21, 21, 30, 30), (500, 500, 500, 500)]


def test_rows_marked_as_deleted_are_read_as_nova_does(world, task):
    record(world, 1, NOVEMBER, 1, 1, 10, 10, deleted=1)
    count(world, 1, 30, 30)
    world.agent.run(task)
    assert usage(world) == [(21, 21, 30, 30)]


def test_a_mac_is_the_same_in_capitals(world, task):
    record(world, 1, NOVEMBER, 1, 1, 10, 10, mac=MAC.upper())
    count(world, 1, 30, 30)
    world.agent.run(task)
    assert usage(world, mac=MAC.upper()) == [(21, 21, 30, 30)]


def test_an_agent_that_was_down_for_a_whole_period_begins_with_a_base_line(world, task):
    record(world, 1, datetime.datetime(2026, 9, 1), 1, 1, 10, 10)
    count(world, 1, 30, 30)
    world.agent.run(task)
    assert usage(world) == [(0, 0, 30, 30)]


def test_a_table_that_is_missing_is_named_with_the_remedy(world, task):
    with world.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE bw_usage_cache"))
    count(world, 1, 1, 1)
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert "run 'cepheid db sync'" in run.error


# Another agent of the same host: another state_path, the same name.


@pytest.fixture
def other(world, tmp_path):
    (tmp_path / "other").mkdir()
    settings = f"[database]\nconnection = {world.database.url}\n"
    other = World(tmp_path / "other", world.hypervisor, settings=settings, clock=world.clock)
    other.agent.drivers.use("bandwidth", LibvirtMeter(other.agent))
    yield other
    other.close()


@pytest.mark.parametrize("on_record", [False, True])
def test_of_two_agents_of_one_host_one_makes_the_row_and_one_counts(world, meter, other, on_record):
    if on_record:
        record(world, 1, NOVEMBER, 1, 1, 10, 10)
    count(world, 1, 30, 30)
    meter.told = [InterfaceCounters(uuid_of(1), MAC, 30, 30)]
    theirs = other.agent.build(PollBandwidthUsage)
    # They look, count and write while we are about to.
    meter.meanwhile = lambda: other.agent.run(theirs)
    run = world.agent.run(world.agent.build(PollBandwidthUsage))
    assert run.counters["raced"] == 1
    assert usage(world) == [(21, 21, 30, 30) if on_record else (0, 0, 30, 30)]


def test_a_row_whose_sum_another_wrote_with_other_counters_is_left_for_the_next_pass(
    world, meter, other
):
    record(world, 1, NOVEMBER, 0, 0, 10, None)
    theirs = other.agent.build(PollBandwidthUsage)
    count(world, 1, 25, 5)
    meter.told = [InterfaceCounters(uuid_of(1), MAC, 30, 6)]
    meter.meanwhile = lambda: other.agent.run(theirs)
    task = world.agent.build(PollBandwidthUsage)
    world.agent.run(task)
    assert usage(world) == [(15, 0, 25, 5)]
    meter.meanwhile = lambda: None
    world.agent.run(task)
    assert usage(world) == [(20, 1, 30, 6)]


# The meter.


def test_the_meter_is_told_the_interfaces_that_are_cached(world, meter):
    vifs = [
        network_info.vif("port-1", MAC.upper(), devname="tap7da997bc-21"),
        network_info.vif("port-2", "fa:16:3e:00:00:02"),
    ]
    cache_network(world, 1, json.dumps(vifs))
    cache_network(world, 2, None)
    world.agent.run(world.agent.build(PollBandwidthUsage))
    (asked,) = meter.asked
    assert {instance.uuid: instance.interfaces for instance in asked} == {
        uuid_of(1): (
            MeteredInterface(MAC, "tap7da997bc-21"),
            MeteredInterface("fa:16:3e:00:00:02", ""),
        ),
        uuid_of(2): (),
        uuid_of(3): (),
    }


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[{}]",
        '["x"]',
        "17",
        '[{"address": null}]',
        "null",
        pytest.param("[" * 9999, id="deep"),
    ],
)
def test_a_cache_that_cannot_be_read_is_one_bad_row_and_its_instance_is_still_counted(
    world, meter, text, caplog
):
    with pytest.raises(ValueError, match=r"."):
        metered_interfaces(text)
    cache_network(world, 1, text)
    meter.told = [InterfaceCounters(uuid_of(number), MAC, 1, 1) for number in (1, 2)]
    task = world.agent.build(PollBandwidthUsage)
    for _ in range(2):
        run = world.agent.run(task)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    assert [len(usage(world, number)) for number in (1, 2)] == [1, 1]
    assert len([r for r in caplog.records if uuid_of(1) in r.getMessage()]) == 1


def test_a_meter_that_knows_the_interfaces_itself_has_no_use_for_the_cache(world, task):
    cache_network(world, 1, "no JSON")
    count(world, 1, 1, 1)
    run = world.agent.run(task)
    assert (run.outcome, run.counters.get("skipped", 0)) == ("ok", 0)
    assert len(usage(world, 1)) == 1


class Counters(InterfaceCounters):
    """A vendor's own."""


@pytest.mark.parametrize(
    "bad",
    [
        InterfaceCounters(uuid_of(1), MAC, -1, 1),
        InterfaceCounters(uuid_of(1), MAC, 1, 1.5),
        InterfaceCounters(uuid_of(1), MAC, "1", 1),
        InterfaceCounters(uuid_of(1), MAC, None, 1),
        InterfaceCounters(uuid_of(1), MAC, True, 1),
        InterfaceCounters(uuid_of(1), MAC, 1, MOST_BYTES + 1),
        InterfaceCounters(uuid_of(1), "", 1, 1),
        InterfaceCounters(uuid_of(1), "x" * 256, 1, 1),
        InterfaceCounters(uuid_of(1), None, 1, 1),
        InterfaceCounters([uuid_of(1)], MAC, 1, 1),
        (uuid_of(1), MAC, 1, 1),
        None,
    ],
    ids=repr,
)
def test_what_a_meter_tells_wrongly_is_one_bad_item(world, meter, bad, caplog):
    meter.told = [bad, Counters(uuid_of(2), MAC, 1, 2)]
    task = world.agent.build(PollBandwidthUsage)
    for _ in range(2):
        run = world.agent.run(task)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    assert usage(world, 1) == []
    assert usage(world, 2) == [(0, 0, 1, 2)]
    assert len([r for r in caplog.records if "skipped" in r.getMessage()]) == 1


def test_an_interface_that_is_told_of_twice_is_not_counted_at_all(world, meter):
    record(world, 1, NOVEMBER, 5, 5, 100, 100)
    meter.told = [
        InterfaceCounters(uuid_of(1), MAC, 200, 200),
        InterfaceCounters(uuid_of(1), MAC.upper(), 50, 50),
        InterfaceCounters(uuid_of(2), MAC, 1, 2),
    ]
    run = world.agent.run(world.agent.build(PollBandwidthUsage))
    assert run.counters["skipped"] == 2
    assert usage(world, 1) == [(5, 5, 100, 100)]
    assert usage(world, 2) == [(0, 0, 1, 2)]


def test_a_sum_that_no_row_holds_is_one_bad_item(world, task):
    record(world, 1, NOVEMBER, MOST_BYTES - 1, 0, 0, 0)
    count(world, 1, 2, 0)
    count(world, 2, 1, 1)
    assert world.agent.run(task).counters["skipped"] == 1
    assert usage(world, 1) == [(MOST_BYTES - 1, 0, 0, 0)]
    assert usage(world, 2) == [(0, 0, 1, 1)]


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError("no such device")])
def test_a_meter_that_fails_half_way_ends_the_pass_without_a_change(world, meter, error):
    meter.told = [InterfaceCounters(uuid_of(1), MAC, 1, 2)]
    meter.error = error
    task = world.agent.build(PollBandwidthUsage)
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert str(error) in run.error
    meter.error = None
    assert world.agent.run(task).outcome == "ok"
    assert usage(world) == [(0, 0, 1, 2)]


def test_a_hypervisor_that_does_not_answer_ends_the_pass_with_its_own_words(world, task):
    count(world, 1, 1, 1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert run.error == "fake:/// does not answer"


def test_a_meter_that_hangs_is_overdue_and_writes_when_it_is_back(world, meter):
    hangs, back = threading.Event(), threading.Event()
    meter.told = [InterfaceCounters(uuid_of(1), MAC, 1, 2)]
    meter.meanwhile = lambda: (hangs.set(), back.wait(20))
    task = world.agent.build(PollBandwidthUsage)
    runs = []
    thread = threading.Thread(target=lambda: runs.append(world.agent.run(task)))
    thread.start()
    eventually(hangs.is_set)
    world.clock.sleep(task.conf.time_limit + 1)
    (overdue,) = world.agent.runner.report_overdue()
    assert overdue.task == task.name
    back.set()
    thread.join(20)
    assert [run.outcome for run in runs] == ["overdue"]
    assert usage(world) == [(0, 0, 1, 2)]


def test_a_meter_that_cannot_be_built_sets_the_task_aside_and_is_named(tmp_path):
    world = fake_world(tmp_path, {}, settings="[bandwidth]\ndriver = none-such\n")
    world.agent.load_tasks()
    (plugin,) = [p for p in world.agent.plugins if p.name == "poll_bandwidth_usage"]
    assert plugin.state == "failed"
    assert "[bandwidth] driver = none-such: no such driver is installed" in plugin.reason
    world.close()


def test_the_bundled_meter_on_libvirts_test_driver(tmp_path):
    world = World(tmp_path, states=[RUNNING, RUNNING], clock=FakeClock())
    world.add_many([0, 1])
    text = world.hypervisor.definition(uuid_of(0))
    interface = f"<interface type='user'><mac address='{MAC}'/></interface></devices>"
    world.hypervisor.define(text.replace("</devices>", interface))
    world.hypervisor.power_off(uuid_of(0))
    world.hypervisor.start(uuid_of(0))
    world.agent.drivers.use("bandwidth", LibvirtMeter(world.agent))
    task = world.agent.build(PollBandwidthUsage)
    for _ in range(2):
        assert world.agent.run(task).counters["read"] == 1
    ((bw_in, bw_out, last_in, last_out),) = usage(world, 0)
    # libvirt makes them up from the time of day.
    assert 0 < bw_in < last_in
    assert 0 < bw_out < last_out
    world.close()


# Cost, and the dry run.


@pytest.mark.parametrize("number", [10, 1000])
def test_a_steady_pass_costs_the_same_whatever_the_number_of_instances(tmp_path, number):
    world = make_world(tmp_path, count=number)
    task = world.agent.build(PollBandwidthUsage)
    for n in range(1, number + 1):
        count(world, n, n, n)
    world.agent.run(task)
    world.database.statements.clear()
    world.hypervisor.calls.clear()
    run = world.agent.run(task)
    assert (run.changes, run.counters["read"]) == ([], number)
    assert world.statements() == 2
    assert world.hypervisor.calls == {"virConnectGetAllDomainStats": 1}
    world.close()


def test_a_thousand_that_differ_are_written_in_batches(tmp_path):
    world = make_world(tmp_path, count=1000)
    task = world.agent.build(PollBandwidthUsage)
    sent = []
    for received in (10, 11, 5):
        for n in range(1, 1001):
            count(world, n, received, n)
        world.database.statements.clear()
        world.agent.run(task)
        sent.append(world.statements())
    # Once a period: lock the instances, look whether the rows are there, make them.
    assert sent == [2 + 3 * 2, 2 + 2, 2 + 2]
    assert usage(world, 700) == [(6, 0, 5, 700)]
    assert len(world.rows(models.bw_usage_cache)) == 1000
    world.close()


def test_the_dry_run_plans_and_changes_nothing(world, task):
    count(world, 1, 1, 1)
    run = world.agent.run(task, dry_run=True)
    assert [change.outcome for change in run.changes] == ["planned"]
    assert (run.changes[0].target, run.changes[0].after) == ("host1", 1)
    assert world.rows(models.bw_usage_cache) == []
