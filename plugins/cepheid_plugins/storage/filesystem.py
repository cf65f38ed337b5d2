# SPDX-License-Identifier: Apache-2.0
"""How much room a file system has, and how much of it sparse files may still take.

These calls block for as long as the storage does; make them with a deadline.
Source: statvfs(3), stat(2).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from cepheid_plugins.storage.instances_path import StorageError

#: st_blocks counts in these, whatever the file system's own blocks. Source: stat(2) on Linux.
BLOCK_BYTES = 512

#: A file that is moved or removed just now, or that is not ours to look at.
PASSING = (errno.ENOENT, errno.ESTALE, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Room:
    """The room on the file system of a directory.

    :param free_bytes: what an ordinary user may still write
    :param growth_bytes: what the files that were asked about may still take of that
    :param unreadable: files of unknown size, with the reason
    """

    total_bytes: int
    free_bytes: int
    growth_bytes: int
    unreadable: tuple[tuple[str, str], ...]


def measure(path: str, files: Iterable[tuple[str, int]]) -> Room:
    """Measure the file system of a directory.

    :param files: path and capacity in bytes of each; those on other file systems take nothing
        from this one, nor do block devices
    :raises StorageError: the directory is not there, or a file cannot be read for a reason that
        will not pass
    """
    try:
        # The directory itself must be there: an unmounted one would be counted as its parent.
        device = os.stat(path).st_dev
        system = os.statvfs(path)
    except OSError as err:
        raise StorageError(
            f"The directory {path} cannot be measured: {err.strerror}. Is [compute] "
            "instances_path right, and its storage mounted?"
        ) from err
    growth_bytes = 0
    unreadable = []
    for file, capacity_bytes in dict(files).items():
        try:
            found = os.stat(file)
        except OSError as err:
            if err.errno not in PASSING:
                raise StorageError(f"The file {file} cannot be measured: {err.strerror}.") from err
            unreadable.append((file, str(err.strerror)))
            continue
        if found.st_dev == device and stat.S_ISREG(found.st_mode):
            growth_bytes += max(0, capacity_bytes - found.st_blocks * BLOCK_BYTES)
    return Room(
        total_bytes=system.f_blocks * system.f_frsize,
        free_bytes=system.f_bavail * system.f_frsize,
        growth_bytes=growth_bytes,
        unreadable=tuple(unreadable),
    )
