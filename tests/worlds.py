# SPDX-License-Identifier: Apache-2.0
"""Hosts for tests: a real inventory on SQLite; domains in a fake or in libvirt's test driver."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import sqlalchemy as sa

from cepheid_plugins.compute import opts as compute_opts
from cepheid_plugins.compute import power_state
from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.driver import Database
from cepheid_plugins.database.records import NewInstance
from cepheid_plugins.hypervisor import opts as hypervisor_opts
from cepheid_plugins.testing.names import uuid_of
from cepheid_plugins.testing.sqlite_inventory import make_tables
from tests.fake_agent import FakeAgent, FakeClock
from tests.fakes import FakeHypervisor

#: What the test driver calls each power state. Source: virDomainState.
RUN_STATES = {
    power_state.RUNNING: 1,
    power_state.PAUSED: 3,
    power_state.SHUTDOWN: 5,
    power_state.CRASHED: 6,
}


def node_xml(states: Iterable[int]) -> str:
    """Return a host for libvirt's test driver, with a domain in each power state given."""
    domains = "".join(
        f"""
  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <name>{escape(f"guest-{number}")}</name><uuid>{uuid_of(number)}</uuid>
    <memory unit='MiB'>128</memory><vcpu>2</vcpu>
    <os><type arch='x86_64'>hvm</type></os>
    <on_crash>preserve</on_crash>
    <test:runstate>{RUN_STATES[state]}</test:runstate>
  </domain>"""
        for number, state in enumerate(states)
    )
    return f"<node>{domains}\n</node>\n"


class World:
    """An agent with a real, migrated inventory on SQLite.

    :param hypervisor: a driver; by default libvirt's test driver with a domain for each state
    """

    def __init__(
        self,
        path: Path,
        hypervisor: Any = None,
        states: Iterable[int] = (),
        settings: str = "",
        clock: FakeClock | None = None,
    ) -> None:
        self.path = path
        self.agent = FakeAgent(path, settings=settings, clock=clock)
        self.clock: Any = self.agent.clock
        self.agent.conf.register_opts(Database.options, group="database")
        self.database = Database(self.agent)
        make_tables(self.database)
        self.database.statements.clear()
        self.agent.drivers.use("database", self.database)
        if hypervisor is None:
            from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor

            (path / "node.xml").write_text(node_xml(states))
            self.agent.conf.register_opts(hypervisor_opts.OPTIONS, group="hypervisor")
            self.agent.set("hypervisor", uri=f"test:///{path}/node.xml")
            hypervisor = LibvirtHypervisor(self.agent)
        self.hypervisor = hypervisor
        self.agent.drivers.use("hypervisor", hypervisor)

    def add(self, number: int, **columns: Any) -> str:
        """Insert an instance, active and running unless told otherwise; return its uuid."""
        self.add_many([number], **columns)
        return uuid_of(number)

    def add_many(self, numbers: Iterable[int], **columns: Any) -> None:
        """Insert alike instances."""
        created_at = self.clock.utcnow() - datetime.timedelta(hours=1)
        values = {
            "host": "host1",
            "vm_state": "active",
            "power_state": power_state.RUNNING,
            "created_at": created_at,
            "launched_at": created_at,
            "deleted": 0,
            "hidden": False,
            **columns,
        }
        rows = [
            {"uuid": uuid_of(number), "display_name": f"guest-{number}", **values}
            for number in numbers
        ]
        with self.engine.begin() as connection:
            connection.execute(sa.insert(models.instances), rows)

    def row(self, number: int) -> Any:
        """Return an instance's row, all columns."""
        table = models.instances
        with self.engine.connect() as connection:
            return connection.execute(sa.select(table).where(table.c.uuid == uuid_of(number))).one()

    def rows(self, table: sa.Table) -> list[Any]:
        """Return all rows of a table."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(table).order_by(table.c.id)))

    def update(self, number: int, **values: Any) -> None:
        """Write to an instance as somebody else would."""
        table = models.instances
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(table).where(table.c.uuid == uuid_of(number)).values(**values)
            )

    @property
    def engine(self) -> sa.Engine:
        """An engine of the test's own, so that the agent's statements are not mixed with it."""
        if not hasattr(self, "_engine"):
            self._engine = sa.create_engine(self.database.url, poolclass=sa.NullPool)
        return self._engine

    def statements(self) -> int:
        """Return how many statements the agent has sent, transactions' borders not counted."""
        words = self.database.statements
        return sum(words[word] for word in ("SELECT", "INSERT", "UPDATE", "DELETE"))

    def close(self) -> None:
        """Close the agent."""
        self.agent.close()


