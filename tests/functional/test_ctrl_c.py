# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of a deletion of many instances, typed at the real command."""

import contextlib
import signal
import sqlite3
from collections import Counter

import pytest

from tests.functional.agents import Installation
from tests.functional.processes import PATIENCE_SECONDS, wait_until
from tests.worlds import node_xml, uuid_of

SHUTDOWN = 4
UUIDS = [uuid_of(number) for number in range(60)]
FILES = 100

pytestmark = pytest.mark.process


@pytest.fixture
def host(tmp_path):
    (tmp_path / "node.xml").write_text(node_xml([SHUTDOWN] * len(UUIDS)))
    host = Installation(tmp_path, f"[hypervisor]\nuri = test:///{tmp_path}/node.xml\n")
    host.run("db", "sync")
    host.run("host", "adopt")
    for uuid in UUIDS:
        (tmp_path / "instances" / uuid).mkdir()
        for number in range(FILES):
            (tmp_path / "instances" / uuid / f"file-{number}").touch()
    return host


def left(host):
    return {path.name for path in (host.path / "instances").iterdir()} & set(UUIDS)


def read(host, name, query):
    with contextlib.closing(sqlite3.connect(host.path / name)) as connection:
        return connection.execute(query).fetchall()


def test_each_instance_is_deleted_or_half_way_and_claimed_or_as_it_was(host):
    command = host.popen("instance", "delete", "--yes", *UUIDS)
    wait_until(lambda: len(left(host)) <= len(UUIDS) - 5 or command.poll() is not None)
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_SECONDS) != 0
    found = read(
        host, "cepheid.sqlite", "SELECT uuid, vm_state, task_state, deleted, cleaned FROM instances"
    )
    rows = {uuid: (vm_state, task, bool(deleted)) for uuid, vm_state, task, deleted, _ in found}
    counts = Counter(rows.values())
    gone, half_way, as_it_was = (
        ("deleted", None, True),
        ("stopped", "deleting", False),
        ("stopped", None, False),
    )
    assert set(counts) <= {gone, half_way, as_it_was}
    assert counts[gone] >= 4
    assert counts[half_way] <= 1
    complete = {
        path.name
        for path in (host.path / "instances").iterdir()
        if path.name in UUIDS and len(list(path.iterdir())) == FILES
    }
    assert {uuid for uuid, state in rows.items() if state == as_it_was} <= complete
    # What was not removed yet of those that are deleted is removed by run_pending_deletes.
    cleaned = {uuid for uuid, *_, is_cleaned in found if is_cleaned}
    assert cleaned <= {uuid for uuid, state in rows.items() if state == gone}
    assert cleaned.isdisjoint(left(host))
    changes = dict(
        read(
            host,
            "cepheid-journal.sqlite",
            "SELECT changes.outcome, count(*) FROM changes JOIN runs ON runs.id = run_id"
            " WHERE task = 'instance_delete' GROUP BY changes.outcome",
        )
    )
    expected = {"done": gone, "unknown": half_way, "failed": as_it_was}
    assert changes == {name: counts[state] for name, state in expected.items() if counts[state]}
