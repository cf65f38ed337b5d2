# SPDX-License-Identifier: Apache-2.0
"""instance_usage_audit: the behaviour reference's cases, one row a period, and being killed."""

import contextlib
import datetime
import itertools
import logging
import uuid

import pytest
import sqlalchemy as sa

from cepheid.explanation import Kind
from cepheid_plugins.compute import instance_exists
from cepheid_plugins.compute.audit_periods import AuditPeriod, completed
from cepheid_plugins.database import models
from cepheid_plugins.database.records import AuditLog
from cepheid_plugins.tasks.instance_usage_audit import (
    MESSAGE_LENGTH,
    PAGE,
    InstanceUsageAudit,
    Progress,
    since,
)
from tests.explained import instance
from tests.fake_agent import FakeClock
from tests.fakes import FakeHypervisor, FakeNotifier
from tests.killing import Killed, Steps
from tests.worlds import World, fake_world, uuid_of

LOG_DRIVER = "[oslo_messaging_notifications]\ndriver = log\n"
HOUR, DAY = 3600, 86400


def at(text):
    return datetime.datetime.fromisoformat(text)


#: The month before the clock's 2026-11-23 12:00.
BEGIN, END = at("2026-10-01"), at("2026-11-01")
STARTED = "Instance usage audit started..."


def equip(world):
    """Give a world a notifier."""
    world.notifier = FakeNotifier()
    world.agent.drivers.use("notifications", world.notifier)
    return world


def make_world(path, settings="", clock=None):
    return equip(fake_world(path, {}, settings=settings + LOG_DRIVER, clock=clock))


@pytest.fixture
def world(tmp_path):
    world = make_world(tmp_path)
    yield world
    world.close()


@pytest.fixture
def task(world):
    return world.agent.build(InstanceUsageAudit)


def add(world, *numbers, **columns):
    """Insert instances that lived all the time."""
    world.add_many(numbers, **{"launched_at": at("2020-01-01"), "vcpus": 1, "memory_mb": 128,
                               "project_id": "project-1", **columns})  # fmt: skip


def logs(world):
    return [
        (row.period_beginning, row.period_ending, row.state, row.task_items, row.errors)
        for row in world.rows(models.task_log)
    ]


def write_log(world, begin, end, state="DONE", message=STARTED, **columns):
    """Insert a row as another would."""
    values = {"task_name": "instance_usage_audit", "host": "host1", "deleted": 0, "task_items": 0,
              "errors": 0, "created_at": world.clock.utcnow(), **columns}  # fmt: skip
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.task_log).values(
                period_beginning=begin, period_ending=end, state=state, message=message, **values
            )
        )


def told(world):
    """Return of whom was told, by number, in order."""
    return [int(one.payload["instance_id"][-4:], 16) for one in world.notifier.taken.values()]


def periods_told(world):
    found = [one.payload["audit_period_beginning"] for one in world.notifier.taken.values()]
    return list(dict.fromkeys(found))


# Whether it runs.


def test_it_is_off_by_default_and_then_not_even_the_period_is_asked_for(world, task):
    add(world, 1)
    assert not task.conf.enabled
    world.clock.sleep(DAY)
    task.run_periodic_tasks(None)
    assert world.statements() == 0
    assert world.agent.journal.runs() == []


def test_nova_conf_switches_it_on_and_sets_the_period(tmp_path):
    settings = "instance_usage_audit = true\ninstance_usage_audit_period = day@6\n"
    world = make_world(tmp_path, settings)
    task = world.agent.build(InstanceUsageAudit)
    world.clock.sleep(60)
    task.run_periodic_tasks(None)
    assert logs(world) == [(at("2026-11-22 06:00"), at("2026-11-23 06:00"), "DONE", 0, 0)]
    world.close()


def test_where_nobody_would_be_told_it_says_so_and_no_period_is_lost(tmp_path):
    world = fake_world(tmp_path, {})
    task = world.agent.build(InstanceUsageAudit)
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert "[oslo_messaging_notifications] driver" in run.error
    assert world.statements() == 0
    world.close()


def test_with_the_driver_noop_periods_are_recorded_though_nobody_is_told(tmp_path):
    world = fake_world(tmp_path, {}, settings="[oslo_messaging_notifications]\ndriver = noop\n")
    add(world, 1)
    world.agent.run(world.agent.build(InstanceUsageAudit))
    assert logs(world) == [(BEGIN, END, "DONE", 1, 0)]
    world.close()


