# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from cepheid_plugins.notifications.outbox import FILE_NAME, Message, Outbox
from tests.functional.agents import Installation

pytestmark = pytest.mark.process


@pytest.fixture
def installation(tmp_path):
    return Installation(tmp_path, "[notifications]\nmax_waiting = 7\n")


@pytest.fixture
def status(installation):
    """Run ``cepheid notifications status``; give what it prints."""
    return lambda: json.loads(installation.run("notifications", "status", "-f", "json").stdout)


def test_where_nothing_was_ever_told_nothing_waits_and_nothing_is_made(status, tmp_path):
    told = status()
    assert (told["waiting"], told["oldest"], told["trouble"]) == (0, "", "")
    assert not (tmp_path / FILE_NAME).exists()


def test_it_shows_how_many_wait_since_when_and_why(status, tmp_path, clock):
    outbox = Outbox(tmp_path / FILE_NAME, clock)
    outbox.take([Message("a", "{}"), Message("b", "{}", remembered=True)], 100, 1)
    clock.sleep(90)
    outbox.set_trouble("The message broker took none.")
    told = status()
    assert told == {
        "waiting": 2,
        "max_waiting": 7,
        "oldest": "2026-11-23 12:00:00 UTC",
        "trouble": "The message broker took none.",
        "since": "2026-11-23 12:01:30 UTC",
        "remembered": 0,
        "outbox": str(tmp_path / FILE_NAME),
    }
    for message in outbox.first():
        outbox.record_sent(message)
    told = status()
    # What was wrong is over, as far as is known.
    assert (told["waiting"], told["trouble"], told["remembered"]) == (0, "", 1)
    outbox.close()


def test_a_file_that_cannot_be_read_is_one_line(installation, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"not a database at all" * 100)
    done = installation.run("notifications", "status", check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cepheid: The outbox {tmp_path / FILE_NAME} cannot be used")
