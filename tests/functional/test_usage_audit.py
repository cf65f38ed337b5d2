# SPDX-License-Identifier: Apache-2.0
"""Usage audits on three databases: in processes that race or are killed, and of many instances."""

import datetime
import itertools
import json
import os
from collections import Counter

import pytest
import sqlalchemy as sa

from cepheid_plugins.compute.audit_periods import AuditPeriod
from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.records import NewInstance
from tests.functional import audits
from tests.functional.agents import Installation
from tests.functional.inventories import add_many, rows
from tests.worlds import uuid_of

pytestmark = pytest.mark.functional

ALWAYS = datetime.datetime(2020, 1, 1)
PERIOD = AuditPeriod(datetime.datetime(2026, 10, 1), datetime.datetime(2026, 11, 1))
SIZES = {"vcpus": 1, "memory_mb": 512}
SECOND = datetime.timedelta(seconds=1)

ROUNDS = 25


def numbers_of(found):
    return [int(one.facts.columns["uuid"][-4:], 16) for one in found]


def test_pages_hold_each_instance_of_the_period_once_by_project_and_uuid(database, engine):
    begin, end = PERIOD
    projects = (None, "b", "", "a")
    for remainder, project in enumerate(projects):
        numbers = range(remainder, 40, len(projects))
        add_many(engine, numbers, project_id=project, launched_at=ALWAYS, user_data="x" * 1000)
    others = [
        {"launched_at": None},
        {"launched_at": end},
        {"launched_at": ALWAYS, "terminated_at": begin},
        {"launched_at": ALWAYS, "deleted": 1, "deleted_at": begin},
        {"launched_at": ALWAYS, "hidden": True},
        {"launched_at": ALWAYS, "host": "host2"},
    ]
    for number, columns in enumerate(others, start=100):
        add_many(engine, [number], **columns)
    ended = [
        {"terminated_at": begin + SECOND},
        {"deleted": 1, "deleted_at": begin + SECOND},
        {"deleted": 1, "terminated_at": begin + SECOND, "deleted_at": None},
        {"launched_at": end - SECOND, "hidden": False},
    ]
    for number, columns in enumerate(ended, start=40):
        add_many(engine, [number], **{"launched_at": ALWAYS, "project_id": "c", **columns})

    found, after = [], None
    while page := database.audited_instances("host1", PERIOD, after, 7, True):
        found += numbers_of(page)
        after = database.place_of_audited(page[-1].facts.columns["uuid"])
    projects = {n: projects[n % 4] if n < 40 else "c" for n in range(44)}
    assert found == sorted(range(44), key=lambda n: (projects[n] or "", n))
    assert database.count_audited("host1", PERIOD) == 44
    assert database.place_of_audited(uuid_of(999)) is None


def test_what_hangs_on_instances_comes_with_them(database, engine):
    add_many(engine, [1], launched_at=ALWAYS)
    new = NewInstance(uuid_of(1), "guest", "host1", "node1", "active", 1, 1, 512, 10)
    begin, end = PERIOD
    hanging = {
        models.instance_extra: {"flavor": flavors.of_new(new)},
        models.instance_info_caches: {"network_info": "[]"},
        models.instance_metadata: {"key": "role", "value": "web"},
        models.instance_system_metadata: {"key": "image_os", "value": "debian"},
        models.block_device_mapping: {"volume_id": "volume-1", "delete_on_termination": True},
    }
    with engine.begin() as connection:
        for table, values in hanging.items():
            connection.execute(
                sa.insert(table).values(instance_uuid=uuid_of(1), deleted=0, **values)
            )
        for start, counted in ((begin, 2**40), (end, 7)):
            connection.execute(
                sa.insert(models.bw_usage_cache).values(
                    uuid=uuid_of(1), mac="fa:16:3e:00:00:01", start_period=start, bw_in=counted
                )
            )
    (found,) = database.audited_instances("host1", PERIOD, None, 10, True)
    assert (found.facts.flavor["memory_mb"], found.network_info) == (512, "[]")
    assert found.facts.metadata == {"role": "web"}
    assert found.facts.system_metadata == {"image_os": "debian"}
    assert [(u.mac, u.bw_in, u.bw_out) for u in found.bandwidth] == [
        ("fa:16:3e:00:00:01", 2**40, 0)
    ]
    assert [(d.volume_id, d.delete_on_termination) for d in found.devices] == [("volume-1", True)]


