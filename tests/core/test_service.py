# SPDX-License-Identifier: Apache-2.0
"""The service as a process: start, supervision, reload, stop, in both concurrency modes."""

import os
import re
import signal
import socket
import time

import pytest

from tests.functional.agents import Installation
from tests.functional.processes import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.process

MODES = ("threading", "eventlet")

QUICK = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Change one thing."""

    @periodic_task(spacing=1, run_immediately=True)
    def {name}(self, context):
        context.change("thing", target="it", before=0, after=1, do=lambda: None)
'''

#: Hangs in native calls for ever: the pool's threads cannot be interrupted.
HUNG = '''
import os, threading
import cepheid
from cepheid.periodic_task import periodic_task

READ, _ = os.pipe()

class Plugin(cepheid.Task):
    """Hang in fifty native calls."""

    @periodic_task(spacing=1, run_immediately=True)
    def hung(self, context):
        callers = [
            threading.Thread(
                target=self.agent.run_native,
                args=(os.read, READ, 1),
                kwargs={"deadline": 3600},
                daemon=True,
            )
            for _ in range(50)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
'''

#: Blocks the interpreter's main thread itself in a native call, and with it every green thread.
BLOCKING = '''
import ctypes
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Block the hub."""

    @periodic_task(spacing=1, run_immediately=True)
    def blocking(self, context):
        (self.agent.state_path / "blocked").touch()
        ctypes.CDLL(None).pause()
        ctypes.CDLL(None).sleep(3600)
'''


#: Two drivers with options of their own, and a task that reads one at each run.
METERS = """
from oslo_config import cfg

class Analog:
    options = [cfg.IntOpt("volts", default=230)]

    def __init__(self, agent):
        self.agent = agent

    def value(self):
        return self.agent.conf.meter.volts

class Digital(Analog):
    options = [cfg.IntOpt("bits", default=16)]
"""

METERED = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Read the meter."""

    drivers = ("meter",)

    def __init__(self, agent):
        super().__init__(agent)
        self.meter = agent.driver("meter")

    @periodic_task(spacing=1, run_immediately=True)
    def metered(self, context):
        context.count("volts", self.meter.value())
'''


@pytest.fixture
def start(tmp_path, distributions):
    """Start an agent with the tasks that were added."""
    started = []

    def start(mode, settings="", notify=None):
        if not started:
            state = tmp_path / "state"
            state.mkdir()
            started.append(Installation(state, ""))
        installation = started[0]
        installation.conf.write_text(
            f"[DEFAULT]\nstate_path = {installation.path}\nhost = host1\n"
            f"periodic_fuzzy_delay = 0\nlog_file = {installation.log}\n"
            f"concurrency = {mode}\nenabled_tasks = *\ndisabled_tasks = bundled\n{settings}"
        )
        environment = {**os.environ, "PYTHONPATH": str(distributions.path)}
        environment.pop("CEPHEID_TEST_CONCURRENCY", None)
        if notify is not None:
            environment |= {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "3000000"}
            environment.pop("WATCHDOG_PID", None)
        installation.environment = environment
        installation.start_agent()
        return installation

    yield start
    for installation in started:
        installation.close()


def history(installation, task):
    return installation.rows("task", "history", task, "--limit", "1000")


