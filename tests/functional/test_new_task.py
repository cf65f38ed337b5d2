# SPDX-License-Identifier: Apache-2.0
"""From nothing to a task that a live agent runs, and away again, by the commands that are shown.

What it takes is measured as the CPU time of the commands, and printed (pytest -s). The wheels of
what cepheid needs are fetched, and its own is built, before; the clean environment that cepheid's
wheel is installed into, and the agent in it, are counted.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests import documentation
from tests.functional import environments
from tests.functional.agents import Installation
from tests.functional.environments import ROOT, Environment
from tests.functional.processes import wait_until
from tests.worlds import node_xml

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

RUNNING, SHUTDOWN = 1, 4

#: CPU seconds for the whole way.
LIMIT_SECONDS = 60


class Stopwatch:
    """Measures the CPU time of processes that have ended, step by step."""

    def __init__(self):
        self.steps = {}

    @contextlib.contextmanager
    def step(self, name):
        before, began = self._spent(), time.monotonic()
        yield
        self.steps[name] = (self._spent() - before, time.monotonic() - began)

    def _spent(self):
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    @property
    def total(self):
        return sum(cpu for cpu, _ in self.steps.values())

    def __str__(self):
        lines = [
            f"{cpu:6.1f} s CPU {wall:6.1f} s  {step}" for step, (cpu, wall) in self.steps.items()
        ]
        return "\n".join([*lines, f"{self.total:6.1f} s CPU in all"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Cepheid's own wheel."""
    environments.dependencies()
    return environments.build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def prepared(wheel, tmp_path_factory):
    """An environment with cepheid's wheel."""
    return Environment(tmp_path_factory.mktemp("prepared"), f"{wheel}[libvirt]")


class Host(Installation):
    """A host on libvirt's test driver, with the cepheid of an environment."""

    def __init__(self, path, environment):
        super().__init__(path, "")
        (path / "node.xml").write_text(node_xml([RUNNING, RUNNING, SHUTDOWN]))
        self.python = environment.python
        self.environment = environments.offline()
        self.environment.pop("PYTHONPATH", None)
        self.configure("")

    def configure(self, enabled, settings=""):
        self.conf.write_text(
            f"[DEFAULT]\nstate_path = {self.path}\nhost = host1\nperiodic_fuzzy_delay = 0\n"
            f"log_file = {self.log}\nenabled_tasks = {enabled}\n"
            f"[hypervisor]\nuri = test:///{self.path}/node.xml\n{settings}"
        )

    def reload(self, tasks):
        """Let the agent reload, and wait until it has this many tasks."""
        before = self.read_log().count("Reloaded;")
        self.signal_agent(signal.SIGHUP)
        wait_until(lambda: self.read_log().count("Reloaded;") > before, self.read_log)
        (*_, told) = [line for line in self.read_log().splitlines() if "Reloaded;" in line]
        assert told.endswith(f"the agent runs {tasks} tasks")


def test_a_new_task_runs_in_a_live_agent_within_a_minute_and_goes_again(wheel, tmp_path):
    watch = Stopwatch()
    with watch.step("an environment with cepheid's wheel, and pytest"):
        environment = Environment(tmp_path / "venv", f"{wheel}[libvirt]", "pytest")
    state = tmp_path / "host"
    state.mkdir()
    host = Host(state, environment)
    try:
        with watch.step("the agent starts, without this task"):
            host.start_agent()
        with watch.step("cepheid task new list_guests --dist acme-guests"):
            host.run("task", "new", "list_guests", "--dist", "acme-guests",
                     "--directory", str(tmp_path / "acme-guests"))  # fmt: skip
        package = tmp_path / "acme-guests"
        with watch.step("its tests"):
            tested = run(environment, "-m", "pytest", "-q", cwd=package)
            assert " passed" in tested
        with watch.step("its wheel"):
            built = environments.build(package, tmp_path / "built")
        with watch.step("pip install"):
            environment.install(str(built))
        with watch.step("SIGHUP, until the first run is in the history"):
            host.configure("list_guests", "[list_guests]\nrun_immediately = true\n")
            host.reload(tasks=1)
            wait_until(lambda: history(host), host.read_log)
        (run_row,) = history(host)
        assert (run_row["Outcome"], run_row["Result"]) == ("ok", "done")
        assert (run_row["Change"], run_row["After"]) == ("guest_list", "2")
        assert len((state / "list_guests.txt").read_text().splitlines()) == 2
        row = row_of(host)
        assert (row["State"], row["Distribution"]) == ("enabled", "acme-guests")
        assert row["Next run"].endswith("Z")

        with watch.step("uninstall and reload: it is gone"):
            host.configure("")
            environment.uninstall("acme-guests")
            host.reload(tasks=0)
        assert row_of(host) is None
        assert len(history(host)) == 1  # what it did stays on record
        with watch.step("the agent itself, all the while"):
            assert host.stop_agent() == 0
    finally:
        host.close()
    print(f"\n{watch}")
    assert watch.total < LIMIT_SECONDS, str(watch)


