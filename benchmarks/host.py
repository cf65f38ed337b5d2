# SPDX-License-Identifier: Apache-2.0
"""A host of N instances for measuring: domains on libvirt's test driver, rows, files."""

from __future__ import annotations

import datetime
import functools
import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pymysql
import sqlalchemy as sa

from benchmarks.counters import add_counters
from cepheid.clock import Clock
from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.compute import opts as compute_opts
from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.records import NewInstance
from cepheid_plugins.network import network_info
from cepheid_plugins.network.libvirt_driver import LibvirtNetwork
from cepheid_plugins.storage import image_names
from tests.fakes import FakeScheduler
from tests.worlds import World, uuid_of

#: The image that all disks stand on.
IMAGE = "0f9a4e02-5d0c-4b6e-9c51-1e3f3a6d6a11"

#: Bytes of a qcow2 file that say what it is and what it stands on; the rest is a hole.
HEAD_BYTES = 64 * 1024

_NETWORK = """
  <network><name>default</name><bridge name='virbr0'/>
    <ip address='192.168.122.1' netmask='255.255.0.0'>
      <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
    </ip>
  </network>"""

_DOMAIN = """
  <domain type='test'>
    <name>guest-{number}</name><uuid>{uuid}</uuid>
    <memory unit='MiB'>128</memory><vcpu>2</vcpu>
    <os><type arch='x86_64'>hvm</type></os>
    <devices>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
        <source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
      <disk type='network' device='disk'><source protocol='rbd' name='volumes/{volume}'>
        <host name='ceph' port='6789'/></source><target dev='vdb' bus='virtio'/></disk>
      <interface type='network'><mac address='{mac}'/><source network='default'/></interface>
    </devices>
  </domain>"""


class Host(World):
    """An agent with `number` running instances: a disk, a volume and an interface each.

    :param url: of an empty database; by default SQLite
    """

    def __init__(self, path: Path, number: int, url: sa.URL | None = None) -> None:
        self.number = number
        settings = f"[instance_usage_audit]\nenabled = true\n{NOTIFICATIONS}"
        if url is not None:
            settings += f"[database]\nconnection = {url.render_as_string(hide_password=False)}\n"
        super().__init__(path, settings=settings, clock=Clock())
        self.now = self.clock.utcnow()
        self.instances = path / "instances"
        self.agent.conf.register_opts(compute_opts.OPTIONS, group="compute")
        (path / "node.xml").write_text(self._node_xml())
        self.agent.drivers.use("network", LibvirtNetwork(self.agent))
        self.agent.drivers.use("bandwidth", LibvirtMeter(self.agent))
        self.agent.drivers.use("scheduler", FakeScheduler())
        self._make_files()
        self._fill()
        add_counters(self.hypervisor._connect())

    @functools.cached_property
    def raw(self) -> Raw:
        """The same without cepheid."""
        return Raw(self)

    @property
    def uuids(self) -> list[str]:
        """The instances' uuids."""
        return [uuid_of(number) for number in range(self.number)]

    def ago(self, **duration: float) -> datetime.datetime:
        """Return a time before the beginning."""
        return self.now - datetime.timedelta(**duration)

    def set_all(self, **columns: Any) -> None:
        """Write to all instances as somebody else would."""
        with self.engine.begin() as connection:
            connection.execute(sa.update(models.instances).values(**columns))

    def insert(self, table: sa.Table, make: Callable[[int], dict[str, Any]]) -> None:
        """Insert a row for each instance, by its number."""
        with self.engine.begin() as connection:
            connection.execute(sa.insert(table), [make(n) for n in range(self.number)])

    def cache_networks(self) -> None:
        """Let the caches of networks hold what the hypervisor tells now."""
        network, caches = self.agent.driver("network"), models.instance_info_caches
        found = [
            {"of": uuid, "text": json.dumps(list(network.look_up(uuid, [], []).vifs))}
            for uuid in self.uuids
        ]
        query = sa.update(caches).where(caches.c.instance_uuid == sa.bindparam("of"))
        with self.engine.begin() as connection:
            connection.execute(query.values(network_info=sa.bindparam("text")), found)

    def empty(self, table: sa.Table) -> None:
        """Delete all rows of a table."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(table))

    def close(self) -> None:
        """Close the agent and what the floor has open."""
        if "raw" in self.__dict__:
            self.raw.close()
        super().close()

    def _node_xml(self) -> str:
        domains = "".join(
            _DOMAIN.format(
                number=number,
                uuid=uuid_of(number),
                disk=self.instances / uuid_of(number) / "disk",
                volume=volume_of(number),
                mac=mac_of(number),
            )
            for number in range(self.number)
        )
        return f"<node>{_NETWORK}{domains}\n</node>\n"

    def _make_files(self) -> None:
        base = self.instances / "_base"
        base.mkdir(parents=True)
        (self.instances / "locks").mkdir()
        image = base / image_names.fingerprint(IMAGE)
        image.write_text("image")
        disk = self.path / "disk"
        command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", image, "-F", "raw"]
        subprocess.run([*command, disk, "1M"], check=True, stdin=subprocess.DEVNULL)
        head, size = disk.read_bytes()[:HEAD_BYTES], disk.stat().st_size
        for uuid in self.uuids:
            (self.instances / uuid).mkdir()
            with (self.instances / uuid / "disk").open("wb") as file:
                file.write(head)
                file.truncate(size)

    def _fill(self) -> None:
        if not self.number:
            return
        self.add_many(range(self.number), **self.columns())
        new = NewInstance("", "", "host1", "node1", "active", 1, 2, 128, 1)
        flavor = flavors.of_new(new)
        common = {"created_at": self.ago(hours=1), "deleted": 0}
        self.insert(
            models.instance_extra,
            lambda n: {"instance_uuid": uuid_of(n), "flavor": flavor, **common},
        )
        self.insert(
            models.instance_info_caches,
            lambda n: {"instance_uuid": uuid_of(n), "network_info": _network_info(n), **common},
        )
        self.insert(
            models.block_device_mapping,
            lambda n: {
                "instance_uuid": uuid_of(n),
                "volume_id": volume_of(n),
                "device_name": "/dev/vdb",
                "source_type": "volume",
                "destination_type": "volume",
                "boot_index": None,
                **common,
            },
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns that all instances have alike, when nothing is the matter."""
        return {
            "node": "node1",
            "hostname": "guest",
            "vm_state": "active",
            "task_state": None,
            "memory_mb": 128,
            "vcpus": 2,
            "root_gb": 1,
            "ephemeral_gb": 0,
            "user_id": "4c9b7b4e5e5c4d0c8f7a5d0b0f6f4f11",
            "project_id": "9f6e0a54c6f14a33a1f5a1c8b9f0ad22",
            "availability_zone": "nova",
            "image_ref": IMAGE,
            "shutdown_terminate": False,
            "cleaned": 0,
            "updated_at": self.ago(minutes=10),
            "launched_at": self.ago(minutes=50),
            "deleted_at": None,
        }


