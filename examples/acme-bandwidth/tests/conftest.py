# SPDX-License-Identifier: Apache-2.0
"""A host in a temporary directory: a file of devices, and an agent that reads it."""

import datetime

import pytest

from cepheid import config
from cepheid.agent import Agent
from cepheid.clock import Clock

HEADING = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
"""


class Host(Clock):
    """Devices, options and the time of day, as a test wants them."""

    def __init__(self, path):
        self.path = path
        self.devices = path / "dev"
        self.now = datetime.datetime(2026, 11, 23, 12, 30)
        self.agents = []
        self.set_devices(lo=(5, 5))

    def utcnow(self):
        return self.now

    def set_devices(self, *lines, **devices):
        """Write the file: (received, sent) of each device, and other lines."""
        rows = [
            f"{name}: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n"
            for name, (received, sent) in devices.items()
        ]
        self.devices.write_text(HEADING + "".join(rows) + "".join(f"{line}\n" for line in lines))

    def agent(self, group, **options):
        """Return an agent whose options in this group say these things."""
        settings = {"device_file": self.devices, **options}
        file = self.path / "cepheid.conf"
        file.write_text(
            f"[DEFAULT]\nstate_path = {self.path}\nenabled_tasks = poll_bandwidth_usage\n"
            "[task_providers]\npoll_bandwidth_usage = acme-bandwidth\n"
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        self.agents.append(Agent(config.load([str(file)]), clock=self))
        return self.agents[-1]


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    for agent in host.agents:
        agent.close()
