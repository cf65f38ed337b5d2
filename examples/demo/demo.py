# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a private host whose database and hypervisor drift apart, and the agent.

Makes a host in a temporary directory: an SQLite inventory and libvirt's test driver with twenty
domains. It adopts the domains, lets things happen behind the database's back, then runs the real
agent until nothing is left to do, and shows what each task saw and changed. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from cepheid.journal import FILE_NAME, Journal
from cepheid.terminal import shapes

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

[poll_rebooting_instances]
spacing = 2
reboot_timeout = 600

[poll_rescued_instances]
spacing = 2
rescue_timeout = 3600

[poll_unconfirmed_resizes]
spacing = 2
resize_confirm_window = 3600

[poll_shelved_instances]
spacing = 2
shelved_offload_time = 3600

[cleanup_running_deleted_instances]
spacing = 2
running_deleted_instance_action = reap

[run_pending_deletes]
spacing = 2

[cleanup_incomplete_migrations]
spacing = 2

[reclaim_queued_deletes]
spacing = 2
reclaim_instance_interval = 604800
"""

#: The tasks that are waited for; the others have minutes between their passes.
FREQUENT = re.findall(r"\[(\w+)\]\nspacing", SETTINGS)

#: How long the agent runs at most: a machine may be slow, and a task may be broken.
MAXIMUM_SECONDS = 90


@dataclass
class Guest:
    """A domain, as it is adopted and as it is when the agent starts."""

    name: str
    state: int
    later: int
    what_happens: str = ""
    #: What is left half done, see :data:`TIMED_OUT`.
    timed_out: str = ""

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
    Guest("ci-2", PAUSED, PAUSED, "was deleted, and its domain left behind", "left over"),
    Guest("app-1", RUNNING, SHUTOFF, "went down for a reboot 20 minutes ago", "reboot"),
    Guest("app-2", RUNNING, RUNNING, "has been in rescue for 3 hours", "rescue"),
    Guest("app-3", RUNNING, RUNNING, "was resized 2 hours ago; nobody confirmed it", "resize"),
    Guest("app-4", RUNNING, SHUTOFF, "was shelved 2 hours ago", "shelve"),
    Guest("app-5", RUNNING, SHUTOFF, "was soft-deleted 8 days ago", "soft-delete"),
]

#: What is written of an instance that is left half done; times are in seconds ago.
TIMED_OUT: dict[str, dict[str, str | int]] = {
    "reboot": {"task_state": "reboot_started", "updated_at": 1200},
    "rescue": {"vm_state": "rescued", "launched_at": 3 * 3600},
    "resize": {"vm_state": "resized", "updated_at": 7200},
    "shelve": {"vm_state": "shelved", "power_state": 4},
    "soft-delete": {"vm_state": "soft-delete", "power_state": 4, "deleted_at": 8 * 86400},
    "left over": {"vm_state": "deleted", "power_state": 0, "deleted_at": 86400},
}

#: Builds in the inventory that have no domain: name and age in minutes.
BUILDS = [("build-1", 95), ("build-2", 31), ("build-3", 2)]

#: Deleted instances without a domain, whose files were left here: name and how that came.
LEFT_OVER = [
    ("old-1", "was deleted yesterday, while this host was down; its files are here"),
    ("old-2", "was deleted yesterday on demo-host-2; a failed move left files here"),
]


def node_xml(path: Path, states: dict[str, int], rescued: bool) -> str:
    """Return the test driver's description of a host with these domains.

    :param rescued: whether the one in rescue boots from its rescue disk
    """
    domains = "".join(
        domain_xml(path, guest, states[guest.name], rescued and guest.timed_out == "rescue")
        for guest in GUESTS
    )
    return f"<node>{domains}\n</node>\n"


def domain_xml(path: Path, guest: Guest, state: int, rescued: bool = False) -> str:
    """Return a domain; those that are left half done have a disk."""
    names = ["disk.rescue", "disk"] if rescued else ["disk"] if guest.timed_out else []
    disks = "".join(
        f"""
      <disk type='file' device='disk'>
        <driver name='qemu' type='qcow2'/>
        <source file='{path}/instances/{guest.uuid}/{name}'/><target dev='vd{letter}' bus='virtio'/>
      </disk>"""
        for name, letter in zip(names, "ab", strict=False)
    )
    return f"""
  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <name>{escape(guest.name)}</name><uuid>{guest.uuid}</uuid>
    <memory unit='MiB'>512</memory><vcpu>1</vcpu>
    <os><type arch='x86_64'>hvm</type></os>
    <on_crash>preserve</on_crash>
    <devices>{disks}
    </devices>
    <test:runstate>{state}</test:runstate>
  </domain>"""


class Screen:
    """Prints, in colour where the terminal has it, and in ASCII where it has no Unicode."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self._colour = terminal and "NO_COLOR" not in os.environ
        self._shapes = shapes.choose(
            sys.stdout.encoding, os.environ.get("TERM", "unknown"), terminal
        )

    def title(self, text: str) -> None:
        """Print the heading of a part."""
        print(f"\n{self._paint('1', text)}")

    def line(self, text: str, code: str = "") -> None:
        """Print a line."""
        text = "\n".join(map(self._shapes.clean, text.split("\n")))
        print(self._paint(code, text) if code else text, flush=True)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


