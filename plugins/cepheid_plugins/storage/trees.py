# SPDX-License-Identifier: Apache-2.0
"""Trees of files, looked at and removed by directory descriptors, within one mount.

No symbolic link is followed and no mount point entered, not even one of the same file system:
each directory is opened beneath the one it is in, and is asked for its mount once it is open.
Source: openat(2), unlinkat(2), fcntl(2), proc_pid_fdinfo(5).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cepheid_plugins.storage.errors import StorageError

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: How many directories deep a tree may be; no hypervisor makes deeper ones.
MOST_LEVELS = 100

#: struct flock, see fcntl(2).
_FLOCK = "hhqqi4x"

#: Device and inode: what a file is, whatever its names.
Identity = tuple[int, int]


@dataclass(frozen=True)
class Survey:
    """What there is in a tree.

    :param paths: by identity, the path of each file and directory, the tree itself included
    :param locked: the first file on which somebody holds a lock, as QEMU does on its images; empty
        where there is none. Locks of other hosts are seen only where the storage passes them on
    :param held: the first file that somebody may have open; empty where the kernel says of each
        that nobody has. Not every storage can tell, so it counts only while processes cannot be
        looked at
    """

    paths: dict[Identity, str]
    locked: str = ""
    held: str = ""


def survey(parent: int, name: str) -> Survey:
    """Look at all that is in a directory, which must not reach into another mount.

    :param parent: the descriptor of the directory that it is in
    :raises StorageError: a mount point is in it, or it is one
    """
    found: dict[Identity, str] = {}
    locked: list[str] = []
    held: list[str] = []

    def look(directory: int, path: str, level: int) -> None:
        own = os.fstat(directory)
        found[own.st_dev, own.st_ino] = path
        for entry in os.listdir(directory):
            try:
                there = os.stat(entry, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            inner = f"{path}/{entry}"
            if stat.S_ISDIR(there.st_mode):
                with (
                    contextlib.suppress(FileNotFoundError),  # somebody else removes it
                    _entered(directory, entry, mount, inner, level) as opened,
                ):
                    look(opened, inner, level + 1)
                continue
            found[there.st_dev, there.st_ino] = inner
            if stat.S_ISREG(there.st_mode):
                is_locked, is_held = _uses(directory, entry)
                locked.extend([inner] * is_locked)
                held.extend([inner] * is_held)

    mount = mount_of(parent)
    with (
        contextlib.suppress(FileNotFoundError),
        _entered(parent, name, mount, name, 0) as directory,
    ):
        look(directory, name, 1)
    return Survey(found, *(files[0] if files else "" for files in (locked, held)))


def remove(parent: int, name: str, check: Callable[[], None] = lambda: None) -> None:
    """Remove a file, or a directory with all that is in it; one that is gone is fine.

    Where something cannot be removed, the rest is removed all the same.

    :param check: called before each step; what it raises ends the removal
    :raises StorageError: something is left; the text names the first
    """
    removal = _Removal(mount_of(parent), check)
    removal.remove(parent, name, name, 0)
    if removal.left:
        more = f", and {len(removal.left) - 1} more" if len(removal.left) > 1 else ""
        raise StorageError(f"{removal.left[0]}{more}.")


def mount_of(descriptor: int) -> tuple[int, int]:
    """Return what tells the mount of an open file from others: device and mount id.

    :raises OSError: the kernel does not tell
    """
    with open(f"/proc/self/fdinfo/{descriptor}") as stream:
        for line in stream:
            if line.startswith("mnt_id:"):
                return os.fstat(descriptor).st_dev, int(line.split()[1])
    raise OSError(errno.ENOSYS, "The kernel does not tell its mount", str(descriptor))


@dataclass
class _Removal:
    mount: tuple[int, int]
    check: Callable[[], None]
    #: What is left, and why.
    left: list[str] = field(default_factory=list)

    def remove(self, parent: int, name: str, path: str, level: int) -> None:
        self.check()
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._remove_directory(parent, name, path, level)
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as err:
            self.left.append(f"{path} cannot be removed: {err.strerror}")

    def _remove_directory(self, parent: int, name: str, path: str, level: int) -> None:
        left_before = len(self.left)
        try:
            with _entered(parent, name, self.mount, path, level) as directory:
                for entry in os.listdir(directory):
                    self.remove(directory, entry, f"{path}/{entry}", level + 1)
        except StorageError as err:
            self.left.append(str(err).rstrip("."))
        if len(self.left) == left_before:
            os.rmdir(name, dir_fd=parent)


@contextmanager
def _entered(
    parent: int, name: str, mount: tuple[int, int], path: str, level: int
) -> Iterator[int]:
    if level > MOST_LEVELS:
        raise StorageError(
            f"{path[:200]}... is nested more than {MOST_LEVELS} levels deep; nothing of it is "
            "removed. Look at it yourself."
        )
    directory = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        if mount_of(directory) != mount:
            raise StorageError(
                f"{path} is a mount point, or on a file system of its own; nothing of it is "
                "removed. Unmount it, or look at it yourself."
            )
        yield directory
    finally:
        os.close(directory)


def _uses(directory: int, name: str) -> tuple[bool, bool]:
    """Tell of a file whether somebody holds a lock on it, and whether somebody may have it open."""
    try:
        # Non-blocking: it may have been replaced by a FIFO, on which opening would wait.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return False, True
    try:
        return _is_locked(descriptor), not _can_be_leased(descriptor)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    whole = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with contextlib.suppress(OSError):  # not every storage knows of locks
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, whole)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    return False


def _can_be_leased(descriptor: int) -> bool:
    """Tell whether the kernel gives a lease: it does so if nobody else has the file open."""
    try:
        # If somebody opens the file while we have the lease, the kernel signals us. The default
        # signal would end the process; this one is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True
