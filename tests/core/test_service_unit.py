# SPDX-License-Identifier: Apache-2.0
"""What the systemd unit must leave to the agent, and what systemd is told where it fails.

Each of these was seen under a booted systemd with guests of a real libvirtd.
"""

import configparser
import signal
import socket
import subprocess
import sys

import pytest

from cepheid import closed_files, errors
from cepheid.service import Service
from cepheid.systemd import Notifier
from tests.documentation import ROOT
from tests.fake_agent import FakeAgent


@pytest.fixture
def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(ROOT / "etc" / "cepheid" / "cepheid.service")
    return parser


@pytest.fixture
def listener(tmp_path):
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


@pytest.fixture
def notifier(listener, tmp_path):
    return Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})


def test_the_unit_lets_qemu_through_to_the_instances(unit):
    assert unit["Service"]["StateDirectoryMode"] == f"{closed_files.DIRECTORY_MODE:04o}"


def test_the_unit_hides_no_disk_of_a_guest(unit):
    assert unit["Service"]["ProtectHome"] == "read-only"
    assert "PrivateTmp" not in unit["Service"]


def test_the_agent_ends_before_the_guests_of_a_host_that_is_shut_down(unit):
    after = unit["Unit"]["After"].split()
    assert {"libvirtd.service", "virtqemud.service", "libvirt-guests.service"} <= set(after)


def test_a_state_is_one_line_whatever_is_in_it(notifier, listener):
    notifier.status("a bad\nMAINPID=1")
    assert listener.recv(4096) == b"STATUS=a bad MAINPID=1"
    notifier.ready("well\n")
    assert listener.recv(4096) == b"READY=1\nSTATUS=well"


def test_systemd_is_told_why_the_agent_does_not_start(listener, tmp_path):
    conf = tmp_path / "cepheid.conf"
    conf.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\ngraceful_shutdown_timeout = soon\n")
    command = [sys.executable, "-m", "cepheid", "--config-file", conf, "agent"]
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert ended.returncode == 1
    told = listener.recv(4096).decode()
    assert told.startswith("STATUS=Not started: [DEFAULT] graceful_shutdown_timeout in ")
    assert told.endswith("write a whole number, not 'soon'")


def test_the_state_says_that_the_configuration_was_not_reloaded_until_it_is(
    notifier, listener, tmp_path, monkeypatch
):
    monkeypatch.setattr("oslo_log.log.setup", lambda conf, project: None)
    agent = FakeAgent(tmp_path)
    answers = [errors.ConfigError("[acme] level: too high"), RuntimeError("a bug"), agent.conf]

    def load():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    service = Service(agent, load, notifier)
    told = []
    for _ in range(3):
        service.reload()
        assert listener.recv(4096).startswith(b"RELOADING=1")
        told.append(listener.recv(4096).decode().partition(agent.host)[2])
    assert told == [
        "; not reloaded: [acme] level: too high",
        "; not reloaded: RuntimeError: a bug",
        "",
    ]
    agent.close()


def test_a_process_that_the_watchdog_ends_tells_where_it_hung(tmp_path):
    (tmp_path / "hanging.py").write_text(
        "import os, signal, sys\n"
        "from cepheid import __main__\n"
        "class App:\n"
        "    def run(self, arguments):\n"
        "        os.kill(os.getpid(), signal.SIGABRT)\n"
        "import cepheid.cli.app\n"
        "cepheid.cli.app.App = App\n"
        "__main__.main(['agent'])\n"
    )
    ended = subprocess.run(
        [sys.executable, tmp_path / "hanging.py"],
        env={"PYTHONPATH": ":".join(sys.path)},
        text=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert ended.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in ended.stderr
    assert 'hanging.py", line 5 in run' in ended.stderr