@pytest.mark.parametrize("state", ["RUNNING", "DONE"])
def test_a_row_of_novas_in_any_state_is_enough(world, task, state):
    add(world, 1)
    write_log(world, BEGIN, END, state)
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("ok", [])
    assert world.statements() == 1
    assert told(world) == []


def test_another_hosts_row_does_not_stop_this_one(world, task):
    add(world, 1)
    write_log(world, BEGIN, END, host="host2")
    world.agent.run(task)
    assert told(world) == [1]


def test_the_second_run_in_a_period_does_nothing(world, task):
    add(world, 1)
    world.agent.run(task)
    before = logs(world)
    world.clock.sleep(DAY)
    assert world.agent.run(task).changes == []
    assert (logs(world), told(world)) == (before, [1])


# What it records.


def test_one_instance_is_told_of_and_the_row_is_as_novas(world, task):
    add(world, 1)
    run = world.agent.run(task)
    assert run.counters == {"done": 1, "notifications": 1}
    (row,) = world.rows(models.task_log)
    assert (row.task_name, row.host, row.state) == ("instance_usage_audit", "host1", "DONE")
    assert (row.period_beginning, row.period_ending) == (BEGIN, END)
    assert (row.task_items, row.errors, row.deleted) == (1, 0, 0)
    assert row.message == "Instance usage audit ran for host host1, 1 instances in 0.0 seconds."
    (one,) = world.notifier.taken.values()
    assert (one.event_type, one.priority, one.request_id) == (
        "compute.instance.exists", "INFO", run.request_id,
    )  # fmt: skip
    assert one.payload["audit_period_beginning"] == "2026-10-01 00:00:00"
    assert one.payload["audit_period_ending"] == "2026-11-01 00:00:00"
    (change,) = run.changes
    assert (change.kind, change.target, change.before, change.after) == (
        "usage_audit", "host1", None, "DONE",
    )  # fmt: skip
    assert change.reason == "2026-10-01 00:00 to 2026-11-01 00:00 UTC: 1 instance"


def test_says_how_many_were_told_of_in_all_periods(world, task, reports):
    add(world, *range(PAGE + 1))
    write_log(world, at("2026-08-01"), at("2026-09-01"))
    world.agent.run(task)
    assert reports[0] == (0, PAGE + 1)
    assert reports == sorted(reports)
    both = 2 * (PAGE + 1)
    assert (reports[-1], len(set(reports))) == ((both, both), 3 + 3)


def test_without_instances_the_period_is_recorded_all_the_same(world, task):
    world.agent.run(task)
    assert logs(world) == [(BEGIN, END, "DONE", 0, 0)]


def test_both_formats_are_told_of_each_instance_one_after_the_other(tmp_path):
    world = make_world(tmp_path, "[notifications]\nnotification_format = both\n")
    add(world, 1, 2)
    world.agent.run(world.agent.build(InstanceUsageAudit))
    assert [(one.event_type, one.versioned) for one in world.notifier.taken.values()] == [
        ("compute.instance.exists", False),
        ("instance.exists", True),
    ] * 2
    world.close()


def test_two_of_five_fail_and_the_others_are_told_of(world, task, caplog):
    add(world, 1, 3, 5)
    add(world, 2, 4, vcpus=None)
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert logs(world) == [(BEGIN, END, "DONE", 5, 2)]
    assert told(world) == [1, 3, 5]
    named = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [any(uuid_of(n) in line for line in named) for n in range(1, 6)] == [
        False, True, False, True, False,
    ]  # fmt: skip


def test_one_whose_networks_cannot_be_read_is_told_of_and_named_and_is_no_error(
    world, task, caplog
):
    add(world, 1, 2)
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_info_caches).values(
                instance_uuid=uuid_of(2), network_info='{"no": "list"}', deleted=0
            )
        )
    (verdict,) = task.explain(instance(uuid_of(2)))
    assert (verdict.kind, verdict.text.partition(", ")[2]) == (
        Kind.COUNTS,
        "without networks: its network_info cannot be read: ValueError: it is no list of VIFs",
    )
    run = world.agent.run(task)
    assert (run.outcome, logs(world)) == ("ok", [(BEGIN, END, "DONE", 2, 0)])
    assert told(world) == [1, 2]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"{uuid_of(2)} is told of without networks: its network_info cannot be read" in line


