# SPDX-License-Identifier: Apache-2.0
"""What the agent remembers of its host, and when it doubts the inventory."""

import datetime
import json

import pytest

from cepheid.errors import CepheidError
from cepheid_plugins.compute.sightings import FILE_NAME, Sightings, SightingsFile

NOON = datetime.datetime(2026, 11, 23, 12, 0)
HOUR = datetime.timedelta(hours=1)


def seen(*live, domains=()):
    sightings = Sightings()
    sightings.look("host1", "hypervisor-1", live, (), {*live, *domains}, NOON)
    return sightings


@pytest.mark.parametrize(
    ("sightings", "now", "doubt"),
    [
        # At the first look: an instance here, or a record of the host itself.
        (Sightings(), {"live": {"a"}}, ""),
        (Sightings(), {"is_known": True}, ""),
        (Sightings(), {}, "knows neither this host nor an instance on it"),
        (seen("a"), {"live": {"a"}}, ""),
        (seen("a"), {"live": {"a"}, "host": "host2"}, "this host was host1 and is host2 now"),
        (seen("a"), {"live": {"a"}, "hypervisor": "other"}, "the hypervisor was hypervisor-1"),
        (seen("a", "b"), {"is_known": True}, "all 2 instances of this host vanished"),
        # They were deleted or have moved: their rows say so.
        (seen("a", "b"), {"rows": {"a", "b"}}, ""),
        (seen("a", "b"), {"live": {"c"}}, ""),
        (seen(), {}, ""),
    ],
)
def test_doubts_an_inventory_that_is_not_the_one_it_was(sightings, now, doubt):
    facts = {"host": "host1", "hypervisor": "hypervisor-1", "live": set(), "rows": set(),
             "is_known": False, **now}  # fmt: skip
    found = sightings.doubts(**facts)
    assert doubt in found
    assert bool(doubt) == bool(found)


def test_knows_who_was_alive_when_and_forgets_whose_domain_is_gone():
    sightings = seen("a", "b")
    assert sightings.was_alive_after("a", NOON - HOUR)
    assert not sightings.was_alive_after("a", NOON)
    assert not sightings.was_alive_after("nobody", NOON - HOUR)
    # "d" is another host's, and has a domain here: it is on its way.
    sightings.look("host1", "hypervisor-1", {"c"}, {"c", "d"}, {"a", "c", "d"}, NOON + HOUR)
    for uuid in ("c", "d"):
        assert sightings.was_alive_after(uuid, NOON)
        assert not sightings.was_alive_after(uuid, NOON + HOUR)
    assert sightings.was_alive_after("a", NOON - HOUR)
    assert not sightings.was_alive_after("a", NOON)
    assert not sightings.was_alive_after("b", NOON - HOUR)
    assert sightings.live == {"c"}
    # "a" is not forgotten while its domain is there, nor "c", which is alive no longer.
    sightings.look("host1", "hypervisor-1", {"b"}, {"b"}, {"a", "b", "c"}, NOON + 2 * HOUR)
    assert sightings.was_alive_after("a", NOON - HOUR) == NOON.isoformat()
    assert sightings.was_alive_after("c", NOON) == (NOON + HOUR).isoformat()
    assert not sightings.was_alive_after("d", NOON)


def test_a_file_of_an_earlier_version_is_understood(tmp_path):
    """It has the time of each that was alive, and none for all of them."""
    times = dict.fromkeys(["a", "b"], NOON.isoformat())
    (tmp_path / FILE_NAME).write_text(
        json.dumps({"host": "host1", "hypervisor": "hypervisor-1", "live": ["a"],
                    "last_alive": times, "suspects": {}})
    )  # fmt: skip
    sightings = SightingsFile(str(tmp_path)).read()
    assert [u for u in "abc" if sightings.was_alive_after(u, NOON - HOUR)] == ["a", "b"]
    sightings.look("host1", "hypervisor-1", {"c"}, {"c"}, {"a", "b", "c"}, NOON + HOUR)
    for uuid in ("a", "b"):
        assert sightings.was_alive_after(uuid, NOON - HOUR) == NOON.isoformat()
    assert sightings.was_alive_after("c", NOON)


