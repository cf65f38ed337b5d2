# SPDX-License-Identifier: Apache-2.0
"""``cepheid explain`` beside an agent, of real guests, real domains and the files they stand on."""

import json
import os
import sqlite3

import pytest

from tests.functional.processes import require
from tests.functional.test_image_cache import ASIDE, GARBAGE, CacheHost, name

pytestmark = pytest.mark.functional

TASK = "run_image_cache_manager_pass"


@pytest.fixture
def host(libvirtd, tmp_path):
    require("unshare")
    if os.geteuid() != 0:
        pytest.fail("who has files open is root's to know; run this as root")
    host = CacheHost(libvirtd, tmp_path)
    host.add("adopted")
    yield host
    host.close()


def explained(host, thing, task):
    """Return what a task says of a thing: the verdicts."""
    done = host.cepheid("explain", str(thing), "--task", task, "-f", "json")
    return json.loads(done.stdout)["tasks"][0]["verdicts"]


def everything(host):
    """Return what is on the host: files with their times, domains with their definitions."""
    files = {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino)
        for path in (*host.instances.rglob("*"), *host.shelved.rglob("*"))
    }
    domains = {d.UUIDString(): (d.state(), d.XMLDesc()) for d in host.connection.listAllDomains()}
    path = host.installation.path / "cepheid.sqlite"
    with sqlite3.connect(path) as connection:
        rows = list(connection.iterdump())
    connection.close()
    return files, domains, rows


def test_what_is_said_of_a_base_image_is_what_the_pass_then_does(host):
    used = host.file(name("used"))
    uuid = host.guest("stands", used)
    garbage = host.file(GARBAGE)
    before = everything(host)
    (of_used,) = explained(host, used, TASK)
    (of_garbage,) = explained(host, garbage, TASK)
    of_guest = explained(host, uuid, TASK)
    (of_other,) = explained(host, host.instances / uuid / "disk", TASK)
    assert everything(host) == before

    assert of_used["verdict"] == "leaves"
    assert f"{uuid}/disk" in of_used["text"]
    assert any("process " in owner for owner in of_used["evidence"]["users"])
    assert (of_garbage["verdict"], of_garbage["evidence"]["change"]) == ("acts", "set_aside")
    assert any(used.name in verdict["text"] for verdict in of_guest)
    assert used.name in of_other["text"]

    host.run_pass()
    assert (host.names(), host.aside()) == ([used.name], [garbage.name])
    (waiting,) = (path for path in (host.base / ASIDE).iterdir())
    (of_waiting,) = explained(host, waiting, TASK)
    assert of_waiting["rule"].startswith("removed_retention_seconds = ")
    assert of_waiting["changes_at"]


def test_what_is_said_of_a_guest_is_what_the_agent_then_does(host):
    uuid = host.add("switched-off")
    host.domain(uuid).destroy()
    before = everything(host)
    said = explained(host, "cepheid-test-switched-off", "sync_power_states")
    page = host.cepheid("explain", uuid[:18]).stdout
    assert everything(host) == before
    assert [verdict["evidence"]["change"] for verdict in said] == ["power_state", "stop"]
    assert "stop: active → stopped" in page

    host.installation.start_agent()
    host.cepheid("task", "run", "sync_power_states")
    assert host.states(uuid) == ("stopped", None, 4)
    page = host.cepheid("explain", uuid).stdout
    assert "last change of it: stop active → stopped" in page
    assert "next run in " in page
    assert host.installation.stop_agent() == 0