def test_a_long_name_of_the_host_is_no_obstacle(tmp_path):
    host = "h" * 250
    world = make_world(tmp_path, f"host = {host}\n")
    add(world, 1, host=host)
    world.agent.run(world.agent.build(InstanceUsageAudit))
    (row,) = world.rows(models.task_log)
    assert row.state == "DONE"
    assert len(row.message) == 255
    world.close()


# Of whom it tells.

HALF = at("2026-10-15")


@pytest.mark.parametrize(
    ("columns", "is_told_of"),
    [
        ({}, True),
        ({"launched_at": HALF}, True),
        ({"launched_at": HALF, "terminated_at": HALF, "deleted": 1, "deleted_at": HALF}, True),
        ({"terminated_at": HALF}, True),
        ({"terminated_at": at("2026-11-15"), "deleted": 1}, True),
        ({"terminated_at": BEGIN}, False),
        ({"terminated_at": BEGIN + datetime.timedelta(seconds=1)}, True),
        ({"terminated_at": at("2026-09-01"), "deleted": 1, "deleted_at": HALF}, False),
        ({"launched_at": END}, False),
        ({"launched_at": END - datetime.timedelta(seconds=1)}, True),
        ({"launched_at": None}, False),
        ({"host": "host2"}, False),
        ({"vm_state": "soft-delete", "deleted_at": at("2026-09-01")}, True),
        ({"vm_state": "error"}, True),
        ({"hidden": None}, True),
        ({"hidden": True}, False),
        # Nova would tell of these in every period for ever.
        ({"deleted": 1, "deleted_at": at("2026-09-01")}, False),
        ({"deleted": 1, "deleted_at": HALF}, True),
    ],
)
def test_who_existed_in_the_period(world, task, columns, is_told_of):
    add(world, 1, **columns)
    world.agent.run(task)
    assert bool(told(world)) == is_told_of
    assert logs(world) == [(BEGIN, END, "DONE", int(is_told_of), 0)]


def test_the_order_is_by_project_and_uuid_over_all_pages(world, task):
    numbers = range(1, 2 * PAGE + 8)
    projects = (None, "b", "", "a")
    for remainder, project in enumerate(projects):
        add(world, *(n for n in numbers if n % 4 == remainder), project_id=project)
    world.agent.run(task)
    assert told(world) == sorted(numbers, key=lambda n: (projects[n % 4] or "", n))


def test_d21_a_row_without_its_times_is_one_bad_row(world, task):
    add(world, 1, 5)
    add(world, 2, launched_at=None)
    add(world, 3, created_at=None, updated_at=None)
    add(world, 4, deleted=4)
    run = world.agent.run(task)
    assert told(world) == [1, 3, 5]
    assert run.counters == {"done": 1, "notifications": 3, "skipped": 1}
    assert logs(world) == [(BEGIN, END, "DONE", 4, 1)]


# Periods.


@pytest.mark.parametrize(
    ("unit", "now", "begin", "end"),
    [
        ("month", "2024-03-01 00:00:01", "2024-02-01", "2024-03-01"),
        ("day", "2024-03-01 00:00:01", "2024-02-29", "2024-03-01"),
        ("year", "2025-01-01 00:00:01", "2024-01-01", "2025-01-01"),
        # Nights in which the clocks of Europe and of America are set.
        ("hour", "2026-03-29 02:30", "2026-03-29 01:00", "2026-03-29 02:00"),
        ("hour", "2026-10-25 01:30", "2026-10-25 00:00", "2026-10-25 01:00"),
        ("day", "2026-11-02 00:10", "2026-11-01", "2026-11-02"),
    ],
)
def test_leap_days_and_summer_time_are_no_matter(tmp_path, unit, now, begin, end):
    settings = f"instance_usage_audit_period = {unit}\n"
    world = make_world(tmp_path, settings, clock=FakeClock(at(now)))
    second = datetime.timedelta(seconds=1)
    add(world, 1, launched_at=at(end) - second, created_at=at(end) - second)
    add(world, 2, launched_at=at(end))
    add(world, 3, terminated_at=at(begin) + second)
    add(world, 4, terminated_at=at(begin))
    world.agent.run(world.agent.build(InstanceUsageAudit))
    assert logs(world) == [(at(begin), at(end), "DONE", 2, 0)]
    assert told(world) == [1, 3]
    world.close()