@pytest.mark.parametrize("mode", MODES)
def test_runs_its_tasks_and_ends_at_sigterm(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start(mode)
    wait_until(lambda: len(history(installation, "quick")) >= 2, installation.read_log)
    assert installation.stop_agent() == 0
    assert not (installation.path / "cepheid-agent.sock").exists()
    assert {row["Outcome"] for row in history(installation, "quick")} == {"ok"}


@pytest.mark.parametrize("mode", MODES)
def test_fifty_hung_native_calls_do_not_keep_it_from_ending(start, distributions, mode):
    distributions.add_task("acme-hung", "hung", HUNG)
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start(mode, "graceful_shutdown_timeout = 4\n[hung]\ntime_limit = 1\n")
    wait_until(lambda: "time_limit is 1" in installation.read_log(), installation.read_log)
    assert "in hung" in installation.read_log()  # the stack
    assert len(history(installation, "quick")) >= 1
    started = time.monotonic()
    assert installation.stop_agent() == 1
    # Not as long as they hang; beyond the four, how busy the machine is counts.
    assert time.monotonic() - started < 4 + 15
    assert "Ending without waiting any longer for: hung" in installation.read_log()


@pytest.mark.parametrize("mode", MODES)
def test_a_blocked_main_thread_does_not_keep_it_from_ending(start, distributions, mode):
    distributions.add_task("acme-blocking", "blocking", BLOCKING)
    installation = start(mode, "graceful_shutdown_timeout = 2\n")
    wait_until(lambda: (installation.path / "blocked").exists())
    installation.signal_agent(signal.SIGTERM)
    assert installation.agent.wait(PATIENCE_SECONDS) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_reload_enables_disables_and_spaces_anew_without_losing_or_doubling_a_run(
    start, distributions, mode
):
    for name in ("one", "two"):
        distributions.add_task(f"acme-{name}", name, QUICK.format(name=name))
    installation = start(mode, "[one]\nspacing = 3600\n[two]\nenabled = false\n")
    wait_until(lambda: len(history(installation, "one")) == 1)
    text = installation.conf.read_text()
    installation.conf.write_text(text.replace("enabled = false", "enabled = true"))
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: len(history(installation, "two")) >= 2, installation.read_log)
    assert len(history(installation, "one")) == 1  # not doubled
    installation.conf.write_text(text.replace("spacing = 3600", "spacing = 1"))
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: len(history(installation, "one")) >= 2)
    count = len(history(installation, "two"))
    wait_until(lambda: len(history(installation, "one")) >= 4)
    assert len(history(installation, "two")) <= count + 1
    assert installation.stop_agent() == 0


def test_a_bad_configuration_at_a_reload_changes_nothing(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("threading")
    text = installation.conf.read_text()
    installation.conf.write_text(text + "[quick]\nspacing = soon\n")
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: "was not reloaded" in installation.read_log())
    assert "[quick] spacing in " in installation.read_log()
    count = len(history(installation, "quick"))
    wait_until(lambda: len(history(installation, "quick")) > count)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: "", "is gone or empty now; restart the agent"),
        (lambda text: text.replace("host = host1", "host = $host"), "[DEFAULT] host in "),
        (lambda text: f"{text}# caf\udce9\n", "cannot be read: it is not UTF-8"),
        (lambda text: f"{text}[DEFAULT]\nlog_file = /nowhere/agent.log\n", "Logging cannot be set"),
        (lambda text: f"{text}[DEFAULT]\nlog_config_append = /nowhere\n", "Logging cannot be set"),
    ],
    ids=["empty", "endless", "no UTF-8", "no directory for the log", "no set-up for the log"],
)
def test_what_cannot_be_read_or_used_at_a_reload_leaves_the_agent_as_it_was(
    start, distributions, change, told
):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("threading")
    wait_until(lambda: history(installation, "quick"), installation.read_log)
    text = installation.conf.read_text()
    installation.conf.write_text(change(text), errors="surrogateescape")
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: "was not reloaded" in installation.read_log(), installation.read_log)
    assert told in installation.read_log()
    assert "Traceback" not in installation.read_log()
    installation.conf.write_text(text)
    count = len(history(installation, "quick"))
    wait_until(lambda: len(history(installation, "quick")) > count, installation.read_log)
    assert "runs 1 tasks" in installation.read_log()
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: "Reloaded" in installation.read_log(), installation.read_log)
    assert installation.stop_agent() == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_dry_run_of_all_tasks_begins_and_ends_with_a_reload(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start(mode)
    text = installation.conf.read_text()
    for dry_run in (True, False):
        installation.conf.write_text(text.replace("[DEFAULT]", f"[DEFAULT]\ndry_run = {dry_run}"))
        installation.signal_agent(signal.SIGHUP)
        wait_until(
            lambda: ("dry run" in history(installation, "quick")[-1]["Outcome"]) is dry_run,  # noqa: B023
            installation.read_log,
        )
    assert installation.stop_agent() == 0


def test_a_reload_that_chooses_another_driver_says_so_and_goes_on_with_the_old(
    start, distributions
):
    distributions.add(
        "acme-meters",
        {"cepheid.meter": {"analog": "acme_meters:Analog", "digital": "acme_meters:Digital"}},
        {"acme_meters": METERS},
    )
    distributions.add_task("acme-metered", "metered", METERED)
    installation = start("threading", "[meter]\ndriver = analog\nvolts = 12\n")
    wait_until(lambda: history(installation, "metered"), installation.read_log)
    text = installation.conf.read_text()
    installation.conf.write_text(text.replace("driver = analog", "driver = digital"))
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: "Reloaded" in installation.read_log(), installation.read_log)
    assert "restart the agent for: [meter] driver\n" in installation.read_log()
    count = len(history(installation, "metered"))
    wait_until(lambda: len(history(installation, "metered")) > count, installation.read_log)
    assert {row["Outcome"] for row in history(installation, "metered")} == {"ok"}
    assert installation.stop_agent() == 0