def test_confirms_a_suspicion_at_the_second_look_without_a_break():
    sightings = seen()
    assert sightings.suspect(["a"], NOON) == set()
    assert sightings.suspect(["a", "b"], NOON + HOUR) == {"a"}
    assert sightings.suspect(["b"], NOON + HOUR) == {"b"}
    assert sightings.suspect(["a"], NOON + HOUR) == set()


def test_what_was_seen_outlives_the_agent(tmp_path):
    file = SightingsFile(str(tmp_path))
    assert file.read().is_new
    sightings = seen("a", domains=["b"])
    sightings.suspect(["b"], NOON)
    file.write(sightings)
    assert file.read() == sightings


def test_knows_when_who_is_soft_deleted_was_in_use_last():
    sightings = Sightings()

    def look(hours, soft_deleted):
        now = NOON + hours * HOUR
        sightings.look("host1", "hypervisor-1", {"a", "b"}, (), (), now, soft_deleted)

    look(0, None)
    assert not sightings.was_used_after("a", NOON - HOUR)  # it was not told
    look(1, {"b"})
    assert sightings.was_used_after("a", NOON)
    assert not sightings.was_used_after("a", NOON + HOUR - datetime.timedelta(minutes=5))
    assert not sightings.was_used_after("b", NOON - HOUR)
    for hours in (2, 3):
        look(hours, {"a"})
        assert sightings.was_used_after("a", NOON)
        assert not sightings.was_used_after("a", NOON + HOUR)
        assert sightings.was_used_after("b", NOON + HOUR)
    look(4, ())
    assert sightings.was_used_after("a", NOON + 3 * HOUR)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"unknown": 1}',
        '{"live": 1}',
        '{"looked_at": "yesterday"}',
        '{"last_alive": {"a": "yesterday"}}',
        '{"soft_deleted": {"a": "yesterday"}}',
        '{"suspects": []}',
    ],
)
def test_a_file_that_cannot_be_read_stops_all_destruction(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(CepheidError, match=r"nothing is destroyed.*cepheid host confirm"):
        SightingsFile(str(tmp_path)).read()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(CepheidError, match="cannot be written"):
        SightingsFile(str(tmp_path / "missing")).write(seen())


def test_a_file_that_says_so_already_is_not_written_again(tmp_path):
    """Where nobody is alive, when the agent looked makes no difference to any answer."""
    file = SightingsFile(str(tmp_path))
    file.write(seen(domains=["a", "b"]))
    written = file.path.stat()
    later = file.read()
    later.look("host1", "hypervisor-1", (), (), {"b", "a"}, NOON + HOUR)
    file.write(later)
    assert file.path.stat() == written
    later.suspect(["a"], NOON + HOUR)
    file.write(later)
    assert file.path.stat().st_ino != written.st_ino
    assert file.read() == later


def test_that_somebody_is_alive_still_is_written_each_time(tmp_path):
    file = SightingsFile(str(tmp_path))
    file.write(seen("a"))
    later = file.read()
    later.look("host1", "hypervisor-1", {"a"}, {"a"}, {"a"}, NOON + HOUR)
    file.write(later)
    assert file.read().was_alive_after("a", NOON)


def test_a_file_that_has_gone_since_it_was_read_comes_back_once_it_is_missed(tmp_path):
    file = SightingsFile(str(tmp_path))
    file.write(seen())
    file.read()
    file.path.unlink()
    assert file.read().is_new
    file.write(seen())
    assert not file.read().is_new


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    file = SightingsFile(str(tmp_path))
    file.write(seen("a"))
    assert json.loads(file.path.read_text())["live"] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
