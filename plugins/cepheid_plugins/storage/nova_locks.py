# SPDX-License-Identifier: Apache-2.0
"""The lock files that nova-compute takes beneath instances_path, taken as it takes them.

Source: oslo.concurrency's lockutils and fasteners' InterProcessLock: a POSIX record lock (lockf) on
the whole of ``locks/nova-<name>``, which is made when it is missing and may be removed by whoever
holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from cepheid_plugins.storage import descriptors
from cepheid_plugins.storage.instances_path import StorageError

#: The directory in instances_path. Source: Nova's libvirt driver.
DIRECTORY = "locks"


class Held(StorageError):
    """Somebody else holds the lock: nova-compute is at work on what it protects."""


@contextmanager
def held(root: int, name: str) -> Iterator[int]:
    """Hold the lock of a name; give the descriptor of the locks' directory.

    It belongs to this process, not to a thread: two threads must not ask for the same.

    :param root: the descriptor of instances_path
    :raises Held: somebody else holds it; nobody is waited for
    """
    descriptors.make_directory(root, DIRECTORY)
    with descriptors.opened_directory(root, DIRECTORY) as locks:
        lock = _acquired(locks, f"nova-{name}")
        try:
            yield locks
        finally:
            # With the last descriptor goes the lock.
            os.close(lock)


def remove(locks: int, name: str) -> None:
    """Remove the lock file of a name, whose lock is held."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"nova-{name}", dir_fd=locks)


def _acquired(locks: int, file: str) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        lock = os.open(file, flags, dir_fd=locks)
    except FileNotFoundError:
        # It must be Nova's user's as soon as it is there, or Nova could not take it any more.
        descriptors.make_file(locks, file)
        lock = os.open(file, flags, dir_fd=locks)
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise StorageError(f"The lock file {file} is no file; look at it yourself.")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise Held(f"The lock {file} is held; nova-compute is at work there.") from None
        there = descriptors.found(locks, file)
        if there is None or there.st_ino != os.fstat(lock).st_ino:
            # It was removed while it was opened: the lock of a file that nobody finds any more.
            raise Held(f"The lock {file} was removed while it was taken; there is a next pass.")
    except BaseException:
        os.close(lock)
        raise
    return lock