def test_a_task_installed_while_it_runs_starts_at_a_reload(start, distributions):
    distributions.add_task("acme-one", "one", QUICK.format(name="one"))
    installation = start("threading")
    distributions.add_task("acme-two", "two", QUICK.format(name="two"))
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: "runs 2 tasks" in installation.read_log(), installation.read_log)


def test_a_task_that_brings_the_first_driver_of_a_kind_starts_at_a_reload(start, distributions):
    distributions.add_task("acme-one", "one", QUICK.format(name="one"))
    installation = start("threading")
    distributions.add(
        "acme-meters", {"cepheid.meter": {"analog": "acme_meters:Analog"}}, {"acme_meters": METERS}
    )
    distributions.add_task("acme-metered", "metered", METERED)
    installation.signal_agent(signal.SIGHUP)
    wait_until(lambda: "runs 2 tasks" in installation.read_log(), installation.read_log)
    wait_until(lambda: history(installation, "metered"), installation.read_log)
    assert installation.stop_agent() == 0


def test_tells_systemd_how_it_is(start, distributions, tmp_path):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(30)
        installation = start("eventlet", notify=path)
        assert listener.recv(4096) == b"READY=1\nSTATUS=1 tasks on host1"
        while listener.recv(4096) != b"WATCHDOG=1":
            pass
        installation.signal_agent(signal.SIGHUP)
        while not listener.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
            pass
        while not listener.recv(4096).startswith(b"READY=1"):
            pass
        installation.signal_agent(signal.SIGTERM)
        while not listener.recv(4096).startswith(b"STOPPING=1"):
            pass
    assert installation.agent.wait(30) == 0


def test_the_watchdog_is_not_fed_when_the_hub_is_blocked(start, distributions, tmp_path):
    distributions.add_task("acme-blocking", "blocking", BLOCKING)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        installation = start("eventlet", "graceful_shutdown_timeout = 1\n", notify=path)
        wait_until(lambda: (installation.path / "blocked").exists())
        listener.setblocking(False)
        while True:
            try:
                listener.recv(4096)
            except BlockingIOError:
                break
        listener.settimeout(3)
        with pytest.raises(TimeoutError):
            listener.recv(4096)


