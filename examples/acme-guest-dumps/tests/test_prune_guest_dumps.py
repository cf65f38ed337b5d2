# SPDX-License-Identifier: Apache-2.0
"""Which dumps are deleted."""

import datetime
from pathlib import Path

from acme_guest_dumps.prune_guest_dumps import Dump, read_dumps, too_old

NOW = datetime.datetime(2026, 11, 23, 12)
MONTH = datetime.timedelta(days=30)


def dump(name: str, days: float) -> Dump:
    return Dump(Path(name), NOW - datetime.timedelta(days=days), 1)


def test_dumps_older_than_the_limit_are_chosen_oldest_first():
    dumps = [dump("new", 1), dump("old", 31), dump("at the limit", 30), dump("oldest", 90)]
    assert [str(chosen.path) for chosen in too_old(dumps, NOW, MONTH)] == ["oldest", "old"]


def test_links_and_directories_are_no_dumps(tmp_path):
    (tmp_path / "web-1-2026-10-01-08:00:00").write_bytes(b"core")
    (tmp_path / "below").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert [found.path.name for found in read_dumps(tmp_path)] == ["web-1-2026-10-01-08:00:00"]
