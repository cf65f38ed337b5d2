# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a private host whose database and hypervisor drift apart, and the agent.

Makes a host in a temporary directory: an SQLite inventory and libvirt's test driver with twenty
domains. It adopts the domains, lets things happen behind the database's back, then runs the real
agent for some seconds and shows what each task saw and changed. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from cepheid.journal import FILE_NAME, Journal

#: virDomainState numbers, as the test driver's XML takes them.
RUNNING, PAUSED, SHUTOFF, CRASHED = 1, 3, 5, 6

SETTINGS = """\
[DEFAULT]
host = demo-host
state_path = {path}
periodic_fuzzy_delay = 1
log_file = {path}/agent.log


[compute]
shutdown_timeout = 5

[hypervisor]
uri = test:///{path}/node.xml

[sync_power_states]
spacing = 3

[check_instance_build_time]
spacing = 2
instance_build_timeout = 600
"""


@dataclass
class Guest:
    """A domain, as it is adopted and as it is when the agent starts."""

    name: str
    state: int
    later: int
    what_happens: str = ""

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.demo"))


GUESTS = [
    *(Guest(f"web-{n}", RUNNING, RUNNING) for n in range(1, 7)),
    Guest("web-7", RUNNING, SHUTOFF, "shut itself down"),
    Guest("web-8", RUNNING, CRASHED, "crashed"),
    Guest("db-1", RUNNING, RUNNING),
    Guest("db-2", RUNNING, PAUSED, "was paused with virsh"),
    Guest("db-3", RUNNING, SHUTOFF, "was stopped with virsh"),
    Guest("mail-1", SHUTOFF, RUNNING, "was started with virsh, though stopped by its owner"),
    Guest("mail-2", SHUTOFF, SHUTOFF),
    Guest("ci-1", PAUSED, SHUTOFF, "was paused, then destroyed with virsh"),
    Guest("ci-2", PAUSED, PAUSED),
    *(Guest(f"app-{n}", RUNNING, RUNNING) for n in range(1, 6)),
]

#: Builds in the inventory that have no domain: name and age in minutes.
BUILDS = [("build-1", 95), ("build-2", 31), ("build-3", 2)]


def node_xml(states: dict[str, int]) -> str:
    """Return the test driver's description of a host with these domains."""
    domains = "".join(
        f"""
  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <name>{escape(guest.name)}</name><uuid>{guest.uuid}</uuid>
    <memory unit='MiB'>512</memory><vcpu>1</vcpu>
    <os><type arch='x86_64'>hvm</type></os>
    <on_crash>preserve</on_crash>
    <test:runstate>{states[guest.name]}</test:runstate>
  </domain>"""
        for guest in GUESTS
    )
    return f"<node>{domains}\n</node>\n"