def test_the_bounds_stay_when_a_period_ends_in_the_middle(tmp_path):
    clock = FakeClock(at("2026-11-30 23:59:59"))
    world = make_world(tmp_path, clock=clock)
    add(world, *range(1, PAGE + 2))
    send = world.notifier.send

    def slow(notifications):
        clock.sleep(HOUR)
        send(notifications)

    world.notifier.send = slow
    world.agent.run(world.agent.build(InstanceUsageAudit))
    assert len(told(world)) == PAGE + 1
    assert periods_told(world) == ["2026-10-01 00:00:00"]
    world.close()


def test_three_missed_periods_are_audited_oldest_first(world, task):
    add(world, 1)
    add(world, 2, launched_at=at("2026-09-15"))
    write_log(world, at("2026-07-01"), at("2026-08-01"))
    run = world.agent.run(task)
    assert logs(world)[1:] == [
        (at("2026-08-01"), at("2026-09-01"), "DONE", 1, 0),
        (at("2026-09-01"), at("2026-10-01"), "DONE", 2, 0),
        (BEGIN, END, "DONE", 2, 0),
    ]
    assert told(world) == [1, 1, 2, 1, 2]
    assert periods_told(world) == [
        "2026-08-01 00:00:00", "2026-09-01 00:00:00", "2026-10-01 00:00:00",
    ]  # fmt: skip
    assert run.counters["done"] == 3
    assert world.agent.run(task).changes == []


def test_a_host_without_any_audit_has_missed_none(world, task):
    add(world, 1)
    write_log(world, at("2026-08-01"), at("2026-09-01"), host="host2")
    world.agent.run(task)
    assert periods_told(world) == ["2026-10-01 00:00:00"]


@pytest.mark.parametrize(("catch_up_periods", "months"), [(0, 1), (1, 2), (3, 4), (100, 10)])
def test_catch_up_periods_bounds_how_many(world, task, catch_up_periods, months):
    world.agent.set(task.name, catch_up_periods=catch_up_periods)
    write_log(world, at("2025-12-01"), at("2026-01-01"))
    world.agent.run(task)
    begins = [row[0] for row in logs(world)[1:]]
    assert begins == [at(f"2026-{11 - n:02}-01") for n in range(months, 0, -1)]


def test_periods_that_were_audited_in_other_units_are_not_audited_again():
    periods = completed("day", at("2026-11-23 12:00"), 4)
    assert since(at("2026-11-21"), periods) == periods[2:]
    assert since(at("2026-11-20 13:00"), periods) == periods[2:]
    assert since(at("2026-01-01"), periods) == periods
    assert since(None, periods) == periods[3:]
    assert periods[3] == AuditPeriod(at("2026-11-22"), at("2026-11-23"))


def test_a_clock_that_was_ahead_for_a_while_stops_nothing(world, task):
    write_log(world, at("2031-01-01"), at("2031-02-01"))
    world.agent.run(task)
    assert logs(world)[1:] == [(BEGIN, END, "DONE", 0, 0)]


# Being killed, and being two.


def test_d11_an_audit_that_was_killed_is_finished_by_the_next_run(world, task, monkeypatch):
    add(world, *range(1, 3 * PAGE + 1))
    with monkeypatch.context() as patch:
        # Begun, two pages told of, the first of them recorded.
        steps = Steps(patch, FakeHypervisor, 4, more=[(FakeNotifier, ("send",))])
        with contextlib.suppress(Killed):
            world.agent.run(task)
    assert steps.taken == ["begin_audit", "send", "update_audit", "send", "update_audit"]
    assert [row[2] for row in logs(world)] == ["RUNNING"]
    run = world.agent.run(task)
    assert [(c.before, c.after, c.outcome) for c in run.changes] == [("RUNNING", "DONE", "done")]
    assert logs(world) == [(BEGIN, END, "DONE", 3 * PAGE, 0)]
    assert told(world) == list(range(1, 3 * PAGE + 1))
    assert world.notifier.repeated == PAGE


