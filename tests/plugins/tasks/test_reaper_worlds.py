# SPDX-License-Identifier: Apache-2.0
"""A thousand generated worlds for the reaper: never a good guest, and real garbage soon."""

import datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cepheid_plugins.compute import opts
from cepheid_plugins.compute.sightings import FILE_NAME
from cepheid_plugins.database import models
from cepheid_plugins.tasks.cleanup_running_deleted_instances import (
    CleanupRunningDeletedInstances,
)
from tests.worlds import fake_world, uuid_of

pytestmark = pytest.mark.process

RUNNING, SHUTDOWN = 1, 4
PASSES = 4

#: What a domain is in truth, and the row that it has.
KINDS = {
    "good": {"host": "host1", "vm_state": "active"},
    "soft-deleted": {"host": "host1", "vm_state": "soft-delete"},
    "incoming": {"host": "host2", "vm_state": "active", "task_state": "migrating"},
    "garbage": {"host": "host1", "vm_state": "deleted"},
    "garbage of another host": {"host": "host2", "vm_state": "deleted"},
    "imposter": {"host": "host1", "vm_state": "deleted"},
    "foreign": None,
}
GARBAGE = ("garbage", "garbage of another host")

#: What becomes wrong: from a pass on, or in that pass only.
FAULTS = (
    "none",
    "empty database",
    "live rows vanish",
    "restored copy",
    "another cell",
    "lag",
    "renamed host",
    "another hypervisor",
    "no answer",
)


@st.composite
def worlds(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    fault = draw(st.sampled_from(FAULTS))
    # An old copy can be told from the right database only by who has seen the right one.
    first = draw(st.integers(0 if fault in ("none", "another cell") else 1, PASSES - 2))
    states = draw(st.lists(st.sampled_from([RUNNING, SHUTDOWN]), min_size=6, max_size=6))
    minutes = draw(st.lists(st.integers(1, 20_000), min_size=6, max_size=6))
    return kinds, fault, first, states, minutes


class Reaper:
    """One agent whose world is made anew for each example."""

    def __init__(self, path):
        self.world = fake_world(path, {})
        self.world.agent.conf.register_opts(opts.OPTIONS, group="compute")
        (path / "instances").mkdir()
        self.task = self.world.agent.build(CleanupRunningDeletedInstances)
        self.world.agent.set(self.task.name, running_deleted_instance_action="reap")

    def make(self, kinds, states, minutes):
        world, hypervisor = self.world, self.world.hypervisor
        with world.engine.begin() as connection:
            connection.execute(sa.delete(models.instances))
        (world.path / FILE_NAME).unlink(missing_ok=True)
        hypervisor.__init__()
        self.task.agent.host = "host1"
        for number, kind in enumerate(kinds):
            hypervisor.states[uuid_of(number)] = states[number]
            name = "another name" if kind == "imposter" else f"guest-{number}"
            hypervisor.names[uuid_of(number)] = name
            if KINDS[kind] is not None:
                world.add(number, **KINDS[kind])
            if kind in GARBAGE or kind == "imposter":
                self.delete(number, minutes[number])

    def delete(self, number, minutes_ago):
        deleted_at = self.world.clock.utcnow() - datetime.timedelta(minutes=minutes_ago)
        row_id = self.world.row(number).id
        self.world.update(number, deleted=row_id, deleted_at=deleted_at)

    def live(self):
        table = models.instances
        with self.world.engine.connect() as connection:
            rows = connection.execute(sa.select(table.c.uuid).where(table.c.deleted == 0))
            return [uuid for (uuid,) in rows]

    def break_down(self, fault, kinds, minutes):
        """Let a fault begin; return what ends it."""
        world, table = self.world, models.instances
        alive = [n for n in range(len(kinds)) if uuid_of(n) in self.live()]
        if fault in ("empty database", "live rows vanish"):
            with world.engine.begin() as connection:
                gone = sa.delete(table)
                connection.execute(gone if "empty" in fault else gone.where(table.c.deleted == 0))
        elif fault in ("restored copy", "another cell"):
            # They had been deleted by mistake once, or left that cell, before they were seen.
            for number in alive:
                self.delete(number, 30 * PASSES + minutes[number])
        elif fault == "lag":
            for number in alive:
                self.delete(number, 1)
        elif fault == "renamed host":
            self.task.agent.host = "host9"
        elif fault == "another hypervisor":
            world.hypervisor.system_uuid = "another machine"
        elif fault == "no answer":
            world.hypervisor.available = False
        return alive

    def end_lag(self, alive):
        for number in alive:
            self.world.update(number, deleted=0, deleted_at=None)


@pytest.fixture(scope="module")
def reaper(tmp_path_factory):
    reaper = Reaper(tmp_path_factory.mktemp("reaper"))
    yield reaper
    reaper.world.close()


@settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(example=worlds())
def test_no_good_guest_is_ever_destroyed_and_real_garbage_is_gone_in_three_passes(reaper, example):
    kinds, fault, first, states, minutes = example
    reaper.make(kinds, states, minutes)
    hypervisor = reaper.world.hypervisor
    for number in range(PASSES):
        alive = reaper.break_down(fault, kinds, minutes) if number == first else []
        run = reaper.world.agent.run(reaper.task)
        assert fault != "none" or run.outcome in ("ok", "partial")
        if fault == "lag":
            reaper.end_lag(alive)
        reaper.world.clock.sleep(1800)
        if fault == "none" and number == 2 and any(KINDS[k] == KINDS["good"] for k in kinds):
            left = [k for n, k in enumerate(kinds) if uuid_of(n) in hypervisor.states]
            assert not set(left) & set(GARBAGE)
    for number, kind in enumerate(kinds):
        if kind not in GARBAGE:
            assert hypervisor.states[uuid_of(number)] == states[number], (kind, fault)
    touched = {uuid for act, uuid in hypervisor.acts}
    assert touched <= {uuid_of(n) for n, kind in enumerate(kinds) if kind in GARBAGE}
