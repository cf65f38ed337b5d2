# SPDX-License-Identifier: Apache-2.0
"""Generated worlds: what each task says that it would do is what it then does, to the instance."""

import datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cepheid.explanation import Kind, Subject
from cepheid_plugins.compute import opts
from cepheid_plugins.database import models
from cepheid_plugins.tasks.check_instance_build_time import CheckInstanceBuildTime
from cepheid_plugins.tasks.reclaim_queued_deletes import ReclaimQueuedDeletes
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from tests.worlds import fake_world, uuid_of

pytestmark = pytest.mark.process

NUMBERS = range(4)
MINUTE = datetime.timedelta(minutes=1)
STATES = (0, 1, 3, 4, 6, 7)

VM_STATES = (
    "active", "building", "stopped", "paused", "suspended", "rescued", "soft-delete", "shelved",
    "error", "deleted",
)  # fmt: skip

TASK_STATES = (None, None, None, "deleting", "restoring", "rebooting", "reboot_started_hard")

#: By task: its options, and which live instances of this host it always has a verdict on.
TASKS = {
    "reclaim": (
        ReclaimQueuedDeletes,
        {"reclaim_instance_interval": 1800},
        lambda row: row["vm_state"] == "soft-delete",
    ),
    "build": (
        CheckInstanceBuildTime,
        {"instance_build_timeout": 1800},
        lambda row: row["vm_state"] == "building",
    ),
    "enforce": (SyncPowerStates, {"policy": "enforce"}, lambda row: True),
    "follow": (SyncPowerStates, {"policy": "follow"}, lambda row: True),
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
    }
)


@st.composite
def worlds(draw):
    rows = draw(st.lists(st.none() | instances, min_size=len(NUMBERS), max_size=len(NUMBERS)))
    states = draw(st.lists(st.none() | st.sampled_from(STATES), min_size=4, max_size=4))
    return rows, states, draw(st.integers(0, 3)), draw(st.booleans())


class Stage:
    """One agent with all tasks whose world is made anew for each example."""

    def __init__(self, path):
        self.world = fake_world(path, {})
        self.world.agent.conf.register_opts(opts.OPTIONS, group="compute")
        self.world.agent.set("compute", instances_path=str(path / "instances"))
        (path / "instances").mkdir()
        self.tasks = {}
        for factory, _, _ in TASKS.values():
            self.tasks[factory] = self.world.agent.build(factory)

    def make(self, rows, states):
        """Make instances and domains; those of no state have no domain, those of no row none."""
        world = self.world
        world.hypervisor.__init__(
            (uuid_of(n), f"guest-{n}", state) for n, state in enumerate(states) if state is not None
        )
        with world.engine.begin() as connection:
            for table in (models.instance_actions_events, models.instance_actions):
                connection.execute(sa.delete(table))
            connection.execute(sa.delete(models.instances))
        now = world.clock.utcnow()
        for number, row in enumerate(rows):
            if row is None:
                continue
            times = {
                name: None if row[name] is None else now - row[name] * MINUTE
                for name in ("created_at", "updated_at", "launched_at", "deleted_at")
            }
            if row["vm_state"] not in ("deleted", "soft-delete"):
                times["deleted_at"] = None
            world.add(number, **{**row, **times})


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.world.close()


def subject(number):
    return Subject("instance", f"guest-{number}", frozenset({uuid_of(number)}))


@pytest.mark.parametrize("name", sorted(TASKS))
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(example=worlds())
def test_a_task_does_what_it_says_and_says_why_where_it_does_nothing(stage, name, example):
    rows, states, max_changes, answers = example
    factory, values, concerns = TASKS[name]
    world, task = stage.world, stage.tasks[factory]
    stage.make(rows, states)
    world.agent.set(task.name, max_changes=max_changes, **values)
    world.hypervisor.available = answers
    statements = world.database.statements.copy()
    said = {number: task.explain(subject(number)) for number in NUMBERS}
    sent = world.database.statements - statements
    assert set(sent) <= {"BEGIN", "SELECT"}, "an explanation reads only"
    assert world.hypervisor.acts == []

    run = world.agent.run(task)
    for number, verdicts in said.items():
        uuid = uuid_of(number)
        kinds = {verdict.kind for verdict in verdicts}
        outcomes = {c.kind: c.outcome for c in run.changes if c.target == uuid}
        tried = {kind for kind, outcome in outcomes.items() if outcome != "refused"}
        promised = {v.evidence["change"] for v in verdicts if v.kind is Kind.ACTS}
        assert promised == tried, (verdicts, outcomes)
        assert (Kind.REFUSED in kinds) == ("refused" in outcomes.values())
        assert (Kind.UNKNOWN in kinds) == bool(run.error)
        row = rows[number]
        if row is not None and row["host"] == "host1" and concerns(row):
            assert kinds != {Kind.UNCONCERNED}, "it says nothing about an instance of its own"
        assert all(verdict.text for verdict in verdicts)
