# SPDX-License-Identifier: Apache-2.0
"""Generated worlds: what each task says that it would do is what it then does, to the instance."""

import datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cepheid.explanation import Kind
from cepheid_plugins.compute import opts
from cepheid_plugins.compute.sightings import FILE_NAME
from cepheid_plugins.database import models
from cepheid_plugins.tasks.check_instance_build_time import CheckInstanceBuildTime
from cepheid_plugins.tasks.cleanup_running_deleted_instances import (
    CleanupRunningDeletedInstances,
)
from cepheid_plugins.tasks.poll_rebooting_instances import PollRebootingInstances
from cepheid_plugins.tasks.poll_rescued_instances import PollRescuedInstances
from cepheid_plugins.tasks.poll_shelved_instances import PollShelvedInstances
from cepheid_plugins.tasks.poll_unconfirmed_resizes import PollUnconfirmedResizes
from cepheid_plugins.tasks.reclaim_queued_deletes import ReclaimQueuedDeletes
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from tests.explained import agree, ask, instance
from tests.worlds import fake_world, uuid_of

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

NUMBERS = range(4)
MINUTE = datetime.timedelta(minutes=1)
STATES = (0, 1, 3, 4, 6, 7)

VM_STATES = (
    "active", "building", "stopped", "paused", "suspended", "rescued", "soft-delete", "shelved",
    "resized", "error", "deleted",
)  # fmt: skip

TASK_STATES = (
    None, None, None, "deleting", "restoring", "rebooting", "reboot_started", "rebooting_hard",
    "resize_finish", "unrescuing",
)  # fmt: skip

MIGRATIONS = (None, None, "finished", "confirming", "confirmed")


def is_live(row):
    return not row["is_deleted"]


#: By task: its options, and which live instances of this host it always has a verdict on.
TASKS = {
    "reclaim": (
        ReclaimQueuedDeletes,
        {"reclaim_instance_interval": 1800},
        lambda row: is_live(row) and row["vm_state"] == "soft-delete",
    ),
    "build": (
        CheckInstanceBuildTime,
        {"instance_build_timeout": 1800},
        lambda row: is_live(row) and row["vm_state"] == "building",
    ),
    "reboot": (
        PollRebootingInstances,
        {"reboot_timeout": 1800},
        lambda row: is_live(row) and "reboot" in (row["task_state"] or ""),
    ),
    "rescue": (
        PollRescuedInstances,
        {"rescue_timeout": 1800},
        lambda row: is_live(row) and row["vm_state"] == "rescued",
    ),
    "shelve": (
        PollShelvedInstances,
        {"shelved_offload_time": 1800},
        lambda row: is_live(row) and row["vm_state"] == "shelved",
    ),
    "resize": (
        PollUnconfirmedResizes,
        {"resize_confirm_window": 1800},
        lambda row: (
            row["migration"] == "finished"
            and row["resized_at"] is not None
            and row["resized_at"] >= 0
        ),
    ),
    "log": (
        CleanupRunningDeletedInstances,
        {"running_deleted_instance_action": "log"},
        lambda row: row["is_deleted"] and row["has_domain"],
    ),
    "shutdown": (
        CleanupRunningDeletedInstances,
        {"running_deleted_instance_action": "shutdown", "running_deleted_instance_timeout": 600},
        lambda row: row["is_deleted"] and row["has_domain"],
    ),
    "reap": (
        CleanupRunningDeletedInstances,
        {"running_deleted_instance_action": "reap"},
        lambda row: row["is_deleted"] and row["has_domain"],
    ),
    "off": (
        CleanupRunningDeletedInstances,
        {"running_deleted_instance_action": "noop"},
        lambda row: True,
    ),
    "enforce": (SyncPowerStates, {"policy": "enforce"}, lambda row: is_live(row)),
    "follow": (SyncPowerStates, {"policy": "follow"}, lambda row: is_live(row)),
}

minutes = st.one_of(st.none(), st.integers(-5, 90))
instances = st.fixed_dictionaries(
    {
        "vm_state": st.sampled_from(VM_STATES),
        "task_state": st.sampled_from(TASK_STATES),
        "power_state": st.sampled_from(STATES),
        "created_at": minutes,
        "updated_at": minutes,
        "launched_at": minutes,
        "deleted_at": minutes,
        "host": st.sampled_from(["host1", "host1", "host1", "host2"]),
        "shutdown_terminate": st.booleans(),
        "is_deleted": st.sampled_from([False, False, False, True]),
        "shelved_at": st.sampled_from(
            ["", "yesterday", "2026-11-23T10:00:00", "2026-11-23T11:59:00"]
        ),
        "migration": st.sampled_from(MIGRATIONS),
        "resized_at": minutes,
        "is_typical": st.booleans(),
    }
)


@st.composite
def worlds(draw):
    rows = draw(st.lists(st.none() | instances, min_size=len(NUMBERS), max_size=len(NUMBERS)))
    states = draw(st.lists(st.none() | st.sampled_from(STATES), min_size=4, max_size=4))
    return rows, states, draw(st.integers(0, 3)), draw(st.sampled_from([True] * 7 + [False]))