def test_the_row_is_the_lock_and_only_who_holds_it_writes(database, engine):
    begin, end = PERIOD
    assert database.begin_audit("host1", PERIOD, "one", 5)
    assert not database.begin_audit("host1", PERIOD, "two", 6)
    assert database.begin_audit("host2", PERIOD, "two", 6)
    assert database.begin_audit("host1", AuditPeriod(end, end + SECOND), "later", 7)
    assert not database.update_audit("host1", PERIOD, "two", "three", 1)
    assert database.update_audit("host1", PERIOD, "one", "three", 1)
    assert database.update_audit("host1", PERIOD, "three", "three", 1)  # written, if not changed
    log, later = database.audit_logs("host1", begin)
    assert (log.message, log.state, later.message) == ("three", "RUNNING", "later")
    assert database.audit_history("host1", end) == ([log, later], end)
    assert database.end_audit("host1", PERIOD, "three", "done", 9, 2)
    assert not database.end_audit("host1", PERIOD, "done", "again", 9, 2)
    assert not database.update_audit("host1", PERIOD, "done", "again", 2)
    assert database.audit_logs("host1", begin + SECOND) == [later]
    assert database.audit_history("host1", begin) == ([later], None)
    row = rows(engine, models.task_log)[0]
    assert (row.state, row.message, row.task_items, row.errors) == ("DONE", "done", 9, 2)


def test_of_two_agents_of_one_name_exactly_one_audits_each_period(tmp_path, url, database, engine):
    add_many(engine, range(1, 6), launched_at=ALWAYS, **SIZES)
    paths = [tmp_path / "one", tmp_path / "two"]
    audits.race(paths, url, "host1", ROUNDS)
    logs = rows(engine, models.task_log)
    assert [(row.state, row.task_items, row.errors) for row in logs] == [("DONE", 5, 0)] * ROUNDS
    told = [
        Counter(
            one.payload["audit_period_beginning"] for one in audits.notifier(path).taken.values()
        )
        for path in paths
    ]
    assert not told[0].keys() & told[1].keys()
    assert told[0] | told[1] == {str(row.period_beginning): 5 for row in logs}


def test_killed_between_any_two_steps_nobody_is_left_out_or_told_of_twice(
    tmp_path, url, database, engine
):
    # As if nothing had been killed.
    steps = ["begin", *["send", "record"] * 2, "send", "end"]
    for last in itertools.count():
        host, path = f"host-{last}", tmp_path / str(last)
        numbers = range(100 * last + 1, 100 * last + 2 * audits.PAGE + 2)
        add_many(engine, numbers, launched_at=ALWAYS, host=host, **SIZES)
        killed = audits.run(path, url, host, last)
        if killed:
            logs = [row.state for row in rows(engine, models.task_log) if row.host == host]
            assert logs == ["RUNNING"] * (last > 0)
            assert not audits.run(path, url, host)
        (log,) = [row for row in rows(engine, models.task_log) if row.host == host]
        assert (log.state, log.task_items, log.errors) == ("DONE", len(numbers), 0)
        told = [one.payload["instance_id"] for one in audits.notifier(path).taken.values()]
        assert told == [uuid_of(number) for number in numbers]
        if not killed:
            break
    assert last == len(steps)


def fill(engine, numbers):
    """Insert instances as they are in life: with a flavor, networks and metadata."""
    new = NewInstance(uuid_of(1), "guest", "host1", "node1", "active", 1, 1, 512, 10)
    network = [{"address": "fa:16:3e:00:00:01", "network": {"label": "x" * 1000}}]
    add_many(engine, numbers, launched_at=ALWAYS, user_data="x" * 10_000, **SIZES)
    hanging = [
        (models.instance_extra, {"flavor": flavors.of_new(new)}),
        (models.instance_info_caches, {"network_info": json.dumps(network)}),
        *((models.instance_system_metadata, {"key": f"image_{n}", "value": "x"}) for n in range(7)),
    ]
    with engine.begin() as connection:
        for table, values in hanging:
            connection.execute(
                sa.insert(table),
                [{"instance_uuid": uuid_of(n), "deleted": 0, **values} for n in numbers],
            )


def peak_kib(path, url):
    """Let an agent's command audit, in a process of its own; return the most memory it had."""
    path.mkdir()
    connection = url.render_as_string(hide_password=False)
    installation = Installation(
        path,
        f"[database]\nconnection = {connection}\n[oslo_messaging_notifications]\ndriver = log\n"
        "[notifications]\nnotification_format = both\n",
    )
    process = installation.popen("task", "run", "instance_usage_audit")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, installation.read_log()[-2000:]
    return usage.ru_maxrss


@pytest.mark.timeout(900)
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_ten_thousand_instances_take_as_much_memory_as_a_thousand(tmp_path, url, database, engine):
    peaks = {}
    for known, number in ((0, 1000), (1000, 10_000)):
        fill(engine, range(known + 1, number + 1))
        peaks[number] = peak_kib(tmp_path / str(number), url)
        (log,) = rows(engine, models.task_log)
        assert (log.state, log.task_items, log.errors) == ("DONE", number, 0)
        with engine.begin() as connection:
            connection.execute(sa.delete(models.task_log))
    print(f"peak resident set, KiB: {peaks}")
    assert peaks[10_000] - peaks[1000] < 16 * 1024
