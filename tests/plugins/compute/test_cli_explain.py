# SPDX-License-Identifier: Apache-2.0
"""``cepheid explain`` as an operator meets it, with and without a running agent."""

import contextlib
import hashlib
import json
import sqlite3

import pytest

from tests.functional.agents import Installation
from tests.worlds import node_xml, uuid_of

RUNNING, SHUTDOWN = 1, 4

pytestmark = pytest.mark.process


def make(path):
    """Return a host on libvirt's test driver with two guests in its inventory, one of them off."""
    (path / "node.xml").write_text(node_xml([RUNNING, SHUTDOWN]))
    host = Installation(
        path,
        f"[hypervisor]\nuri = test:///{path}/node.xml\n"
        f"[compute]\ninstances_path = {path}/instances\n",
    )
    host.run("db", "sync")
    host.run("host", "adopt")
    with contextlib.closing(sqlite3.connect(path / "cepheid.sqlite")) as connection, connection:
        connection.execute("UPDATE instances SET vm_state = 'active' WHERE uuid = ?", [uuid_of(1)])
    return host


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A host whose tasks have not run yet."""
    return make(tmp_path_factory.mktemp("host"))


@pytest.fixture
def busy(tmp_path):
    """A host whose agent runs."""
    host = make(tmp_path)
    host.start_agent()
    yield host
    host.close()


def explained(host, *words):
    return json.loads(host.run("explain", *words, "-f", "json").stdout)


def task(found, name):
    return next(one for one in found["tasks"] if one["task"] == name)


def test_the_page_says_what_the_instance_is_and_what_each_task_would_do(host):
    page = host.run("explain", "guest-1").stdout
    assert page.startswith("guest-1, an instance\n")
    assert "stop: active → stopped" in page
    assert "Do nothing at all:\n" in page
    assert "nothing is reclaimed (reclaim_instance_interval = 0)" in page
    assert "No agent runs here" in page


def test_every_bundled_task_explains_itself(host):
    tasks = explained(host, "guest-0")["tasks"]
    assert len(tasks) == 17
    assert [one["task"] for one in tasks if not one["explains_itself"]] == []


def test_one_task_alone_can_be_asked(host):
    found = explained(host, "guest-1", "--task", "sync_power_states")
    assert [one["task"] for one in found["tasks"]] == ["sync_power_states"]
    done = host.run("explain", "guest-1", "--task", "sync", check=False)
    assert done.returncode == 1
    assert "There is no task 'sync'" in done.stderr


@pytest.mark.parametrize("words", [["nobody"], ["ce"], [""]])
def test_what_is_not_to_be_found_is_one_line(host, words):
    done = host.run("explain", *words, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_a_task_did_and_when_it_runs_next_comes_from_journal_and_agent(busy):
    busy.run("task", "run", "sync_power_states")
    found = task(explained(busy, "guest-1"), "sync_power_states")
    assert found["last_change"]["outcome"] == "done"
    assert found["next_run_seconds"] > 0
    assert found["comes_to"] == "leaves"
    busy.run("pause", "sync_power_states", "--for", "2h", "--reason", "new switch")
    assert "new switch" in task(explained(busy, "guest-1"), "sync_power_states")["notes"][0]
    assert busy.stop_agent() == 0


def test_nothing_on_the_host_is_touched(host):
    def everything():
        return {
            path.relative_to(host.path): (path.stat().st_mtime_ns, digest(path))
            for path in host.path.rglob("*")
            if path.is_file()
        }

    host.run("task", "run", "sync_power_states", "--dry-run")
    before = everything()
    host.run("explain", "guest-1")
    host.run("explain", f"{host.path}/instances/{uuid_of(1)}")
    assert everything() == before


def test_where_there_is_no_journal_none_is_made(host):
    (host.path / "cepheid-journal.sqlite").unlink()
    host.run("explain", "guest-1")
    assert not (host.path / "cepheid-journal.sqlite").exists()


def test_where_there_is_no_outbox_none_is_made(tmp_path):
    host = make(tmp_path)
    with host.conf.open("a") as conf:
        conf.write("[oslo_messaging_notifications]\ndriver = messagingv2\n")
    before = sorted(tmp_path.rglob("*"))
    assert task(explained(host, "guest-1"), "poll_volume_usage")["state"] == "enabled"
    assert sorted(tmp_path.rglob("*")) == before


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