def test_a_second_agent_on_one_state_path_is_refused(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("threading")
    second = installation.run("agent", check=False)
    assert second.returncode == 1
    assert f"Another agent (process {installation.agent.pid})" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_admin_socket_is_for_its_owner_only(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("threading")
    mode = (installation.path / "cepheid-agent.sock").stat().st_mode
    assert mode & 0o777 == 0o600


def test_a_run_that_is_asked_for_is_made_in_the_agent(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("eventlet", "[quick]\nspacing = 3600\n")
    wait_until(lambda: len(history(installation, "quick")) == 1)
    answer = installation.run("task", "run", "quick", "--dry-run", "-f", "csv")
    assert answer.returncode == 0, answer.stderr
    assert '"thing","it","0","1","planned",""' in answer.stdout
    listed = installation.run("task", "list", "-f", "value", "-c", "Name", "-c", "Next run")
    assert re.search(r"^quick 20[\d-]+T[\d:]+Z$", listed.stdout, re.MULTILINE)


def test_an_agent_that_died_leaves_an_interrupted_run_on_record(start, distributions):
    distributions.add_task("acme-hung", "hung", HUNG)
    installation = start("threading")
    wait_until(lambda: (installation.path / "cepheid-locks" / "hung").exists())
    wait_until(lambda: len(history(installation, "hung")) == 1)
    installation.close()
    start("threading", "[hung]\nspacing = 3600\n")
    wait_until(lambda: history(installation, "hung")[0]["Outcome"] == "interrupted")


@pytest.mark.parametrize("mode", MODES)
def test_a_pause_and_its_end_are_heeded_by_a_live_agent(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start(mode)
    wait_until(lambda: len(history(installation, "quick")) >= 1, installation.read_log)
    installation.run("pause", "quick", "--for", "1h", "--reason", "a new switch")
    wait_until(lambda: "quick: paused by" in installation.read_log(), installation.read_log)
    wait_until(lambda: history(installation, "quick")[-1]["Outcome"] == "held")
    refused = installation.run("task", "run", "quick", check=False)
    assert refused.returncode == 1
    assert "quick is not run: paused by" in refused.stderr
    (row,) = [row for row in installation.rows("task", "list") if row["Name"] == "quick"]
    assert row["State"] == "paused"
    assert row["Reason"].endswith(": a new switch")
    assert re.fullmatch(r"20[\d-]+T[\d:]+Z", row["Next run"])
    assert "ok in" in installation.run("task", "run", "quick", "--force").stderr
    count = len(history(installation, "quick"))
    installation.run("resume", "quick")
    wait_until(lambda: len(history(installation, "quick")) > count + 2, installation.read_log)
    assert installation.read_log().count("quick: paused by") == 1
    assert installation.read_log().count("quick: the pause was ended") == 1
    assert installation.stop_agent() == 0


def test_a_pause_that_the_agent_cannot_see_is_refused_with_what_to_do(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("threading")
    wait_until(lambda: len(history(installation, "quick")) >= 1, installation.read_log)
    for file in installation.path.glob("cepheid-journal*"):
        file.rename(file.with_name(f"away-{file.name}"))
    wait_until(lambda: "It is not known what is paused" in installation.read_log())
    refused = installation.run("pause", "quick", check=False)
    assert refused.returncode == 1
    assert "The agent does not heed the pause. The journal" in refused.stderr
    shown = installation.run("status", check=False).stdout
    assert "Restart it" in " ".join(shown.split())  # it is wrapped, and has a path in it
    installation.stop_agent()
    start("threading")
    wait_until(lambda: "quick: paused by" in installation.read_log(), installation.read_log)


def test_a_pause_is_kept_by_an_agent_that_is_started_anew(start, distributions):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    installation = start("threading")
    installation.run("pause", "--reason", "a new switch")
    wait_until(lambda: "all tasks are paused by" in installation.read_log())
    installation.stop_agent()
    count = len([row for row in history(installation, "quick") if row["Run"]])
    start("threading")
    wait_until(lambda: installation.read_log().count("all tasks are paused by") >= 2)
    wait_until(lambda: history(installation, "quick")[-1]["Outcome"] in ("held", "pause"))
    assert len([row for row in history(installation, "quick") if row["Run"]]) == count


#: Reports how far it is until a file is there.
SLOW = '''
import os, time
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Wait for a file."""

    @periodic_task(spacing=3600, run_immediately=True)
    def slow(self, context):
        context.progress(3, 7)
        while not os.path.exists(self.agent.state_path / "go"):
            time.sleep(0.05)
'''


@pytest.mark.parametrize("mode", MODES)
def test_the_progress_of_a_run_is_shown_while_it_goes_on(start, distributions, mode):
    distributions.add_task("acme-slow", "slow", SLOW)
    installation = start(mode)

    def state():
        rows = installation.rows("task", "list")
        return next(row["State"] for row in rows if row["Name"] == "slow")

    wait_until(lambda: state() == "running, 3 of 7", installation.read_log)
    (installation.path / "go").touch()
    wait_until(lambda: state() == "enabled", installation.read_log)


#: The same, though signals interrupt the call.
BLOCKING_FOR_EVER = BLOCKING.replace(
    "ctypes.CDLL(None).pause()", "while ctypes.CDLL(None).pause():"
)
BLOCKING_FOR_EVER = BLOCKING_FOR_EVER.replace("ctypes.CDLL(None).sleep(3600)", "    pass")


def report_of(installation):
    """Ask for a report and return it."""
    path = installation.path / "cepheid-report.txt"
    path.unlink(missing_ok=True)
    installation.signal_agent(signal.SIGUSR2)
    wait_until(path.exists, installation.read_log)
    return path.read_text()


@pytest.mark.parametrize("mode", MODES)
def test_a_report_has_stacks_runs_schedule_native_calls_and_pauses(start, distributions, mode):
    distributions.add_task("acme-quick", "quick", QUICK.format(name="quick"))
    distributions.add_task("acme-hung", "hung", HUNG)
    distributions.add_task("acme-slow", "slow", SLOW)
    installation = start(mode, "[quick]\nspacing = 3600\n")
    wait_until(lambda: history(installation, "hung") and history(installation, "slow"))
    installation.run("pause", "quick", "--reason", "a new switch")
    wait_until(lambda: "quick: paused by" in installation.read_log())
    # A call counts as one that waits once it has waited for a second.
    wait_until(lambda: "waiting for a thread: 42" in report_of(installation))
    text = report_of(installation)
    assert f"concurrency: {mode}" in text
    assert "hung: running for " in text
    assert ", progress (3, 7), run " in text
    assert "quick: every 60 min, paused" in text
    assert '"reason": "a new switch"' in text
    assert "\nread: " in text  # os.read, in the pool's threads
    assert "waiting for a thread: 42" in text
    assert "in slow\n" in text  # the stack of the run
    assert ("green thread timer-hung" if mode == "eventlet" else "thread timer-hung") in text
    mode_bits = (installation.path / "cepheid-report.txt").stat().st_mode
    assert mode_bits & 0o777 == 0o600
    again = report_of(installation)
    assert again != text
    assert "could not be read" not in again
    assert installation.agent.poll() is None
    wait_until(lambda: "A report of all that goes on" in installation.read_log())


@pytest.mark.parametrize("mode", MODES)
def test_a_report_is_written_though_the_main_thread_is_blocked(start, distributions, mode):
    distributions.add_task("acme-blocking", "blocking", BLOCKING_FOR_EVER)
    installation = start(mode, "graceful_shutdown_timeout = 2\n")
    wait_until(lambda: (installation.path / "cepheid-locks" / "blocking").exists())
    wait_until(lambda: "blocking: running for " in report_of(installation))
    text = report_of(installation)
    assert "blocking: running for " in text
    assert "in blocking\n" in text
    assert installation.agent.poll() is None
    installation.signal_agent(signal.SIGTERM)
    assert installation.agent.wait(PATIENCE_SECONDS) == 1
