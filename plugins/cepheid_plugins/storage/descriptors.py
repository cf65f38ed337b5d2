# SPDX-License-Identifier: Apache-2.0
"""Directories and files by open descriptors: no path is looked up twice, no symbolic link followed.

Source: openat(2), O_NOFOLLOW in open(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from cepheid_plugins.storage.instances_path import StorageError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, so that a pipe which somebody put there is opened at once and then refused.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened_root(path: str, option: str) -> Iterator[int]:
    """Open the directory of a configured path, and close it at the end of the block.

    An OSError of what is done within the block becomes a StorageError that names the path.

    :param option: where the path is configured, for the operator
    :raises StorageError: it cannot be opened, or what is done there fails
    """
    try:
        root = os.open(path, _DIRECTORY)
    except OSError as err:
        raise StorageError(
            f"The directory {path} cannot be opened: {err.strerror}. Is {option} right, and its "
            "storage mounted?"
        ) from err
    try:
        yield root
    except OSError as err:
        where = os.path.join(path, os.fsdecode(err.filename or ""))
        raise StorageError(
            f"{where}: {err.strerror}. Look at its owner, its file system and the free space there."
        ) from err
    finally:
        os.close(root)


@contextmanager
def opened_directory(parent: int, name: str) -> Iterator[int]:
    """Open a directory in another, and close it at the end of the block.

    :raises OSError: it is not there, no directory, or a symbolic link
    """
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(parent: int, name: str) -> int:
    """Open a regular file or a block device for reading; the caller closes it.

    :raises OSError: it is not there, or a symbolic link
    :raises StorageError: it is something else
    """
    descriptor = os.open(name, _FILE, dir_fd=parent)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(descriptor)
        raise StorageError(f"{name} is no file; it is not read.")
    return descriptor


def found(parent: int, name: str) -> os.stat_result | None:
    """Return the status of an entry, not of what it links to; None where it is not there."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def make_directory(parent: int, name: str) -> None:
    """Make a directory with the owner of its parent; one that is there is left as it is.

    It is made under another name and renamed, so that it never has the wrong owner under its own,
    even if this process dies in between.
    """
    if found(parent, name) is not None:
        return
    partial = f".{name}.part"
    with contextlib.suppress(FileExistsError):
        os.mkdir(partial, 0o755, dir_fd=parent)
    give_away(parent, partial)
    try:
        os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as err:
        # Somebody else has made it meanwhile and put something into it: theirs stays.
        if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        os.rmdir(partial, dir_fd=parent)


def make_file(parent: int, name: str) -> None:
    """Make an empty file with the owner of its directory, as :func:`make_directory` does."""
    partial = f".{name}.{os.getpid()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial, dir_fd=parent)
    os.close(os.open(partial, flags, 0o644, dir_fd=parent))
    try:
        give_away(parent, partial)
        with contextlib.suppress(FileExistsError):
            os.link(partial, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.unlink(partial, dir_fd=parent)


def give_away(parent: int, name: str) -> None:
    """Let what was made belong to whom its directory belongs to, where we are root.

    Nova's user must be able to write to what root makes.
    """
    owner = os.fstat(parent)
    if os.geteuid() == 0:
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)