def fake_world(path: Path, states: dict[int, int | None], **options: Any) -> World:
    """Return a world with fake domains: their power states by number."""
    domains = [(uuid_of(n), f"guest-{n}", state) for n, state in states.items()]
    return World(path, FakeHypervisor(domains), **options)


def disk_world(path: Path, numbers: Iterable[int], **options: Any) -> World:
    """Return a world with running fake domains, each with a real disk, flavor and network cache."""
    world = fake_world(path, dict.fromkeys(numbers, power_state.RUNNING), **options)
    world.agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
    (path / "instances").mkdir()
    for number in numbers:
        add_with_disk(world, number)
    return world


def other_host(world: World, path: Path, states: dict[int, int | None]) -> World:
    """Return host2 with fake domains: the same inventory and the same clock."""
    domains = [(uuid_of(n), f"guest-{n}", state) for n, state in states.items()]
    settings = f"host = host2\n[database]\nconnection = {world.database.url}\n"
    return World(path, FakeHypervisor(domains), settings=settings, clock=world.clock)


def move(world: World, number: int, seconds_ago: float = 0, **columns: Any) -> None:
    """Let Nova move an instance from this host to host2, where it waits for its confirmation.

    :param columns: of the migration
    """
    instances = world.path / "instances"
    if (instances / uuid_of(number)).exists():
        (instances / uuid_of(number)).rename(instances / f"{uuid_of(number)}_resize")
    world.hypervisor.states[uuid_of(number)] = power_state.SHUTDOWN
    move_many(world, [number], seconds_ago, **columns)


def move_many(world: World, numbers: Iterable[int], seconds_ago: float = 0, **columns: Any) -> None:
    """Write that instances were moved so."""
    uuids, now = [uuid_of(number) for number in numbers], world.clock.utcnow()
    values = {
        "status": "finished",
        "migration_type": "migration",
        "source_compute": "host1",
        "dest_compute": "host2",
        "updated_at": now - datetime.timedelta(seconds=seconds_ago),
        "deleted": 0,
        **columns,
    }
    moved = {"host": "host2", "node": "node2", "vm_state": "resized", "updated_at": now}
    with world.engine.begin() as connection:
        table = models.instances
        connection.execute(sa.update(table).where(table.c.uuid.in_(uuids)).values(moved))
        connection.execute(
            sa.insert(models.migrations), [{"instance_uuid": uuid, **values} for uuid in uuids]
        )


def add_with_disk(world: World, number: int, **columns: Any) -> str:
    """Insert an instance as ``cepheid instance adopt`` would, whose domain has a disk of 1 MiB."""
    uuid = world.add(number, vcpus=1, memory_mb=128, root_gb=0, ephemeral_gb=0, **columns)
    new = NewInstance(uuid, f"guest-{number}", "host1", "node1", "active", 1, 1, 128, 0)
    with world.engine.begin() as connection:
        common = {"instance_uuid": uuid, "deleted": 0}
        connection.execute(
            sa.insert(models.instance_extra).values(flavor=flavors.of_new(new), **common)
        )
        connection.execute(
            sa.insert(models.instance_info_caches).values(network_info="[]", **common)
        )
    directory = world.path / "instances" / uuid
    directory.mkdir()
    disk = directory / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
    world.hypervisor.definitions[uuid] = (
        f"<domain type='test'><name>guest-{number}</name><uuid>{uuid}</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>"
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    return uuid


def let_another_domain_use(world: World, path: Path, number: int = 7) -> str:
    """Insert an instance whose running domain has this file as its disk; return its uuid."""
    uuid = world.add(number)
    world.hypervisor.states[uuid] = power_state.RUNNING
    world.hypervisor.names[uuid] = f"guest-{number}"
    world.hypervisor.definitions[uuid] = (
        f"<domain type='test'><name>guest-{number}</name><uuid>{uuid}</uuid>"
        "<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>"
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{path}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    return uuid