class Demo:
    """The host in its directory, and the commands that are run on it."""

    def __init__(self, path: Path, screen: Screen) -> None:
        self.path = path
        self.screen = screen
        self.conf = path / "cepheid.conf"
        #: By task, the passes with nothing to do.
        self._idle: Counter[str] = Counter()
        #: By task, how many passes one after the other were well and had nothing to do.
        self._calm: Counter[str] = Counter()

    def command(self, *words: str, show: bool = True, check: bool = True) -> None:
        """Run a cepheid command, as a person would."""
        if show:
            self.screen.line(f"$ cepheid {' '.join(words)}", "2")
        subprocess.run(
            [*_cepheid(), "--config-file", self.conf, *words],
            check=check,
            stdin=subprocess.DEVNULL,
        )

    def prepare(self) -> None:
        """Make the host and adopt its domains."""
        self.conf.write_text(SETTINGS.format(path=self.path))
        for guest in GUESTS:
            if guest.timed_out:
                self._make_disk(f"instances/{guest.uuid}/disk")
        self._write_node({guest.name: guest.state for guest in GUESTS}, rescued=False)
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
        for name, what_happened in LEFT_OVER:
            self.screen.line(f"  {name:10} {what_happened}")
            self._make_disk(f"instances/{_uuid(name)}/disk")
        self._write_node({guest.name: guest.later for guest in GUESTS}, rescued=True)
        for guest in GUESTS:
            self._leave_files_half_done(guest)
        self.screen.line("\nTheir files")
        self._show_files()
        with sqlite3.connect(self.path / "cepheid.sqlite") as connection:
            for name, minutes in BUILDS:
                _insert_build(connection, name, minutes)
            _insert_left_over(connection)
            for guest in GUESTS:
                _leave_half_done(connection, guest)
        connection.close()

    def run(self) -> None:
        """Run the agent and show its journal as it grows."""
        self.screen.title("The agent runs until nothing is left to do")
        self.screen.line("$ cepheid agent", "2")
        agent = subprocess.Popen(
            [*_cepheid(), "--config-file", self.conf, "agent"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._watch(agent)
            self.screen.title("What the agent says of itself, and why it leaves build-3 alone")
            # Its exit status is how well the agent is; here it is looked at by a person.
            self.command("status", "--changes", "4", check=False)
            self.command("explain", "build-3", "--task", "check_instance_build_time")
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(30)

    def end(self) -> None:
        """Show what is on record, in the inventory and on the disks."""
        self.screen.title("What is on record, and what the inventory says now")
        columns = ("Change", "Before", "After", "Result", "Reason")
        chosen = [word for column in columns for word in ("-c", column)]
        self.command("task", "history", "sync_power_states", "--changed", *chosen)
        self.command("instance", "list")
        self.screen.line("\nTheir files now")
        self._show_files()

    def _show_files(self) -> None:
        names = {guest.uuid: guest.name for guest in GUESTS}
        names |= {_uuid(name): name for name, _ in LEFT_OVER}
        lines = []
        for folder in ("instances", "shelved"):
            for directory in (self.path / folder).iterdir():
                instance, _, suffix = directory.name.partition("_")
                files = ", ".join(sorted(file.name for file in directory.iterdir()))
                label = f"{names[instance]}_{suffix}" if suffix else names[instance]
                lines.append(f"  {folder + '/' + label:24} {files}")
        for line in sorted(lines):
            self.screen.line(line)

    def _watch(self, agent: subprocess.Popen[bytes]) -> None:
        names = {guest.uuid: guest.name for guest in GUESTS}
        names |= {_uuid(name): name for name, _ in (*BUILDS, *LEFT_OVER)}
        journal: Journal | None = None
        shown: set[int] = set()
        until = time.monotonic() + MAXIMUM_SECONDS
        # Twice, for what one task has done may be what another has waited for.
        while any(self._calm[task] < 2 for task in FREQUENT) and time.monotonic() < until:
            if agent.poll() is not None:
                log = self.path / "agent.log"
                self.screen.line(log.read_text() if log.exists() else "no log", "31")
                raise SystemExit(f"The agent ended with status {agent.returncode}.")
            if journal is None and (self.path / FILE_NAME).exists():
                journal = Journal(self.path / FILE_NAME)
            for run in reversed(journal.runs(limit=1000)) if journal else ():
                # They go on side by side, so one may end before another that began earlier.
                is_new = run["trigger"] == "timer" and run["id"] not in shown
                if is_new and run["outcome"] != "running":
                    shown.add(run["id"])
                    self._show(run, journal.changes([run["id"]]) if journal else [], names)
            time.sleep(0.1)
        more = sum(self._idle.values()) - len(self._idle)
        self.screen.line(f"  and {more} more passes with nothing to do", "2")
        if journal is not None:
            journal.close()

    def _show(self, run: dict, changes: list[dict], names: dict[str, str]) -> None:
        is_calm = not changes and run["outcome"] == "ok"
        self._calm[run["task"]] = self._calm[run["task"]] + 1 if is_calm else 0
        if is_calm:
            self._idle[run["task"]] += 1
            if self._idle[run["task"]] > 1:
                return
        seen = sum(run["counters"].get(name, 0) for name in ("instances", "migrations", "domains"))
        what = f"{_count(len(changes), 'change')}" if changes else "nothing to do"
        self.screen.line(
            f"  {run['started_at'][11:19]}  {run['task']:33} {seen:3} seen  {what:13}  "
            f"{run['outcome']}",
            "36" if changes else "2",
        )
        for change in changes:
            name = names.get(change["target"], change["target"])
            what = f"{_short(change['before'])} → {_short(change['after'])}"
            self.screen.line(
                f"      {name:10} {change['kind']:16} {what}"
                + ("" if change["outcome"] == "done" else f"  [{change['outcome']}]")
            )
            if reason := change["reason"].partition(": ")[2]:
                self.screen.line(f"{'':17}{reason}")

    def _write_node(self, states: dict[str, int], rescued: bool) -> None:
        (self.path / "node.xml").write_text(node_xml(self.path, states, rescued))

    def _make_disk(self, name: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True)

    def _leave_files_half_done(self, guest: Guest) -> None:
        """Put the files there that Nova, or cepheid's own commands, would have left."""
        directory = self.path / "instances" / guest.uuid
        if guest.timed_out == "rescue":
            self._make_disk(f"instances/{guest.uuid}/disk.rescue")
            (directory / "unrescue.xml").write_text(domain_xml(self.path, guest, RUNNING))
        elif guest.timed_out == "resize":
            self._make_disk(f"instances/{guest.uuid}_resize/disk")
        elif guest.timed_out == "shelve":
            self._make_disk(f"shelved/{guest.uuid}/vda.qcow2")
            saved = self.path / "shelved" / guest.uuid / "domain.xml"
            saved.write_text(domain_xml(self.path, guest, SHUTOFF))


def _short(value: object) -> str:
    return "…" if isinstance(value, dict | list) else str(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _cepheid() -> list[str]:
    return [sys.executable, "-m", "cepheid"]


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.demo"))


def _ago(seconds: float) -> str:
    """Return a time as SQLAlchemy writes it to SQLite."""
    then = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    then -= datetime.timedelta(seconds=seconds)
    return then.isoformat(sep=" ", timespec="microseconds")


def _insert_build(connection: sqlite3.Connection, name: str, minutes: int) -> None:
    connection.execute(
        "INSERT INTO instances (uuid, display_name, host, vm_state, task_state, power_state,"
        " created_at, deleted, hidden, memory_mb, vcpus)"
        " VALUES (?, ?, 'demo-host', 'building', 'spawning', 0, ?, 0, 0, 512, 1)",
        (_uuid(name), name, _ago(60 * minutes)),
    )


def _insert_left_over(connection: sqlite3.Connection) -> None:
    for (name, _), host in zip(LEFT_OVER, ("demo-host", "demo-host-2"), strict=True):
        connection.execute(
            "INSERT INTO instances (uuid, display_name, host, vm_state, power_state, created_at,"
            " deleted_at, deleted, cleaned, hidden) VALUES (?, ?, ?, 'deleted', 0, ?, ?, 0, 0, 0)",
            (_uuid(name), name, host, _ago(30 * 86400), _ago(86400)),
        )
        connection.execute("UPDATE instances SET deleted = id WHERE uuid = ?", (_uuid(name),))
    connection.execute(
        "INSERT INTO migrations (uuid, instance_uuid, status, migration_type, source_compute,"
        " dest_compute, created_at, deleted) VALUES (?, ?, 'error', 'migration', 'demo-host',"
        " 'demo-host-2', ?, 1)",
        (str(uuid.uuid4()), _uuid("old-2"), _ago(2 * 86400)),
    )


def _leave_half_done(connection: sqlite3.Connection, guest: Guest) -> None:
    for column, value in TIMED_OUT.get(guest.timed_out, {}).items():
        written = _ago(float(value)) if column.endswith("_at") else value
        connection.execute(
            f"UPDATE instances SET {column} = ? WHERE uuid = ?", (written, guest.uuid)
        )
    if guest.timed_out == "left over":
        connection.execute("UPDATE instances SET deleted = id WHERE uuid = ?", (guest.uuid,))
    if guest.timed_out == "resize":
        connection.execute(
            "INSERT INTO migrations (uuid, instance_uuid, status, migration_type, source_compute,"
            " dest_compute, created_at, updated_at, deleted, hidden, cross_cell_move)"
            " VALUES (?, ?, 'finished', 'resize', 'demo-host', 'demo-host', ?, ?, 0, 0, 0)",
            (str(uuid.uuid4()), guest.uuid, _ago(7200), _ago(7200)),
        )
    if guest.timed_out == "shelve":
        metadata = {
            "shelved_at": _ago(7200).replace(" ", "T"),
            "shelved_host": "demo-host",
            "shelved_image_id": guest.uuid,
        }
        connection.executemany(
            "INSERT INTO instance_system_metadata (instance_uuid, key, value, deleted)"
            " VALUES (?, ?, ?, 0)",
            [(guest.uuid, key, value) for key, value in metadata.items()],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the directory")
    arguments = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="cepheid-demo-"))
    screen = Screen()
    demo = Demo(path, screen)
    try:
        demo.prepare()
        demo.drift()
        demo.run()
        demo.end()
    finally:
        if arguments.keep:
            screen.line(f"\nKept: {path}")
        else:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
