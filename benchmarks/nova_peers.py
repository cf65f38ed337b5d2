# SPDX-License-Identifier: Apache-2.0
"""Every task that Nova has beside real Nova's own code: the same database, rows and domains."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.counters import add_counters
from benchmarks.measure import Timings
from benchmarks.nova import libvirt_calls
from benchmarks.passes import bare_context, run_bare
from benchmarks.report import Report, Table
from cepheid.clock import Clock
from cepheid_plugins.compute import opts as compute_opts
from cepheid_plugins.database import models
from cepheid_plugins.scheduler.messaging_driver import MessagingScheduler
from cepheid_plugins.tasks import (
    check_instance_build_time,
    cleanup_incomplete_migrations,
    cleanup_running_deleted_instances,
    heal_instance_info_cache,
    instance_usage_audit,
    poll_rebooting_instances,
    poll_rescued_instances,
    poll_shelved_instances,
    poll_unconfirmed_resizes,
    poll_volume_usage,
    reclaim_queued_deletes,
    run_image_cache_manager_pass,
    run_pending_deletes,
    sync_power_states,
    sync_scheduler_instance_info,
    update_available_resource,
)
from tests.fakes import FakeNetwork
from tests.functional import servers
from tests.functional.nova_cell import NOVA_VERSION, NovaCell, environment
from tests.worlds import World

NUMBERS = (100, 1_000)
#: Turns of each side, by the number of instances; and how many, where they take few seconds in all.
TURNS = {10: 1, 100: 5, 1_000: 3}
TURNS_OF_SHORT_ONES = {10: 1, 100: 15, 1_000: 7}
SECONDS = 5
#: Runs in a row that are a turn, where they take less than so many seconds in all.
IN_A_ROW = 3
ROW_SECONDS = 0.5

SCRIPT = Path(__file__).parent / "nova" / "peer.py"
HOUR = 3600

NOVA_CONF = """
host = host1
my_ip = 127.0.0.1
instances_path = {path}/instances
compute_driver = libvirt.LibvirtDriver
transport_url = fake:/
instance_usage_audit = true
instance_build_timeout = 3600
reclaim_instance_interval = 3600
reboot_timeout = 3600
rescue_timeout = 3600
resize_confirm_window = 3600
shelved_offload_time = 3600
volume_usage_poll_interval = 600
running_deleted_instance_action = log
log_file = {path}/nova.log
use_stderr = false
[libvirt]
virt_type = qemu
connection_uri = test://{path}/node.xml
cpu_mode = none
[oslo_concurrency]
lock_path = {path}/locks
[oslo_messaging_notifications]
driver = log
[vnc]
enabled = false
"""

CEPHEID_CONF = """
transport_url = fake:/
[database]
connection = {url}
[oslo_messaging_notifications]
driver = log
[instance_usage_audit]
enabled = true
"""


@dataclass
class Scenario:
    """A task of both, and the state of the host that it is run in.

    :param nova: the method of Nova's manager
    :param state: what all instances' columns are; a function of the time tells a time
    :param aim: how many times as fast as Nova it is to be
    :param warm: run each once more before it is measured, since the other has left its own record
    :param did: an SQL query whose one number says how much was done; equal for both
    """

    name: str
    factory: Any
    nova: str
    state: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    aim: float = 1.0
    warm: bool = False
    did: str = ""


def _ago(**duration: float) -> Any:
    return lambda now: now - datetime.timedelta(**duration)


COUNT = "SELECT COUNT(*) FROM instances WHERE"
SCENARIOS = [
    Scenario("nothing differs", sync_power_states.SyncPowerStates, "_sync_power_states", aim=10),
    Scenario(
        "all differ",
        sync_power_states.SyncPowerStates,
        "_sync_power_states",
        {"power_state": 0},
        aim=10,
        did=f"{COUNT} power_state = 1",
    ),
    Scenario(
        "all are stuck",
        check_instance_build_time.CheckInstanceBuildTime,
        "_check_instance_build_time",
        {"vm_state": "building"},
        {"instance_build_timeout": HOUR},
        10,
        did=f"{COUNT} vm_state = 'error'",
    ),
    Scenario(
        "all build, none too long",
        check_instance_build_time.CheckInstanceBuildTime,
        "_check_instance_build_time",
        {"vm_state": "building", "created_at": _ago(minutes=1)},
        {"instance_build_timeout": HOUR},
    ),
    Scenario(
        "steady",
        update_available_resource.UpdateAvailableResource,
        "update_available_resource",
        aim=10,
        warm=True,
        did="SELECT running_vms FROM compute_nodes",
    ),
    Scenario(
        "a volume each",
        poll_volume_usage.PollVolumeUsage,
        "_poll_volume_usage",
        options={"spacing": 600},
        aim=10,
        did="SELECT COUNT(*) FROM volume_usage_cache",
    ),
    Scenario(
        "all run though deleted, action log",
        cleanup_running_deleted_instances.CleanupRunningDeletedInstances,
        "_cleanup_running_deleted_instances",
        {"vm_state": "deleted", "deleted_at": _ago(days=2), "deleted": sa.text("id")},
        {"running_deleted_instance_action": "log"},
        10,
    ),
    Scenario(
        "none is deleted",
        cleanup_running_deleted_instances.CleanupRunningDeletedInstances,
        "_cleanup_running_deleted_instances",
    ),
    Scenario(
        "the period is due",
        instance_usage_audit.InstanceUsageAudit,
        "_instance_usage_audit",
        aim=3,
        did="SELECT task_items - errors FROM task_log",
    ),
    Scenario(
        "all wait, none long enough",
        reclaim_queued_deletes.ReclaimQueuedDeletes,
        "_reclaim_queued_deletes",
        {"vm_state": "soft-delete", "deleted_at": _ago(minutes=1)},
        {"reclaim_instance_interval": HOUR},
    ),
    Scenario(
        "all reboot, none too long",
        poll_rebooting_instances.PollRebootingInstances,
        "_poll_rebooting_instances",
        {"task_state": "rebooting", "updated_at": _ago(minutes=1)},
        {"reboot_timeout": HOUR},
    ),
    Scenario(
        "all are rescued, none too long",
        poll_rescued_instances.PollRescuedInstances,
        "_poll_rescued_instances",
        {"vm_state": "rescued", "launched_at": _ago(minutes=1)},
        {"rescue_timeout": HOUR},
    ),
    Scenario(
        "none waits",
        poll_unconfirmed_resizes.PollUnconfirmedResizes,
        "_poll_unconfirmed_resizes",
        options={"resize_confirm_window": HOUR},
    ),
    Scenario(
        "none is shelved",
        poll_shelved_instances.PollShelvedInstances,
        "_poll_shelved_instances",
        options={"shelved_offload_time": HOUR},
    ),
    Scenario(
        "a message of all",
        sync_scheduler_instance_info.SyncSchedulerInstanceInfo,
        "_sync_scheduler_instance_info",
    ),
    Scenario(
        "one instance",
        heal_instance_info_cache.HealInstanceInfoCache,
        "_heal_instance_info_cache",
        options={"calls_per_minute": 1_000_000},
    ),
    Scenario("none is pending", run_pending_deletes.RunPendingDeletes, "_run_pending_deletes"),
    Scenario(
        "none is broken",
        cleanup_incomplete_migrations.CleanupIncompleteMigrations,
        "_cleanup_incomplete_migrations",
    ),
    Scenario(
        "an empty cache",
        run_image_cache_manager_pass.RunImageCacheManagerPass,
        "_run_image_cache_manager_pass",
    ),
]


@dataclass
class Compared:
    """A scenario at one size. Times are medians, in milliseconds.

    :param pass_ms: Cepheid's pass without the record of its run; None where it changes something
    :param run_ms: the whole run
    :param ratio: Nova over the pass, or over the run where there is no pass
    :param first_ratio: the same of the first runs of the turns alone
    """

    task: str
    scenario: str
    instances: int
    aim: float
    nova_ms: float
    pass_ms: float | None
    run_ms: float
    ratio: float
    run_ratio: float
    first_ratio: float
    nova_statements: int
    statements: int
    nova_calls: int
    calls: int
    did: int | None


class Nova:
    """Real Nova in a process of its own, which runs what it is told and says what that took."""

    def __init__(self, cell: NovaCell, path: Path, number: int) -> None:
        self._log = path / "peer.log"
        command = cell.command("", "")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [command[0], str(SCRIPT), command[2], str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answer()

    def run(self, task: str) -> dict[str, Any]:
        """Run a task of its manager."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._answer())
        return found

    def close(self) -> None:
        """End the process; its threads would not let it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"Nova has ended: {self._log.read_text()[-2000:]}")
        return answer


class Cepheid(World):
    """An agent of the same host."""

    def __init__(self, path: Path, url: sa.URL) -> None:
        connection = url.render_as_string(hide_password=False)
        node = (path / "node.xml").read_text()
        super().__init__(path, settings=CEPHEID_CONF.format(url=connection), clock=Clock())
        (path / "node.xml").write_text(node)
        self.agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
        self.agent.set("compute", instances_path=str(path / "instances"))
        self.agent.drivers.use("network", FakeNetwork())
        self.agent.conf.register_opts(MessagingScheduler.options, group="scheduler")
        self.agent.drivers.use("scheduler", MessagingScheduler(self.agent))
        self.counted: Counter[str] = Counter()
        libvirt_calls.count(self.counted)
        add_counters(self.hypervisor._connect())

    def count(self, call: Any) -> dict[str, Any]:
        """Make a call; return its seconds, statements and libvirt calls."""
        self.counted.clear()
        before = self.statements()
        begins = time.perf_counter()
        call()
        seconds = time.perf_counter() - begins
        return {"seconds": seconds, "statements": self.statements() - before, **self.counted}


def report(quick: bool) -> Report:
    """Compare all scenarios at all sizes."""
    logging.getLogger("cepheid").setLevel(logging.CRITICAL)
    _add_libvirt(environment())
    found: list[Compared] = []
    with servers.mariadb() as server:
        for number in (10,) if quick else NUMBERS:
            with opened(server, number) as (nova, cepheid):
                found += [compare(one, nova, cepheid, number) for one in SCENARIOS]
    sizes = sorted({one.instances for one in found})
    return Report(
        _notes(found),
        [_table(found, number) for number in sizes],
        [asdict(one) for one in found],
        lambda figure: _draw(figure, found, sizes),
        {"nova": NOVA_VERSION},
    )


@contextlib.contextmanager
def opened(server: sa.URL, number: int) -> Iterator[tuple[Nova, Cepheid]]:
    """Give Nova and an agent on one database, with so many instances."""
    with tempfile.TemporaryDirectory(prefix="cepheid-bench-") as directory:
        path = Path(directory)
        for name in ("instances/_base", "instances/locks", "locks"):
            (path / name).mkdir(parents=True)
        url = servers.new_database(server, "nova_peers")
        cell = NovaCell(path, url, NOVA_CONF.format(path=path))
        nova = Nova(cell, path, number)
        try:
            cepheid = Cepheid(path, url)
            cepheid.number = number  # type: ignore[attr-defined]
            try:
                yield nova, cepheid
            finally:
                cepheid.close()
        finally:
            nova.close()


def compare(scenario: Scenario, nova: Nova, cepheid: Cepheid, number: int) -> Compared:
    """Let both run a scenario in turn, every second time backwards: AAA BBB, BBB AAA, AAA BBB."""
    task = cepheid.agent.build(scenario.factory)
    cepheid.agent.set(task.name, **scenario.options)
    changes = False

    def run() -> None:
        nonlocal changes
        made = cepheid.agent.run(task)
        assert made.outcome in ("ok", "partial"), f"{task.name}: {made.outcome} {made.error}"
        changes = bool(made.changes)

    def run_pass() -> dict[str, Any]:
        context = bare_context(task)  # as Nova has it
        return cepheid.count(lambda: run_bare(task, context))

    sides = {
        "nova": lambda: nova.run(scenario.nova),
        "run": lambda: cepheid.count(run),
        "pass": run_pass,
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    firsts: dict[str, list[float]] = {name: [] for name in sides}
    did = {}
    until = time.perf_counter() + SECONDS
    for turn in range(TURNS_OF_SHORT_ONES[number] + 1):
        if turn > TURNS[number] and time.perf_counter() > until:
            break
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            if name == "pass" and changes:
                continue
            row: list[dict[str, Any]] = []
            while len(row) < IN_A_ROW and sum(one["seconds"] for one in row) < ROW_SECONDS:
                if changes or not row:
                    arrange(scenario, cepheid)
                if scenario.warm and not row:
                    sides["run" if name == "pass" else name]()
                row.append(sides[name]())
            if turn > 0:  # the first imports, connects and fills caches
                found[name].append(sorted(row, key=_seconds)[(len(row) - 1) // 2])
                firsts[name].append(_seconds(row[0]))
            if scenario.did:
                with cepheid.engine.connect() as connection:
                    did[name] = int(connection.execute(sa.text(scenario.did)).scalar() or 0)
    assert len(set(did.values())) < 2, f"{task.name}: not the same was done: {did}"
    taken = {name: Timings([_seconds(one) for one in told]) for name, told in found.items()}
    ours = "pass" if found["pass"] else "run"
    return Compared(
        task.name,
        scenario.name,
        number,
        scenario.aim,
        taken["nova"].median * 1e3,
        taken["pass"].median * 1e3 if found["pass"] else None,
        taken["run"].median * 1e3,
        taken["nova"].ratio_to(taken[ours]),
        taken["nova"].ratio_to(taken["run"]),
        Timings(firsts["nova"]).ratio_to(Timings(firsts[ours])),
        _median(found["nova"], "statements"),
        _median(found["run"], "statements"),
        _median(found["nova"], "libvirt"),
        _median(found["run"], "libvirt"),
        next(iter(did.values()), None),
    )


def arrange(scenario: Scenario, cepheid: Cepheid) -> None:
    """Put all rows into the scenario's state."""
    now = cepheid.clock.utcnow()
    long_ago = now - datetime.timedelta(days=90)
    values = {
        "vm_state": "active", "task_state": None, "power_state": 1, "deleted": 0,
        "deleted_at": None, "cleaned": 0, "created_at": long_ago, "updated_at": long_ago,
        "launched_at": long_ago, **scenario.state,
    }  # fmt: skip
    values = {name: v(now) if callable(v) else v for name, v in values.items()}
    with cepheid.engine.begin() as connection:
        connection.execute(sa.update(models.instances).values(**values))
        for table in (models.task_log, models.volume_usage_cache, models.instance_faults):
            connection.execute(sa.delete(table))