def test_a_package_that_goes_while_its_task_is_enabled_is_named_and_stops_no_other(
    prepared, tmp_path
):
    state = tmp_path / "host"
    state.mkdir()
    host = Host(state, prepared)
    try:
        for task in ("list_guests", "count_guests"):
            package = tmp_path / f"acme-{task}"
            host.run("task", "new", task, "--dist", package.name, "--directory", str(package))
            prepared.install(str(environments.build(package, tmp_path / "built" / task)))
        host.configure("list_guests, count_guests", "[count_guests]\nspacing = 1\n")
        host.start_agent()
        prepared.uninstall("acme-list_guests")
        host.signal_agent(signal.SIGHUP)
        wait_until(lambda: "The configuration was not reloaded" in host.read_log(), host.read_log)
        assert "names the task 'list_guests', which nothing installed provides" in host.read_log()
        ran = len(history(host, "count_guests"))
        wait_until(lambda: len(history(host, "count_guests")) > ran, host.read_log)
        host.configure("count_guests", "[count_guests]\nspacing = 1\n")
        host.reload(tasks=1)
        assert host.stop_agent() == 0
    finally:
        host.close()
        prepared.uninstall("acme-count_guests")


def test_the_options_of_a_new_task_go_into_a_sample_configuration(prepared, tmp_path):
    package = tmp_path / "acme-guests"
    run(prepared, "-m", "cepheid", "task", "new", "list_guests", "--dist", "acme-guests",
        cwd=tmp_path)  # fmt: skip
    prepared.install(str(environments.build(package, tmp_path / "built")))
    sample = subprocess.check_output(
        [prepared.path / "bin" / "oslo-config-generator", "--namespace", "acme-guests"],
        text=True,
        stdin=subprocess.DEVNULL,
    )
    prepared.uninstall("acme-guests")
    assert "[list_guests]" in sample
    assert "#path = $state_path/list_guests.txt" in sample
    assert "#spacing = 300" in sample


def run(environment, *words, cwd):
    done = subprocess.run(
        [environment.python, *words],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def history(host, task="list_guests"):
    """Return the runs of a task that are on record; none where it is not known."""
    words = ("task", "history", task, "--limit", "1000", "-f", "json")
    done = host.run(*words, check=False)
    return [row for row in json.loads(done.stdout) if row["Seconds"]] if done.stdout else []


def row_of(host):
    """Return what is listed of the new task."""
    rows = [row for row in host.rows("task", "list") if row["Name"] == "list_guests"]
    return rows[0] if rows else None


# The page.


def with_a_persons_pace(line):
    """Return a line of a script that goes on as late as a person would who reads and types."""
    line = line.replace("/path/to/clone", "cepheid")  # the wheel, which pip finds by its name
    if line.endswith("agent.log 2>&1 &"):
        return f"{line}\nuntil [ -e state/cepheid-agent.sock ]; do sleep 0.1; done"
    if line == "kill -HUP $!":
        count = "$(grep -c Reloaded agent.log)"
        return f'n={count} || true\n{line}\nwhile [ "{count}" = "$n" ]; do sleep 0.1; done'
    return line


def test_the_fifteen_minutes_of_the_page_go_as_they_are_written(wheel, tmp_path, request):
    page = documentation.SOURCE / "writing_a_task.rst"
    text = page.read_text()
    first = text[: text.index("In fifteen minutes")].count("\n")
    last = text[: text.index("The package\n===")].count("\n")
    script = ["set -e"]
    for block in documentation.blocks(page):
        if not first < block.line < last:
            continue
        if block.language == "sh":
            script += map(with_a_persons_pace, block.text.splitlines())
        elif block.language == "diff":
            (tmp_path / "edit.diff").write_text(block.text)
            script.append(f"git apply {tmp_path}/edit.diff")
    script.append("wait $! && echo 'the agent has ended well'")
    environment = environments.offline()
    environment["PIP_FIND_LINKS"] += f" {wheel.parent}"
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    # A short path: a socket of the agent's has to fit into it.
    where = Path(tempfile.mkdtemp(prefix="cepheid-page-"))
    request.addfinalizer(lambda: shutil.rmtree(where))
    done = subprocess.run(
        ["bash"],
        input="\n".join(script),
        cwd=where,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "acme-guests: " in done.stdout  # what the check says at its end
    assert "\ntest 6695eb01-f6a4-8304-79aa-97f2502e193f running\n" in done.stdout
    assert "list_guests (dry run): ok in " in done.stderr
    assert "the agent has ended well" in done.stdout
    assert "Reloaded; the agent runs 0 tasks" in (where / "acme-guests/agent.log").read_text()
