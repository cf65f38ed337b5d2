# SPDX-License-Identifier: Apache-2.0
"""Which files are open in any process of the host.

Source: proc(5): ``/proc/PID/fd`` and ``/proc/locks``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection

from cepheid_plugins.storage import open_files
from cepheid_plugins.storage.image_heads import Inode
from cepheid_plugins.storage.instances_path import StorageError

#: What a process that has ended meanwhile answers.
_GONE = (FileNotFoundError, ProcessLookupError)


def users_of(wanted: Collection[Inode], proc: str = "/proc") -> dict[Inode, set[str]]:
    """Return the processes that have files open or locked, by the file's device and inode.

    It blocks for as long as the storage of any open file does; call it with a deadline.

    :param proc: where the host's processes are
    :raises StorageError: not all processes can be looked at
    """
    found: dict[Inode, set[str]] = defaultdict(set)
    try:
        hidden = open_files.hidden(proc)
        if hidden:
            raise StorageError(
                f"{hidden}, so who has files open is not known. Run as the host's root."
            )
        processes = [name for name in os.listdir(proc) if name.isdecimal()]
        if "1" not in processes:
            raise StorageError(f"{proc} shows not all processes (hidepid?), so who has files open "
                               "is not known. Run as the host's root.")  # fmt: skip
        for process in processes:
            for inode in _open(f"{proc}/{process}/fd", wanted):
                found[inode].add(f"process {process}")
        _add_locked(found, wanted, proc)
    except OSError as err:
        raise StorageError(
            f"{err.filename}: {err.strerror}, so who has files open is not known. Run as the "
            "host's root."
        ) from err
    return dict(found)


def _open(directory: str, wanted: Collection[Inode]) -> set[Inode]:
    found: set[Inode] = set()
    try:
        descriptors = os.listdir(directory)
    except _GONE:
        return found
    for descriptor in descriptors:
        try:
            link = f"{directory}/{descriptor}"
            # A pipe or socket is not asked what it is.
            if not os.readlink(link).startswith("/"):
                continue
            what = _what(link)
        except _GONE:
            continue
        if what is None:
            continue
        if (what.st_dev, what.st_ino) in wanted:
            found.add((what.st_dev, what.st_ino))
    return found


def _what(link: str) -> os.stat_result | None:
    """Return what an open file is; None where it is none that can be wanted."""
    try:
        return os.stat(link)
    except OSError as err:
        if err.errno not in open_files.NOT_WANTED:
            raise
        return None


def _add_locked(found: dict[Inode, set[str]], wanted: Collection[Inode], proc: str) -> None:
    """Enter the files with locks; QEMU locks what it has open.

    The device is not compared: some file systems show another one here than stat(2) does.
    """
    by_number = defaultdict(list)
    for inode in wanted:
        by_number[inode[1]].append(inode)
    with open(f"{proc}/locks") as lines:
        for line in lines:
            words = line.replace("-> ", "").split()
            number = words[5].rpartition(":")[2] if len(words) > 5 else ""
            for inode in by_number.get(int(number) if number.isdecimal() else -1, ()):
                found[inode].add("a lock in /proc/locks")
