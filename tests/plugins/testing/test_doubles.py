# SPDX-License-Identifier: Apache-2.0
"""The doubles of the bundled kinds: they keep the contracts, and need the core alone."""

import inspect
import subprocess
import sys

import pytest

from cepheid.testing import FakeClock, doubles
from cepheid_plugins.compute import power_state
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.records import NewInstance
from cepheid_plugins.hypervisor.driver import HypervisorUnavailable
from cepheid_plugins.testing.hypervisor import MemoryHypervisor
from cepheid_plugins.testing.inventory import MemoryInventory, NotInMemory
from cepheid_plugins.testing.names import uuid_of
from cepheid_plugins.testing.sqlite_inventory import SqliteInventory
from tests.contracts import HypervisorContract, InventoryContract
from tests.test_conventions import HEAVY

KINDS = ("bandwidth", "database", "hypervisor", "network", "notifications", "scheduler")


class TestHypervisor(HypervisorContract):
    @pytest.fixture
    def running(self):
        return uuid_of(0)

    @pytest.fixture
    def hypervisor(self):
        return MemoryHypervisor([(uuid_of(0), "guest-0", power_state.RUNNING)])


@pytest.fixture(params=[MemoryInventory, SqliteInventory])
def inventory(request, tmp_path):
    clock = FakeClock()
    if request.param is SqliteInventory:
        made = SqliteInventory(clock, tmp_path)
    else:
        made = MemoryInventory(clock)
    yield made
    made.close()


class TestInventory(InventoryContract):
    @pytest.fixture
    def uuids(self, inventory):
        uuids = [uuid_of(number) for number in range(3)]
        for number, uuid in enumerate(uuids):
            inventory.create_instances(
                [NewInstance(uuid, f"guest-{number}", "host1", "node1", "active", 1, 1, 128, 0)]
            )
        return uuids


def test_what_is_in_memory_is_called_as_in_the_database():
    kept = [
        name
        for name, function in vars(MemoryInventory).items()
        if inspect.isfunction(function) and not name.startswith("_") and hasattr(Database, name)
    ]
    assert len(kept) >= 15
    for name in kept:
        ours, theirs = (inspect.signature(getattr(c, name)) for c in (MemoryInventory, Database))
        assert list(ours.parameters) == list(theirs.parameters), name


def test_what_is_not_in_memory_says_what_has_it():
    with pytest.raises(NotInMemory, match=r"no attached_volumes.*cepheid\[database\]"):
        MemoryInventory(FakeClock()).attached_volumes("host1")


@pytest.mark.parametrize("kind", KINDS)
def test_every_bundled_kind_has_a_double(kind, tmp_path):
    double = doubles.make(kind, FakeClock(), tmp_path)
    assert issubclass(double.unavailable, Exception)


def test_the_doubles_make_alike_worlds_by_number(inventory):
    hypervisor = MemoryHypervisor()
    for double in (inventory, hypervisor):
        double.populate(range(26))
    rows = {row.uuid: row for row in inventory.instances_on_host("host1")}
    assert set(rows) == set(hypervisor.domains())
    assert {row.vm_state for row in rows.values()} > {"active", "building", "soft-delete"}
    assert hypervisor.changes == inventory.changes == 0


def test_with_the_core_alone_a_vendors_test_plays_on_both():
    blocked = "\n".join(f"sys.modules[{library!r}] = None" for library in HEAVY)
    script = f"""
import sys
{blocked}
import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.testing import Player

class WatchGuests(cepheid.Task):
    \"\"\"Watch.\"\"\"

    drivers = ("database", "hypervisor")

    @periodic_task(spacing=60)
    def watch_guests(self, context):
        rows = self.agent.driver("database").instances_on_host(self.agent.host)
        context.count("gone", len(rows) - len(self.agent.driver("hypervisor").domains()))

from importlib import util
found = util.find_spec
util.find_spec = lambda name, *rest: None if name in ("sqlalchemy", "oslo_db") else found(name)
with Player(WatchGuests) as player:
    player.driver("database").populate(range(10))
    player.driver("hypervisor").populate(range(7))
    print(player.play(hours=1).runs[0].counters)
"""
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert (done.stdout, done.stderr) == ("{'gone': 3}\n", "")


def test_a_hypervisor_that_vanishes_says_so_as_the_real_one_does(tmp_path):
    from cepheid.testing import Faults, Watched

    double = doubles.make("hypervisor", FakeClock(), tmp_path)
    faults = Faults(double, FakeClock())
    faults.vanish()
    with pytest.raises(HypervisorUnavailable):
        Watched(double, faults).domains()