class Screen:
    """Prints, in colour where the terminal has it."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def title(self, text: str) -> None:
        """Print the heading of a part."""
        print(f"\n{self._paint('1', text)}")

    def line(self, text: str, code: str = "") -> None:
        """Print a line."""
        print(self._paint(code, text) if code else text, flush=True)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


class Demo:
    """The host in its directory, and the commands that are run on it."""

    def __init__(self, path: Path, screen: Screen) -> None:
        self.path = path
        self.screen = screen
        self.conf = path / "cepheid.conf"

    def command(self, *words: str, show: bool = True) -> None:
        """Run a cepheid command, as a person would."""
        if show:
            self.screen.line(f"$ cepheid {' '.join(words)}", "2")
        subprocess.run(
            [*_cepheid(), "--config-file", self.conf, *words],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def prepare(self) -> None:
        """Make the host and adopt its domains."""
        self.conf.write_text(SETTINGS.format(path=self.path))
        self._write_node({guest.name: guest.state for guest in GUESTS})
        self.screen.title(f"A host with {len(GUESTS)} domains is adopted into a new inventory")
        self.command("db", "sync")
        self.command(
            "host", "adopt", "-c", "Name", "-c", "Power state", "-c", "VM state", "-c", "Result"
        )

    def drift(self) -> None:
        """Let things happen that the database does not know."""
        self.screen.title("Then, behind the database's back")
        for guest in GUESTS:
            if guest.what_happens:
                self.screen.line(f"  {guest.name:10} {guest.what_happens}")
        for name, minutes in BUILDS:
            self.screen.line(f"  {name:10} has been building for {minutes} minutes")
        self._write_node({guest.name: guest.later for guest in GUESTS})
        with sqlite3.connect(self.path / "cepheid.sqlite") as connection:
            for name, minutes in BUILDS:
                _insert_build(connection, name, minutes)
        connection.close()

    def run(self, seconds: float) -> None:
        """Run the agent and show its journal as it grows."""
        self.screen.title(f"The agent runs for {seconds:g} seconds")
        self.screen.line("$ cepheid agent", "2")
        agent = subprocess.Popen(
            [*_cepheid(), "--config-file", self.conf, "agent"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._watch(agent, seconds)
            self.screen.title("What the agent says of its tasks")
            self.command(
                "task",
                "list",
                "-c",
                "Name",
                "-c",
                "State",
                "-c",
                "Spacing",
                "-c",
                "Last run",
                "-c",
                "Outcome",
                "-c",
                "Next run",
                "-c",
                "Summary",
            )
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(30)

    def end(self) -> None:
        """Show what is on record."""
        self.screen.title("What is on record, and what the inventory says now")
        for name in ("sync_power_states", "check_instance_build_time"):
            self.command(
                "task",
                "history",
                name,
                "--changed",
                "-c",
                "Run",
                "-c",
                "Started",
                "-c",
                "Change",
                "-c",
                "Before",
                "-c",
                "After",
                "-c",
                "Result",
                "-c",
                "Reason",
                "--limit",
                "200",
            )
        self.command("instance", "list")

    def _watch(self, agent: subprocess.Popen[bytes], seconds: float) -> None:
        names = {guest.uuid: guest.name for guest in GUESTS}
        names |= {_build_uuid(name): name for name, _ in BUILDS}
        journal: Journal | None = None
        last, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            if agent.poll() is not None:
                log = self.path / "agent.log"
                self.screen.line(log.read_text() if log.exists() else "no log", "31")
                raise SystemExit(f"The agent ended with status {agent.returncode}.")
            if journal is None and (self.path / FILE_NAME).exists():
                journal = Journal(self.path / FILE_NAME)
            for run in reversed(journal.runs(limit=100)) if journal else ():
                if run["id"] > last and run["trigger"] == "timer" and run["outcome"] != "running":
                    last = run["id"]
                    self._show(run, journal.changes([last]) if journal else [], names)
            time.sleep(0.1)
        if journal is not None:
            journal.close()

    def _show(self, run: dict, changes: list[dict], names: dict[str, str]) -> None:
        seen = run["counters"].get("instances", 0)
        what = f"{len(changes)} changes" if changes else "nothing to do"
        self.screen.line(
            f"  {run['started_at'][11:19]}  {run['task']:27} {seen:3} instances   {what:14} "
            f"{1000 * run['duration_seconds']:7.1f} ms  {run['outcome']}",
            "36" if changes else "2",
        )
        for change in changes:
            name = names.get(change["target"], change["target"])
            what = f"{change['before']} → {change['after']}"
            reason = change["reason"].partition(": ")[2]
            self.screen.line(
                f"            {name:10} {change['kind']:12} {what:22} {reason}"
                + ("" if change["outcome"] == "done" else f"  [{change['outcome']}]")
            )

    def _write_node(self, states: dict[str, int]) -> None:
        (self.path / "node.xml").write_text(node_xml(states))


def _cepheid() -> list[str]:
    return [sys.executable, "-m", "cepheid"]


def _build_uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.demo"))


def _insert_build(connection: sqlite3.Connection, name: str, minutes: int) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    created_at = now - datetime.timedelta(minutes=minutes)
    connection.execute(
        "INSERT INTO instances (uuid, display_name, host, vm_state, task_state, power_state,"
        " created_at, deleted, hidden, memory_mb, vcpus)"
        " VALUES (?, ?, 'demo-host', 'building', 'spawning', 0, ?, 0, 0, 512, 1)",
        (_build_uuid(name), name, created_at.isoformat(sep=" ", timespec="microseconds")),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="how long the agent runs")
    parser.add_argument("--keep", action="store_true", help="keep the directory")
    arguments = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="cepheid-demo-"))
    screen = Screen()
    demo = Demo(path, screen)
    try:
        demo.prepare()
        demo.drift()
        demo.run(arguments.seconds)
        demo.end()
    finally:
        if arguments.keep:
            screen.line(f"\nKept: {path}")
        else:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