def test_killed_before_any_step_and_repeated_nobody_is_left_out_or_told_of_twice(tmp_path):
    for last in itertools.count():
        path = tmp_path / str(last)
        path.mkdir()
        world = make_world(path, "[notifications]\nnotification_format = both\n")
        task = world.agent.build(InstanceUsageAudit)
        add(world, *range(1, 2 * PAGE + 1))
        add(world, 2 * PAGE + 1, vcpus=None)
        write_log(world, at("2026-08-01"), at("2026-09-01"))
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, FakeHypervisor, last, more=[(FakeNotifier, ("send",))])
            with contextlib.suppress(Killed):
                world.agent.run(task)
        world.agent.run(task)
        items = 2 * PAGE + 1
        assert logs(world)[1:] == [
            (at("2026-09-01"), BEGIN, "DONE", items, 1), (BEGIN, END, "DONE", items, 1),
        ], steps.taken  # fmt: skip
        assert len(world.notifier.taken) == 2 * 2 * 2 * PAGE, steps.taken
        # The window: what was taken, but not yet recorded; a page at most.
        assert world.notifier.repeated in (0, 2, 2 * PAGE), steps.taken
        world.close()
        if not steps.killed:
            break
    # Of the last page nobody can be told of.
    assert last == 2 * len(["begin", "send", "save", "send", "save", "end"])


def test_the_ids_are_the_same_in_a_repetition_and_on_any_host(world):
    period = AuditPeriod(BEGIN, END)
    legacy, versioned = instance_exists.EVENTS.values()
    found = instance_exists.message_id(legacy, uuid_of(1), period)
    assert found == instance_exists.message_id(legacy, uuid_of(1), period)
    assert uuid.UUID(found).version == 5
    others = {
        instance_exists.message_id(versioned, uuid_of(1), period),
        instance_exists.message_id(legacy, uuid_of(2), period),
        instance_exists.message_id(legacy, uuid_of(1), AuditPeriod(END, at("2026-12-01"))),
    }
    assert len({found, *others}) == 4


def test_what_is_not_taken_waits_for_the_next_run_and_the_later_periods_with_it(world, task):
    add(world, *range(1, 2 * PAGE + 1))
    write_log(world, at("2026-08-01"), at("2026-09-01"))
    world.notifier.room = PAGE
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert "full" in run.changes[0].error
    assert [row[2] for row in logs(world)[1:]] == ["RUNNING"]
    assert world.agent.run(task).outcome == "partial"
    world.notifier.room = None
    assert world.agent.run(task).counters["done"] == 2
    assert [row[2:] for row in logs(world)[1:]] == [("DONE", 2 * PAGE, 0)] * 2
    assert len(told(world)) == 2 * 2 * PAGE
    assert world.notifier.repeated == 0


def test_an_instance_that_is_gone_when_the_audit_goes_on_loses_nobody(world, task):
    add(world, *range(1, 2 * PAGE + 1))
    world.notifier.room = PAGE
    world.agent.run(task)
    with world.engine.begin() as connection:  # archived meanwhile
        table = models.instances
        connection.execute(sa.delete(table).where(table.c.uuid == uuid_of(PAGE)))
    world.notifier.room = None
    world.agent.run(task)
    assert told(world) == list(range(1, 2 * PAGE + 1))
    assert logs(world) == [(BEGIN, END, "DONE", 2 * PAGE - 1, 0)]
    assert world.notifier.repeated == PAGE - 1


def second_agent(world, path):
    """Return an agent of the same name on another machine."""
    path.mkdir()
    settings = f"[database]\nconnection = {world.database.url}\n{LOG_DRIVER}"
    return equip(World(path, FakeHypervisor(), settings=settings, clock=world.clock))


def test_of_two_agents_that_find_nothing_begun_one_audits(tmp_path, world, task):
    add(world, 1)
    other = second_agent(world, tmp_path / "other")
    rival = other.agent.build(InstanceUsageAudit)
    count = world.database.count_audited

    def be_late(*arguments):
        other.agent.run(rival)
        return count(*arguments)

    world.database.count_audited = be_late
    run = world.agent.run(task)
    assert [change.outcome for change in run.changes] == ["raced"]
    assert (told(world), told(other)) == ([], [1])
    assert logs(world) == [(BEGIN, END, "DONE", 1, 0)]
    other.close()


