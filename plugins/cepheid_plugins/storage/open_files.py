# SPDX-License-Identifier: Apache-2.0
"""Which files somebody has open: processes, as /proc tells, and loop devices, as /sys does.

A file is known by device and inode, so that other names of it, other mounts and containers with
views of their own do not hide it. The calls may block where the storage does; make them with a
deadline. Source: proc(5), sysfs-block-loop.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.trees import Identity

#: How the link of an open descriptor begins that is no file; that of a file begins with a slash.
NO_FILES = ("socket:", "pipe:", "anon_inode:")

#: The PID namespace in which all processes are seen. Source: linux/proc_ns.h, PROC_PID_INIT_INO.
ALL_PROCESSES = f"pid:[{0xEFFFFFFC}]"

#: Errors of open files that cannot be among those asked about, which could all be looked at: the
#: file or its server is gone, or it is on a user's own mount, which root may not look at.
NOT_WANTED = (errno.ESTALE, errno.ENOTCONN, errno.EACCES)


@dataclass
class Holders:
    """Who has files open."""

    #: By file, who has it open: a process or a loop device, in words for the operator.
    found: dict[Identity, str] = field(default_factory=dict)
    #: Why there may be others that were not seen; empty where all were.
    blind: str = ""


def holders(wanted: Collection[Identity], proc: str = "/proc", sys: str = "/sys") -> Holders:
    """Find who has which of the files open, or stands in which of the directories.

    :raises StorageError: no processes can be looked at
    """
    found: dict[Identity, str] = {}
    blind = hidden(proc)
    for pid in _processes(proc):
        try:
            for identity in _files_of(os.path.join(proc, pid)):
                if identity in wanted:
                    found.setdefault(identity, f"{_name(proc, pid)} (process {pid})")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except OSError as err:
            blind = f"what process {pid} has open cannot be looked at ({err.strerror})"
    for backing in sorted(Path(sys).glob("block/loop*/loop/backing_file")):
        loop = _backing_identity(backing)
        if loop is not None and loop in wanted:
            found.setdefault(loop, f"/dev/{backing.parent.parent.name}")
    return Holders(found, blind)


def hidden(proc: str) -> str:
    """Return why there may be processes that are not to be seen; nothing where there are none."""
    try:
        namespace = os.readlink(os.path.join(proc, "self", "ns", "pid"))
    except OSError:
        return ""
    return "" if namespace == ALL_PROCESSES else "the agent is in a PID namespace of its own"


def _processes(proc: str) -> list[str]:
    try:
        return [name for name in os.listdir(proc) if name.isdigit()]
    except OSError as err:
        raise StorageError(f"{proc} cannot be read: {err.strerror}. Is it mounted?") from err


def _files_of(process: str) -> Iterator[Identity]:
    yield from _identity(os.path.join(process, "cwd"))
    descriptors = os.path.join(process, "fd")
    for number in os.listdir(descriptors):
        try:
            yield from _identity(os.path.join(descriptors, number))
        except FileNotFoundError:
            continue  # it has been closed


def _identity(link: str) -> Iterator[Identity]:
    if os.readlink(link).startswith(NO_FILES):
        return
    try:
        found = os.stat(link)
    except OSError as err:
        if err.errno not in NOT_WANTED:
            raise
    else:
        yield found.st_dev, found.st_ino


def _name(proc: str, pid: str) -> str:
    try:
        return Path(proc, pid, "comm").read_text().strip()
    except OSError:
        return "somebody"


def _backing_identity(backing: Path) -> Identity | None:
    try:
        found = os.stat(backing.read_text().rstrip("\n"))
    except OSError:
        return None  # it has been detached, or its file unlinked
    return found.st_dev, found.st_ino
