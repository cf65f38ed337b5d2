# SPDX-License-Identifier: Apache-2.0
"""The task: what each device carried, and what of it is written when."""

import datetime
import sqlite3

import pytest
from acme_bandwidth.poll_bandwidth_usage import carried_since
from acme_bandwidth.tap_devices import Traffic

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def task(host):
    return host.agent("poll_bandwidth_usage").load_task("poll_bandwidth_usage")


def hours(host):
    """Return what is on record: (hour, device, in, out)."""
    with sqlite3.connect(host.path / "acme-traffic.sqlite") as connection:
        return connection.execute("SELECT * FROM traffic ORDER BY hour, device").fetchall()


@pytest.mark.parametrize(
    ("last", "now", "carried"),
    [
        ({}, (100, 200), (0, 0)),  # the first time of all
        ({"tap1": (100, 200)}, (150, 260), (50, 60)),
        ({"tap1": (100, 200)}, (100, 200), (0, 0)),
        ({"tap1": (100, 200)}, (40, 300), (40, 300)),  # made anew
        ({"tap1": (100, 200)}, (300, 40), (300, 40)),
        ({"tap2": (1, 1)}, (100, 200), (100, 200)),  # new
    ],
)
def test_what_a_device_has_carried_since_the_last_time(last, now, carried):
    before = {name: Traffic(*counters) for name, counters in last.items()}
    assert carried_since(before, {"tap1": Traffic(*now)}) == {"tap1": Traffic(*carried)}


def test_traffic_is_added_up_per_hour_and_device(host, task):
    for received, sent in ((10, 1), (20, 3), (50, 7)):
        host.set_devices(tap1=(received, sent), eth0=(received, sent))
        assert task.run_now("test").outcome == "ok"
    host.now += HOUR
    host.set_devices(tap1=(51, 7))
    task.run_now("test")
    assert hours(host) == [
        ("2026-11-23T12:00Z", "tap1", 6, 40),
        ("2026-11-23T13:00Z", "tap1", 0, 1),
    ]


def test_one_change_says_how_much_it_was_and_none_is_made_where_nothing_moved(host, task):
    host.set_devices(tap1=(10, 1), vnet0=(0, 0))
    task.run_now("test")
    host.set_devices(tap1=(20, 3), vnet0=(5, 0))
    (change,) = task.run_now("test").changes
    assert (change.kind, change.after, change.outcome) == ("traffic", "17 bytes", "done")
    assert change.reason == "by 2 of the devices, in the hour 2026-11-23T12:00Z"
    assert task.run_now("test").changes == []


@pytest.mark.parametrize("number", [10, 1000])
def test_where_nothing_moved_one_statement_is_made_whatever_the_number_of_devices(
    host, task, monkeypatch, number
):
    host.set_devices(**{f"tap{n}": (n, n) for n in range(number)})
    assert task.run_now("test").counters["devices"] == number
    statements = []
    connect = sqlite3.connect

    def traced(path):
        connection = connect(path)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    task.run_now("test")
    assert [statement.split()[0] for statement in statements] == ["SELECT"]


def test_a_dry_run_plans_and_writes_nothing(host, task):
    host.set_devices(tap1=(10, 1))
    (change,) = task.run_now("test", dry_run=True).changes
    assert change.outcome == "planned"
    assert not (host.path / "acme-traffic.sqlite").exists()


def test_a_device_that_is_missing_for_a_while_goes_on_where_it_was(host, task):
    for devices in ({"tap1": (10, 1), "tap2": (1, 1)}, {"tap2": (1, 1)}, {"tap1": (15, 1)}):
        host.set_devices(**devices)
        task.run_now("test")
    assert hours(host)[0] == ("2026-11-23T12:00Z", "tap1", 0, 5)


def test_a_malformed_line_is_skipped_and_counted_when_it_is_whole_again(host, task):
    host.set_devices(tap1=(10, 1))
    task.run_now("test")
    host.set_devices("tap1: 1", tap2=(3, 3))
    run = task.run_now("test")
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    host.set_devices(tap1=(30, 1), tap2=(3, 3))
    task.run_now("test")
    assert [row[1:] for row in hours(host)] == [("tap1", 0, 20), ("tap2", 3, 3)]


def test_a_file_that_cannot_be_read_fails_the_run_and_changes_nothing(host, task):
    host.devices.write_text("")
    run = task.run_now("test")
    assert run.outcome == "failed"
    assert str(host.devices) in run.error
    (host.path / "acme-traffic.sqlite").write_text("no database")
    run = task.run_now("test")
    assert "acme-traffic.sqlite cannot be used: file is not a database" in run.error


def test_what_fails_in_the_middle_is_counted_once_at_the_next_run(host, task):
    host.set_devices(tap1=(10, 1))
    task.run_now("test")
    with sqlite3.connect(host.path / "acme-traffic.sqlite") as connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON counters BEGIN SELECT RAISE(FAIL, 'no'); END"
        )
    host.set_devices(tap1=(30, 1))
    assert task.run_now("test").counters["failed"] == 1
    with sqlite3.connect(host.path / "acme-traffic.sqlite") as connection:
        connection.execute("DROP TRIGGER broken")
    task.run_now("test")
    assert hours(host) == [("2026-11-23T12:00Z", "tap1", 0, 20)]