class Raw:
    """The same without cepheid: libvirt-python and the database's own module."""

    def __init__(self, host: Host) -> None:
        self._url = host.database.url
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        if not self.is_sqlite:
            self._connect()
        # Another connection to the same file has domains of its own, all alike.
        self.libvirt = add_counters(libvirt.open(host.agent.conf.hypervisor.uri))
        self.statements: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        #: Those of them that ask of all domains.
        self.bulk_calls: Counter[str] = Counter()
        #: The columns that the queries returned, and how many rows.
        self.selected: list[tuple[int, int]] = []

    def _connect(self) -> None:
        url = self._url
        self._database: Any
        if self.is_sqlite:
            self._database = sqlite3.connect(url.database or "", isolation_level=None)
        else:
            self._database = pymysql.connect(
                host=url.host, port=url.port, user=url.username, database=url.database,
                charset="utf8", autocommit=True,
            )  # fmt: skip
        self._cursor = self._database.cursor()

    def begin(self) -> None:
        """Begin a pass: open the file of SQLite, as it may be another one by now."""
        if self.is_sqlite:
            self._connect()

    def end(self) -> None:
        """End a pass: close the file of SQLite. Who closes it last writes its log back to it."""
        if self.is_sqlite:
            self._database.close()

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query, as the module makes them.

        :param query: with a question mark for each value
        """
        self._cursor.execute(query if self.is_sqlite else query.replace("?", "%s"), values)
        rows: list[tuple[Any, ...]] = list(self._cursor.fetchall())
        self.statements["SELECT"] += 1
        self.selected.append((len(self._cursor.description), len(rows)))
        return rows

    def time(self, at: datetime.datetime) -> Any:
        """Return a time as a parameter."""
        # SQLite has no type for it: it compares the text that SQLAlchemy writes.
        return at.isoformat(" ", "microseconds") if self.is_sqlite else at

    def stats(self, groups: int, flags: int = 0) -> list[tuple[Any, dict[str, Any]]]:
        """Return what the bulk call tells of all domains."""
        self._count_bulk("virConnectGetAllDomainStats")
        told: list[tuple[Any, dict[str, Any]]] = self.libvirt.getAllDomainStats(groups, flags)
        return told

    def domains(self) -> list[tuple[str, str, int]]:
        """Return uuid, name and state of all domains: the bulk call, and what is in it."""
        stats = self.stats(libvirt.VIR_DOMAIN_STATS_STATE)
        return [(one.UUIDString(), one.name(), told["state.state"]) for one, told in stats]

    def names(self) -> list[tuple[str, str]]:
        """Return uuid and name of all domains: the call that lists them, and what is in it."""
        self._count_bulk("virConnectListAllDomains")
        return [(one.UUIDString(), one.name()) for one in self.libvirt.listAllDomains(0)]

    def _count_bulk(self, name: str) -> None:
        self.calls[name] += 1
        self.bulk_calls[name] += 1

    def close(self) -> None:
        """Close both."""
        self._database.close()
        self.libvirt.close()


#: The audit has somebody to tell, who does nothing.
NOTIFICATIONS = "[oslo_messaging_notifications]\ndriver = noop\n"


def volume_of(number: int) -> str:
    """Return the id of the volume of an instance."""
    return uuid_of(number).replace("ce", "5e", 1)


def mac_of(number: int) -> str:
    """Return the MAC of the interface of an instance."""
    return f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _network_info(number: int) -> str:
    fixed = network_info.ip(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
    subnet = network_info.subnet("10.0.0.0/8", [fixed], "10.0.0.1", ["10.0.0.2"])
    network = network_info.network("b2d0", "default", "virbr0", [subnet], {"injected": False})
    vif = network_info.vif(
        uuid_of(number), mac_of(number), network=network, type="network", active=True
    )
    return json.dumps([vif])


def marks(values: Any) -> str:
    """Return a question mark for each value, in brackets."""
    return f"({', '.join('?' * len(values))})"
