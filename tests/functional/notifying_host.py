# SPDX-License-Identifier: Apache-2.0
"""A host that tells of a volume of its one guest, by a real program in processes of its own."""

from __future__ import annotations

import datetime
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import models
from tests.functional.agents import Installation
from tests.functional.processes import PATIENCE_SECONDS, wait_until
from tests.functional.rabbitmq import RabbitMQ
from tests.worlds import uuid_of

TASK = "poll_volume_usage"
SCRIPT = Path(__file__).parent / "notifying.py"

NODE = f"""<node>
  <domain type='test'><name>guest-1</name><uuid>{uuid_of(1)}</uuid>
    <memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type>hvm</type></os>
    <devices><disk type='file' device='disk'><source file='/guest.img'/><target dev='vda'/></disk>
    </devices>
  </domain>
</node>
"""


#: Before every month that is audited.
LAUNCHED_AT = datetime.datetime(2026, 1, 1)

#: Its row.
INSTANCE = {
    "uuid": uuid_of(1), "host": "host1", "display_name": "web", "vm_state": "active",
    "power_state": 1, "memory_mb": 512, "vcpus": 2, "root_gb": 10, "ephemeral_gb": 3,
    "project_id": "project-1", "user_id": "user-1", "deleted": 0, "hidden": False,
    "created_at": LAUNCHED_AT, "launched_at": LAUNCHED_AT,
}  # fmt: skip


def settings(broker: RabbitMQ, mode: str = "threading", more: str = "") -> str:
    return (
        f"concurrency = {mode}\nenabled_tasks = {TASK}\nvolume_usage_poll_interval = 1\n"
        "[oslo_messaging_notifications]\n"
        f"driver = messagingv2\ntransport_url = {broker.url}\n"
        "[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
        f"[notifications]\n{more}"
    )


class NotifyingHost(Installation):
    """A host with one guest on libvirt's test driver, whose disk is a volume."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(path, f"{text}\n[hypervisor]\nuri = test:///{path}/node.xml\n")
        (path / "node.xml").write_text(NODE)
        self.run("db", "sync")
        self.inventory = sa.create_engine(f"sqlite:///{path}/cepheid.sqlite", poolclass=sa.NullPool)
        with self.inventory.begin() as connection:
            connection.execute(sa.insert(models.instances).values(INSTANCE))
            connection.execute(
                sa.insert(models.block_device_mapping).values(
                    instance_uuid=uuid_of(1), volume_id="volume-1", device_name="/dev/vda",
                    destination_type="volume", deleted=0,
                )
            )  # fmt: skip

    def kill_agent(self) -> None:
        """End the agent as a crash would."""
        self.signal_agent(signal.SIGKILL)
        self.agent.wait(PATIENCE_SECONDS)

    def waiting(self) -> list[str]:
        """Return the ids of the messages that wait, in their order."""
        with sqlite3.connect(self.path / "cepheid-outbox.sqlite", timeout=10) as connection:
            rows = connection.execute("SELECT message_id FROM waiting ORDER BY id")
            return [row[0] for row in rows]

    def status(self) -> dict[str, Any]:
        """Return what ``cepheid notifications status`` tells."""
        told: dict[str, Any] = json.loads(self.run("notifications", "status", "-f", "json").stdout)
        return told

    def wait_for_waiting(self, count: int) -> list[str]:
        wait_until(lambda: len(self.waiting()) >= count, self.read_log)
        return self.waiting()

    def process(self, *words: str, mode: str = "threading") -> subprocess.Popen[str]:
        """Start what sends notifications by itself."""
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.conf), *words],
            env={**os.environ, "CEPHEID_TEST_CONCURRENCY": mode},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
