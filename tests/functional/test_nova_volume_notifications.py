# SPDX-License-Identifier: Apache-2.0
"""volume.usage beside real Nova's: what both tell of the same counters, field by field."""

import datetime
import json
import logging
import shutil

import pytest
import sqlalchemy as sa

from cepheid_plugins.database.driver import Database
from cepheid_plugins.hypervisor.driver import BlockCounters
from cepheid_plugins.tasks.poll_volume_usage import PollVolumeUsage
from tests.fake_agent import FakeAgent, FakeClock
from tests.fakes import FakeHypervisor
from tests.functional.nova_cell import NovaCell

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

SCRIPT = "volume_notifications.py"
VOLUME = "a07f71dc-8151-4e7d-a0cc-cd24a3f11111"
NOW = datetime.datetime(2026, 11, 23, 12)
FORMAT = "[notifications]\nnotification_format = both\n"
NOVA = f"transport_url = fake://\n[oslo_messaging_notifications]\ndriver = test\n{FORMAT}"
OURS = f"[oslo_messaging_notifications]\ndriver = log\n{FORMAT}"

#: What a guest's disk says, one poll after another: it grows, stays, is that of a new guest, is
#: detached by Nova, whose clock is ahead, and comes back.
STEPS = (
    ("poll", 0, (100, 500, 25, 75)),
    ("poll", 60, (110, 600, 26, 80)),
    ("poll", 120, (110, 600, 26, 80)),
    ("poll", 180, (3, 30, 1, 4)),
    ("detach", 1000, (9, 90, 2, 8)),
    ("poll", 240, (1, 10, 0, 0)),
    ("poll", 2000, (2, 20, 0, 0)),
)


@pytest.fixture
def cells(tmp_path):
    """Two cells alike, for Nova and for us, and the instance in both."""
    path = tmp_path / "nova"
    path.mkdir()
    theirs = NovaCell(path, sa.make_url(f"sqlite:///{path}/cell.sqlite"), NOVA)
    (uuid,) = theirs.write([{"display_name": "web", "volume": VOLUME}]).values()
    copy = tmp_path / "ours"
    copy.mkdir()
    ours = NovaCell(copy, sa.make_url(f"sqlite:///{copy}/cell.sqlite"), NOVA)
    shutil.copy(path / "cell.sqlite", copy / "cell.sqlite")
    return theirs, ours, uuid


@pytest.fixture
def poll(tmp_path, cells, caplog):
    """Poll as our agent does; give the messages."""
    _, cell, uuid = cells
    clock = FakeClock(NOW)
    hypervisor = FakeHypervisor([(uuid, "web", 1)])
    agent = FakeAgent(tmp_path, {"hypervisor": hypervisor}, OURS, clock)
    agent.conf.register_opts(Database.options, group="database")
    agent.set("database", connection=str(cell.url))
    agent.drivers.use("database", Database(agent))
    task = agent.build(PollVolumeUsage)
    agent.set(task.name, spacing=60)

    def poll(seconds, numbers):
        clock.sleep((NOW + datetime.timedelta(seconds=seconds) - clock.utcnow()).total_seconds())
        hypervisor.counters[uuid] = {"vdb": BlockCounters(*numbers)}
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert agent.run(task).outcome == "ok"
        prefix = "oslo.messaging.notification."
        return [json.loads(r.getMessage()) for r in caplog.records if r.name.startswith(prefix)]

    yield poll
    agent.driver("database").close()
    agent.close()


def test_both_tell_the_same_of_the_same_counters(cells, poll):
    theirs, ours, uuid = cells

    def nova(cell, how, seconds, numbers):
        given = {
            "now": (NOW + datetime.timedelta(seconds=seconds)).isoformat(),
            "volume": VOLUME,
            "instance": uuid,
            "counters": dict(
                zip(("reads", "read_bytes", "writes", "write_bytes"), numbers, strict=True)
            ),
        }
        return json.loads(cell.run(*cell.command(SCRIPT, how), given=json.dumps(given)))

    for how, seconds, numbers in STEPS:
        expected = nova(theirs, how, seconds, numbers)
        if how == "detach":
            nova(ours, how, seconds, numbers)
            continue
        found = poll(seconds, numbers)
        assert len(expected) == 2
        for one in (*expected, *found):
            del one["message_id"], one["timestamp"]
        assert found == expected, (how, seconds)
