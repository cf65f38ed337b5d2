# SPDX-License-Identifier: Apache-2.0
"""Delete old memory dumps of crashed guests.

Reads and deletes files in one directory, not below it.
Source: auto_dump_path in libvirt's qemu.conf.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task


@dataclass(frozen=True)
class Dump:
    """A dump file, as it was found."""

    path: Path
    written_at: datetime.datetime
    size_bytes: int


class PruneGuestDumps(cepheid.Task):
    """Delete memory dumps of crashed guests when they are old."""

    options = [
        cfg.StrOpt(
            "path",
            default="/var/lib/libvirt/qemu/dump",
            help="The directory of the dumps: auto_dump_path in libvirt's qemu.conf.",
        ),
        cfg.IntOpt("max_age_days", default=30, min=1, help="Days after which a dump is deleted."),
    ]
    max_changes = 20

    @periodic_task(spacing=86400)
    def prune_guest_dumps(self, context):
        dumps = read_dumps(Path(self.conf.path))
        context.count("dumps", len(dumps))
        max_age = datetime.timedelta(days=self.conf.max_age_days)
        for dump in too_old(dumps, self.agent.clock.utcnow(), max_age):
            context.change(
                "delete",
                target=str(dump.path),
                before=f"{dump.size_bytes} bytes",
                reason=f"written on {dump.written_at:%Y-%m-%d}",
                do=dump.path.unlink,
            )


def read_dumps(directory: Path) -> list[Dump]:
    """Return the plain files in a directory.

    :raises OSError: the directory cannot be read
    """
    dumps = []
    for path in directory.iterdir():
        if path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):  # somebody else deleted it meanwhile
            status = path.stat()
            written_at = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
            dumps.append(Dump(path, written_at.replace(tzinfo=None), status.st_size))
    return dumps


def too_old(
    dumps: Iterable[Dump], now: datetime.datetime, max_age: datetime.timedelta
) -> list[Dump]:
    """Return the dumps that were written more than `max_age` before `now`, oldest first.

    :param now: UTC, naive, as are the times of the dumps
    """
    old = [dump for dump in dumps if now - dump.written_at > max_age]
    return sorted(old, key=lambda dump: dump.written_at)
