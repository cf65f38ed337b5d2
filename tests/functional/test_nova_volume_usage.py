# SPDX-License-Identifier: Apache-2.0
"""poll_volume_usage and real Nova take turns on the rows of one cell."""

import json
import logging
import subprocess
import uuid

import pytest
import sqlalchemy as sa

from cepheid.clock import Clock
from cepheid_plugins.database.driver import Database
from cepheid_plugins.hypervisor.driver import BlockCounters
from cepheid_plugins.tasks.poll_volume_usage import PollVolumeUsage
from tests.fake_agent import FakeAgent
from tests.fakes import FakeHypervisor
from tests.functional import servers
from tests.functional.nova_cell import NovaCell
from tests.functional.processes import PATIENCE_SECONDS

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

RUNNING = 1

#: The example of Nova's arithmetic: what is done, and reads, bytes, writes, bytes.
EXAMPLE = [
    ("poll", [10, 0, 10, 0]),
    ("poll", [15, 0, 12, 0]),
    ("poll", [3, 0, 1, 0]),
    ("poll", [4, 0, 0, 2**40]),
    ("detach", [9, 0, 1, 2**40]),
    ("attach", None),
    ("poll", [1, 0, 0, 0]),
    ("poll", [30, 1, 1, 2**41]),
    ("detach", [0, 0, 0, 0]),
    ("attach", None),
    ("poll", [0, 0, 0, 0]),
]

#: What is on record after each: the totals of reads, and the present ones.
READS = [
    (0, 10), (0, 15), (15, 3), (18, 4), (27, 0), (27, 0), (27, 1), (27, 30), (57, 0), (57, 0),
    (57, 0),
]  # fmt: skip


class Nova:
    """Nova's own objects in a process of their own, which does what it is told."""

    def __init__(self, cell, path):
        with path.open("wb") as log:
            self._process = subprocess.Popen(
                cell.command("volume_usage.py", "serve"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._log = path

    def do(self, name, *arguments):
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._log.read_text()[-3000:]
        return json.loads(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def cell(request, server, tmp_path_factory):
    """A cell database that Nova has made."""
    path = tmp_path_factory.mktemp("cell")
    url = sa.make_url(f"sqlite:///{path}/cell.sqlite")
    if request.param != "sqlite":
        url = servers.new_database(server(request.param), "nova_cell")
    return NovaCell(path, url)


@pytest.fixture
def nova(cell, tmp_path):
    nova = Nova(cell, tmp_path / "nova.log")
    yield nova
    nova.close()


@pytest.fixture
def task(cell, tmp_path):
    """The task of host1's agent, on the cell."""
    settings = "[oslo_messaging_notifications]\ndriver = log\n"
    agent = FakeAgent(tmp_path, {"hypervisor": FakeHypervisor()}, settings, Clock())
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=cell.url.render_as_string(hide_password=False))
    agent.drivers.use("database", Database(agent))
    task = agent.build(PollVolumeUsage)
    agent.set(task.name, spacing=60)
    yield task
    agent.close()


def test_nova_goes_on_with_our_rows_and_we_with_novas(cell, nova, task, caplog):
    """One volume Nova meters alone, one we alone, one by turns: the sums are always the same."""
    volumes = {name: str(uuid.uuid4()) for name in ("nova", "ours", "turns")}
    instances = cell.write(
        [
            {"display_name": name, "vm_state": "active", "power_state": RUNNING, "volume": volume,
             "availability_zone": "zone-1" if name == "turns" else None}
            for name, volume in volumes.items()
        ]
    )  # fmt: skip
    hypervisor = task.agent.driver("hypervisor")
    hypervisor.states.update(dict.fromkeys(instances.values(), RUNNING))
    found = []
    for number, (name, counters) in enumerate(EXAMPLE):
        given = [counters] if counters else []
        hypervisor.counters.clear()
        for who, instance in instances.items():
            if name != "poll" or who == "nova" or (who == "turns" and number % 2 == 0):
                nova.do(name, instance, volumes[who], *given)
            else:
                hypervisor.counters[instance] = {"vdb": BlockCounters(*counters)}
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert task.agent.run(task).outcome == "ok"
        on_record = {row["payload"]["volume_id"]: row for row in nova.do("read")}
        assert len(on_record) == 3
        reads = {who: parts(on_record[volume]) for who, volume in volumes.items()}
        assert len(set(reads.values())) == 1, (name, counters, reads)
        found.append((reads["nova"][0][0], reads["nova"][1][0]))
        # What we tell is what Nova would tell of the same row.
        for payload in told(caplog):
            expected = on_record[payload["volume_id"]]["payload"]
            assert without_time(payload) == without_time(expected)
    assert found == READS


def parts(row):
    return tuple(row["tot"]), tuple(row["curr"])


def told(caplog):
    prefix = "oslo.messaging.notification.volume"
    return [
        json.loads(r.getMessage())["payload"] for r in caplog.records if r.name.startswith(prefix)
    ]


def without_time(payload):
    return {name: value for name, value in payload.items() if name != "last_refreshed"}
