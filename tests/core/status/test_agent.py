# SPDX-License-Identifier: Apache-2.0
"""An agent that answers HTTP, as a process, in both concurrency modes."""

import os
import signal
import sqlite3

import pytest

from tests.functional.agents import Installation
from tests.functional.processes import wait_until
from tests.functional.status_pages import StatusServer

pytestmark = pytest.mark.process

MODES = ("threading", "eventlet")

QUICK = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Change one thing."""

    @periodic_task(spacing=3600)
    def quick(self, context):
        context.change("thing", target="it", before=0, after=1, do=lambda: None)
'''

#: Blocks the interpreter's main thread in a native call for as long as a file is there: with green
#: threads, it blocks them all.
BLOCKING = '''
import ctypes, os
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Block the hub while a file is there."""

    @periodic_task(spacing=1, run_immediately=True)
    def blocking(self, context):
        while os.path.exists(self.agent.state_path / "block"):
            ctypes.CDLL(None).usleep(100000)
'''

#: Runs for as long as a file is there.
LONG = '''
import os, time
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Run while a file is there."""

    time_limit = 1

    @periodic_task(spacing=3600)
    def long(self, context):
        while os.path.exists(self.agent.state_path / "go-on"):
            time.sleep(0.05)
'''


@pytest.fixture
def start(tmp_path, distributions):
    """Start an agent with the tasks that were added; return it and its server."""
    state = tmp_path / "state"
    state.mkdir()
    installation = Installation(state, "")

    def start(mode, settings="", expect_refusal=False):
        installation.conf.write_text(
            f"[DEFAULT]\nstate_path = {state}\nhost = host1\nperiodic_fuzzy_delay = 0\n"
            f"log_file = {installation.log}\nconcurrency = {mode}\nenabled_tasks = *\n"
            f"disabled_tasks = bundled\n[status]\nenabled = true\n{settings}"
            f"{'' if 'port' in settings else 'port = 0'}"
        )
        installation.environment = {**os.environ, "PYTHONPATH": str(distributions.path)}
        installation.environment.pop("CEPHEID_TEST_CONCURRENCY", None)
        if expect_refusal:
            return installation.run("agent", check=False)
        installation.start_agent()
        return installation, StatusServer(state, installation.log)

    yield start
    installation.close()


def outcomes(agent):
    return [row["Outcome"] for row in agent.rows("task", "history", "quick")]


@pytest.mark.parametrize("mode", MODES)
def test_answers_what_an_agent_is_asked(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK)
    agent, server = start(mode)
    assert (server.get("/healthz").status, server.get("/healthz").text) == (200, "alive\n")
    ready = server.get("/readyz")
    assert (ready.status, ready.text.splitlines()[0]) == (200, "ready")
    assert server.get("/readyz", Accept="application/json").json["ready"] is True
    assert [task["name"] for task in server.get("/overview.json").json["tasks"]]
    assert agent.stop_agent() == 0


@pytest.mark.parametrize("mode", MODES)
def test_runs_a_task_for_whoever_has_the_token(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK)
    agent, server = start(mode)
    dry = server.run("quick", dry_run=True)
    assert (dry.status, dry.json["run"]["changes"][0]["outcome"]) == (200, "planned")
    done = server.run("quick")
    assert (done.status, done.json["state"], done.json["run"]["outcome"]) == (200, "ended", "ok")
    assert done.json["run"]["changes"][0]["outcome"] == "done"
    assert server.run("no_such_task").status == 404
    assert server.run("quick", token="a-wrong-one-of-some-length").status == 401
    agent.run("pause", "quick", "--for", "1h", "--reason", "a test")
    refused = server.run("quick")
    assert (refused.status, "a test" in refused.json["error"]) == (409, True)
    assert outcomes(agent) == ["ok (dry run)", "ok", "pause"]
    assert server.token not in agent.read_log()


@pytest.mark.parametrize("mode", MODES)
def test_a_long_run_goes_on_and_a_second_is_refused(start, distributions, mode):
    distributions.add_task("acme-long", "long", LONG)
    agent, server = start(mode)
    (agent.path / "go-on").touch()
    begun = server.run("long")
    assert (begun.status, begun.json["state"], begun.json["run"]["task"]) == (
        202,
        "running",
        "long",
    )
    assert server.run("long").status == 409
    state, why = server.checks()["runs"]
    assert (state, "its time_limit is 1 s" in why) == ("failed", True)
    (agent.path / "go-on").unlink()
    wait_until(lambda: server.checks()["runs"][0] == "ok", agent.read_log)


def test_answers_while_the_hub_is_blocked_and_says_so(start, distributions):
    distributions.add_task("acme-blocking", "blocking", BLOCKING)
    distributions.add_task("acme-quick", "quick", QUICK)
    agent, server = start("eventlet")
    assert server.checks()["timers"][0] == "ok"
    (agent.path / "block").touch()
    wait_until(lambda: server.checks()["timers"][0] == "failed", agent.read_log)
    assert server.get("/healthz").text == "alive\n"
    ready = server.get("/readyz")
    assert ready.status == 503
    assert "timers: failed: none has turned for" in ready.text
    assert server.get("/overview.json").status == 200
    late = server.run("quick")
    assert late.status == 504
    assert "did not begin to run quick" in late.json["error"]
    (agent.path / "block").unlink()
    wait_until(lambda: server.get("/readyz").status == 200, agent.read_log)
    # Nor is it run now that the agent could.
    wait_until(lambda: server.run("quick", dry_run=True).status == 200, agent.read_log)
    assert outcomes(agent) == ["ok (dry run)"]
    assert agent.stop_agent() == 0


@pytest.mark.parametrize("mode", MODES)
def test_answers_while_somebody_holds_the_journal(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK)
    agent, server = start(mode)
    assert server.get("/healthz").status == 200  # it has begun to serve
    other = sqlite3.connect(agent.path / "cepheid-journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # With green threads the hub waits in SQLite for it, and so does every thread.
    command = agent.popen("task", "run", "quick")
    assert server.get("/healthz").status == 200
    assert server.get("/overview.json").status == 200
    other.execute("ROLLBACK")
    other.close()
    assert command.wait(30) == 0


def test_answers_no_more_when_the_agent_has_ended(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK)
    agent, server = start("eventlet")
    assert server.get("/healthz").status == 200
    agent.signal_agent(signal.SIGTERM)
    assert agent.agent.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        server.get("/healthz")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("listen_address = 0.0.0.0\n", "Set [status] allow_remote = true if that is wanted"),
        ("listen_address = localhost\n", "[status] listen_address"),
        ("port = 1\nlisten_address = 192.0.2.1\nallow_remote = true\n", "cannot be listened on"),
        ("token_file = /nowhere/token\n", "[status] token_file = /nowhere/token cannot be made"),
    ],
)
def test_says_in_one_line_why_it_cannot_be_as_configured(start, settings, says):
    refused = start("threading", settings, expect_refusal=True)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_without_its_library_it_says_how_to_install_it(start, distributions):
    (distributions.path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'prometheus_client'\", "
        "name='prometheus_client')\n"
    )
    refused = start("threading", expect_refusal=True)
    assert refused.returncode == 1
    assert "pip install 'cepheid[status]'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


VENDOR = '''
import cepheid
from cepheid import metric
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Tell something."""

    def metrics(self):
        return [metric.gauge("acme_things", "Things.", 7), self.nothing_such]

    @periodic_task(spacing=3600)
    def vendor(self, context):
        pass
'''


@pytest.mark.parametrize("mode", MODES)
def test_a_vendors_metrics_that_fail_are_named_in_metrics_and_log(start, distributions, mode):
    distributions.add_task("acme-vendor", "vendor", VENDOR)
    agent, server = start(mode)
    text = server.get("/metrics").text
    assert 'cepheid_metrics_failed{source="the task vendor"} 1.0' in text
    assert "acme_things" not in text
    wait_until(lambda: "The metrics of the task vendor are missing" in agent.read_log())
    assert "nothing_such" in agent.read_log()


def test_metrics_come_while_the_hub_is_blocked(start, distributions):
    distributions.add_task("acme-blocking", "blocking", BLOCKING)
    agent, server = start("eventlet")
    (agent.path / "block").touch()
    wait_until(lambda: "cepheid_ready 0.0" in server.get("/metrics").text, agent.read_log)
    assert 'cepheid_check_passed{check="timers"} 0.0' in server.get("/metrics").text
    (agent.path / "block").unlink()
    wait_until(lambda: "cepheid_ready 1.0" in server.get("/metrics").text, agent.read_log)