def test_what_another_machine_has_begun_is_left_to_it_and_named_when_it_is_silent(
    tmp_path, world, task, caplog
):
    add(world, *range(1, PAGE + 2))
    other = second_agent(world, tmp_path / "other")
    other.notifier.room = PAGE
    other.agent.run(other.agent.build(InstanceUsageAudit))
    (row,) = world.rows(models.task_log)
    caplog.clear()
    for _ in range(2):
        assert world.agent.run(task).changes == []
    assert caplog.records == []
    world.clock.sleep(2 * HOUR)
    for _ in range(2):
        assert world.agent.run(task).changes == []
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert f"delete row {row.id} of task_log" in record.getMessage()
    assert told(world) == []
    # The operator follows; the ids are the same as the other's, so a consumer can tell.
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.task_log))
    world.agent.run(task)
    assert set(other.notifier.taken) < set(world.notifier.taken)
    other.close()


def test_it_ends_when_its_row_is_taken_away(world, task):
    add(world, *range(1, 2 * PAGE + 1))
    send = world.notifier.send

    def lose(notifications):
        send(notifications)
        with world.engine.begin() as connection:
            connection.execute(sa.delete(models.task_log))
        world.notifier.send = send

    world.notifier.send = lose
    run = world.agent.run(task)
    assert [change.outcome for change in run.changes] == ["raced"]
    assert (len(told(world)), logs(world)) == (PAGE, [])


@pytest.mark.parametrize("last", ["", uuid_of(1)])
def test_progress_is_read_back_as_it_was_written(last):
    progress = Progress("req-1", 12, 3, last)
    text = progress.message()
    assert text.startswith(STARTED)
    assert len(text) <= MESSAGE_LENGTH
    assert Progress.of(AuditLog(1, "RUNNING", BEGIN, END, text, None, None)) == progress


# Cost, sources that fail, the dry run.


@pytest.mark.parametrize("number", [10, 1000])
def test_a_pass_with_nothing_due_is_one_statement_whatever_the_number(tmp_path, number):
    world = make_world(tmp_path)
    add(world, *range(1, number + 1))
    task = world.agent.build(InstanceUsageAudit)
    world.agent.run(task)
    world.database.statements.clear()
    assert world.agent.run(task).changes == []
    assert (world.statements(), world.database.statements["SELECT"]) == (1, 1)
    assert world.hypervisor.calls.total() == 0
    world.close()


@pytest.mark.parametrize(
    ("number", "statements"), [(10, 6 + 6), (PAGE + 10, 6 + 7 + 6), (5 * PAGE, 7 + 5 * 7)]
)
def test_an_audit_costs_seven_statements_a_page(tmp_path, number, statements):
    world = make_world(tmp_path)
    add(world, *range(1, number + 1))
    world.agent.run(world.agent.build(InstanceUsageAudit))
    assert world.statements() == statements
    world.close()


def test_a_database_that_does_not_answer_ends_the_pass(world, task):
    with world.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE task_log"))
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])


def test_a_database_that_goes_away_in_the_middle_leaves_the_rest_for_the_next_run(world, task):
    add(world, 1)
    with world.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE bw_usage_cache RENAME TO away"))
    run = world.agent.run(task)
    assert [change.outcome for change in run.changes] == ["failed"]
    assert [row[2] for row in logs(world)] == ["RUNNING"]
    with world.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO bw_usage_cache"))
    world.agent.run(task)
    assert (told(world), logs(world)) == ([1], [(BEGIN, END, "DONE", 1, 0)])


def test_the_dry_run_says_how_many_and_changes_nothing(world, task):
    add(world, 1, 2, 3)
    write_log(world, at("2026-08-01"), at("2026-09-01"))
    before = logs(world)
    run = world.agent.run(task, dry_run=True)
    assert [(c.outcome, c.reason) for c in run.changes] == [
        ("planned", "2026-09-01 00:00 to 2026-10-01 00:00 UTC: 3 instances"),
        ("planned", "2026-10-01 00:00 to 2026-11-01 00:00 UTC: 3 instances"),
    ]
    assert (logs(world), told(world)) == (before, [])
