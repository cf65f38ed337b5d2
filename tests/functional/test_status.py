# SPDX-License-Identifier: Apache-2.0
"""What an agent says of itself while real servers behind it go and come back."""

import os
import re
import signal

import pytest

from tests.functional import servers
from tests.functional.agents import Installation
from tests.functional.processes import wait_until
from tests.functional.status_pages import StatusServer

pytestmark = pytest.mark.functional

MODES = ("threading", "eventlet")

SETTINGS = """
concurrency = {mode}
enabled_tasks = update_available_resource, sync_power_states
[hypervisor]
uri = {uri}
call_timeout = 2
[compute]
instances_path = {path}/instances
[status]
enabled = true
port = 0
[update_available_resource]
spacing = 1
"""


@pytest.fixture
def start(tmp_path):
    """Start an agent; return it and its server."""
    started = []

    def start(mode, uri, settings=""):
        agent = Installation(tmp_path, SETTINGS.format(mode=mode, uri=uri, path=tmp_path))
        with agent.conf.open("a") as file:
            file.write(settings)
        agent.environment = {**os.environ}
        agent.environment.pop("CEPHEID_TEST_CONCURRENCY", None)
        started.append(agent)
        agent.run("db", "sync")
        agent.start_agent()
        return agent, StatusServer(tmp_path, agent.log)

    yield start
    for agent in started:
        agent.close()


def value(server, name):
    """Return the sum of a metric's samples."""
    text = server.get("/metrics").text
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(number) for number in found)


@pytest.mark.parametrize("mode", MODES)
def test_a_hypervisor_that_dies_and_comes_back(start, libvirtd, mode):
    agent, server = start(mode, libvirtd.uri)
    wait_until(lambda: value(server, "cepheid_host_vcpus") > 0, agent.read_log)
    assert server.get("/readyz").status == 200
    libvirtd.kill()
    try:
        wait_until(lambda: server.checks()["hypervisor"][0] == "failed", agent.read_log)
        ready = server.get("/readyz")
        assert ready.status == 503
        assert "does not answer" in ready.text
        assert server.checks()["database"][0] == "ok"
        assert value(server, "cepheid_ready") == 0
        wait_until(lambda: value(server, "cepheid_run_last_failed") == 1, agent.read_log)
        points = server.get("/overview.json").json["health"]["points"]
        assert any(point["text"].startswith("hypervisor: ") for point in points)
    finally:
        libvirtd.start()
    wait_until(lambda: server.get("/readyz").status == 200, agent.read_log)
    wait_until(lambda: value(server, "cepheid_run_last_failed") == 0, agent.read_log)
    assert agent.stop_agent() == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_hypervisor_that_hangs(start, libvirtd, mode):
    agent, server = start(mode, libvirtd.uri)
    wait_until(lambda: value(server, "cepheid_host_vcpus") > 0, agent.read_log)
    libvirtd.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: server.checks()["hypervisor"][0] == "failed", agent.read_log)
        assert "did not return within 2 seconds" in server.checks()["hypervisor"][1]
        wait_until(lambda: server.checks()["native_calls"][0] == "warning", agent.read_log)
        assert value(server, "cepheid_native_calls_hanging") >= 1
        assert value(server, "cepheid_native_calls_abandoned_total") >= 1
        assert server.get("/healthz").status == 200
        assert server.checks()["timers"][0] == "ok"
    finally:
        libvirtd.signal(signal.SIGCONT)
    wait_until(lambda: server.get("/readyz").status == 200, agent.read_log)
    wait_until(lambda: value(server, "cepheid_native_calls_hanging") == 0, agent.read_log)
    assert agent.stop_agent() == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_hypervisor_that_dies_while_no_task_asks_it(start, libvirtd, mode):
    agent, server = start(mode, libvirtd.uri, "[sync_power_states]\nspacing = 3600\n")
    wait_until(lambda: value(server, "cepheid_host_vcpus") > 0, agent.read_log)
    agent.run("pause", "update_available_resource", "--for", "1h")
    libvirtd.kill()
    try:
        assert server.run("sync_power_states").status == 200
        assert server.checks()["hypervisor"][0] == "failed"
    finally:
        libvirtd.start()
    # No task runs any more; the agent's own call tells.
    wait_until(lambda: server.checks()["hypervisor"][0] == "ok", agent.read_log)
    assert agent.stop_agent() == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_database_that_goes(start, mode, kind):
    with getattr(servers, kind)() as url:
        database = servers.new_database(url, "cepheid_test")
        connection = database.render_as_string(hide_password=False)
        agent, server = start(mode, "test:///default", f"[database]\nconnection = {connection}\n")
        wait_until(lambda: value(server, "cepheid_host_vcpus") > 0, agent.read_log)
        assert server.get("/readyz").status == 200
    wait_until(lambda: server.checks()["database"][0] == "failed", agent.read_log)
    assert "does not answer" in server.checks()["database"][1]
    assert server.checks()["hypervisor"][0] == "ok"
    assert server.get("/healthz").status == 200


@pytest.mark.parametrize("mode", MODES)
def test_a_scrape_asks_nobody(start, libvirtd, mode):
    agent, server = start(mode, libvirtd.uri, "[sync_power_states]\nspacing = 3600\n")
    wait_until(lambda: value(server, "cepheid_host_vcpus") > 0, agent.read_log)
    agent.run("pause", "update_available_resource", "--for", "1h")
    wait_until(lambda: value(server, "cepheid_task_running") == 0, agent.read_log)
    before = value(server, "cepheid_driver_call_duration_seconds_count")
    assert before > 0
    for path in ("/", "/overview.json", "/healthz", "/readyz", "/metrics") * 5:
        server.get(path)
    assert value(server, "cepheid_driver_call_duration_seconds_count") == before