def _seconds(told: dict[str, Any]) -> float:
    return float(told["seconds"])


def _median(found: Sequence[dict[str, Any]], name: str) -> int:
    return round(statistics.median(one.get(name, 0) for one in found))


def _add_libvirt(path: Path) -> None:
    """Give Nova's environment libvirt's binding, which its own tests of databases do not need."""
    python = str(path / "bin" / "python")
    if subprocess.run([python, "-c", "import libvirt"], stderr=subprocess.DEVNULL).returncode:
        command = [python, "-m", "pip", "install", "-q", "libvirt-python"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _notes(found: Sequence[Compared]) -> list[str]:
    behind = [
        f"``{one.task}`` ({one.scenario}) at {one.instances:,}: {one.ratio:.1f} of {one.aim:g}"
        for one in found
        if one.ratio < one.aim
    ]
    slower = [
        f"``{one.task}`` ({one.scenario}) at {one.instances:,}"
        for one in found
        if one.run_ratio < 1 <= one.ratio
    ]
    return [
        "Nova's own ``ComputeManager`` with its libvirt driver on ``test:///``, in a process of "
        "its own, and Cepheid take turns on one database of MariaDB that Nova's migrations made "
        "and Nova's objects filled; before each turn all rows are put into the same state. A turn "
        "is three runs in a row, or as many as half a second has room for, and the middle one "
        "counts: the first finds in the processor's caches what the other has left, which is much "
        "beside a pass of a few milliseconds. *Cold* compares the first ones alone. Nova is given "
        "the database directly, its best case: in a cloud each statement goes through "
        "nova-conductor. Placement, Cinder and Neutron answer Nova at once, from memory, and so "
        "does the network for Cepheid. The notification driver is ``log`` for both, so that each "
        "message is built and made text; no log takes it. The clock stops when what a task gave to "
        "a pool is done.",
        "Sixteen of the seventeen tasks. Nova has no ``_poll_bandwidth_usage`` since 23.0. What "
        "destroys guests is not measured here: Nova unplugs their interfaces through a privileged "
        "daemon that the test driver has no interfaces for. The test driver has no counters in "
        "bulk: Cepheid's answer is filled up with them, and that is in its time, while Nova asks "
        "the driver for each volume.",
        "Pass is what the task does, given its context, as Nova is; run is all of it: the task's "
        "lock and two records in the journal, each synced to the disk, which Nova has not. A task "
        "that changes something here has no pass without its records. *Times as fast* compares "
        "Nova with the pass, or with the run where there is none. ``run_pending_deletes`` asks of "
        "all files that are here once an hour, and Nova never; that pass is not measured.",
        f"Behind the aim: {'; '.join(behind)}." if behind else "All aims are reached.",
        *([f"With its records slower than Nova without: {'; '.join(slower)}."] if slower else []),
    ]


def _table(found: Sequence[Compared], number: int) -> Table:
    headings = (
        "Task", "Host", "Nova, ms", "Pass, ms", "Run, ms", "Times as fast", "Aim",
        "Run: times as fast", "Cold: times as fast", "Statements, Nova", "Cepheid",
        "libvirt calls, Nova", "Cepheid",
    )  # fmt: skip
    rows = [
        (
            one.task, one.scenario, one.nova_ms, one.pass_ms, one.run_ms, one.ratio,
            f"{one.aim:g}", one.run_ratio, one.first_ratio, one.nova_statements, one.statements,
            one.nova_calls, one.calls,
        )
        for one in found
        if one.instances == number
    ]  # fmt: skip
    return Table(f"{number:,} instances", headings, rows)


def _draw(figure: Any, found: Sequence[Compared], sizes: Sequence[int]) -> None:
    axes = figure.add_subplot()
    names = list(dict.fromkeys(f"{one.task}: {one.scenario}" for one in found))
    for place, number in enumerate(sizes):
        ratios = [one.ratio for one in found if one.instances == number]
        at = [row + 0.4 * place for row in range(len(names))]
        axes.barh(at, ratios, height=0.38, label=f"{number:,} instances")
    axes.axvline(1, color="black", linewidth=1)
    axes.axvline(10, color="grey", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="times as fast as Nova")
    axes.set_yticks(range(len(names)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.legend()