class Stage:
    """One agent with all tasks whose world is made anew for each example."""

    TABLES = (
        models.instance_actions_events,
        models.instance_actions,
        models.instance_faults,
        models.instance_system_metadata,
        models.migrations,
        models.instances,
    )

    def __init__(self, path):
        self.world = fake_world(path, {})
        self.world.agent.conf.register_opts(opts.OPTIONS, group="compute")
        self.world.agent.set("compute", instances_path=str(path / "instances"))
        (path / "instances").mkdir()
        self.tasks = {factory: self.world.agent.build(factory) for factory, _, _ in TASKS.values()}

    def make(self, rows, states):
        """Make instances and domains; those of no state have no domain, those of no row none."""
        world = self.world
        (world.path / FILE_NAME).unlink(missing_ok=True)
        world.hypervisor.__init__(
            [(uuid_of(n), f"guest-{n}", s) for n, s in enumerate(states) if s is not None]
        )
        with world.engine.begin() as connection:
            for table in self.TABLES:
                connection.execute(sa.delete(table))
        # A host without any instance is not trusted.
        world.add(99)
        for number, row in enumerate(rows):
            if row is not None:
                row["has_domain"] = states[number] is not None
                self.add(number, row)

    def add(self, number, row):
        world, uuid = self.world, uuid_of(number)
        now = world.clock.utcnow()
        columns = {name: row[name] for name in ("vm_state", "task_state", "power_state", "host",
                                                "shutdown_terminate")}  # fmt: skip
        for name in ("created_at", "updated_at", "launched_at", "deleted_at"):
            columns[name] = None if row[name] is None else now - row[name] * MINUTE
        if not row["is_deleted"] and row["vm_state"] != "soft-delete":
            columns["deleted_at"] = None
        world.add(number, **columns)
        if row["is_deleted"]:
            world.update(number, deleted=world.row(number).id)
        with world.engine.begin() as connection:
            connection.execute(
                sa.insert(models.instance_system_metadata).values(
                    instance_uuid=uuid, key="shelved_at", value=row["shelved_at"], deleted=0
                )
            )
            if row["migration"] is not None:
                at = None if row["resized_at"] is None else now - row["resized_at"] * MINUTE
                connection.execute(
                    sa.insert(models.migrations).values(
                        instance_uuid=uuid, status=row["migration"], migration_type="resize",
                        source_compute=row["host"], dest_compute="host1", updated_at=at, deleted=0,
                    )
                )  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.world.close()


#: What an instance of which a task does something is like.
LATE = {"task_state": None, "host": "host1", "is_deleted": False}
TYPICAL = {
    "reclaim": {**LATE, "vm_state": "soft-delete", "deleted_at": 60, "power_state": 4},
    "build": {**LATE, "vm_state": "building", "created_at": 60},
    "reboot": {**LATE, "vm_state": "active", "task_state": "rebooting", "updated_at": 60},
    "rescue": {**LATE, "vm_state": "rescued", "launched_at": 60},
    "shelve": {**LATE, "vm_state": "shelved", "shelved_at": "2026-11-20T10:00:00"},
    "resize": {**LATE, "vm_state": "resized", "migration": "finished", "resized_at": 60},
    "shutdown": {"host": "host1", "is_deleted": True, "deleted_at": 60},
    "reap": {"host": "host1", "is_deleted": True, "deleted_at": 60},
    "enforce": LATE,
    "follow": LATE,
}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_does_what_it_says_and_says_why_where_it_does_nothing(stage, name):
    factory, values, concerns = TASKS[name]
    world, task = stage.world, stage.tasks[factory]
    subjects = [instance(uuid_of(number)) for number in NUMBERS]
    heard = set()

    @settings(
        max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(example=worlds())
    def in_each_world(example):
        rows, states, max_changes, answers = example
        rows = [row and ({**row, **TYPICAL.get(name, {})} if row["is_typical"] else dict(row))
                for row in rows]  # fmt: skip
        stage.make(rows, states)
        world.agent.set(task.name, max_changes=max_changes, **values)
        world.hypervisor.available = answers
        said = ask(world, task, subjects)
        for number, row in enumerate(rows):
            kinds = {verdict.kind for verdict in said[uuid_of(number)]}
            heard.update(kinds)
            if row is not None and row["host"] == "host1" and concerns(row):
                assert kinds != {Kind.UNCONCERNED}, "it says nothing about an instance of its own"
        agree(said, world.agent.run(task))
        # The second time some have been seen before, and some have been tried.
        said = ask(world, task, subjects)
        heard.update(verdict.kind for verdicts in said.values() for verdict in verdicts)
        agree(said, world.agent.run(task))

    in_each_world()
    # Worlds in which nothing is ever done prove nothing.
    assert (Kind.ACTS in heard) == (name in TYPICAL), heard
