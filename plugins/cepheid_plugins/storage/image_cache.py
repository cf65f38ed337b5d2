# SPDX-License-Identifier: Apache-2.0
"""The image cache: the files that disks of instances are made from, and stand on.

A file that is not used is not deleted but renamed aside, into a directory of its own in which
neither Nova nor QEMU looks. Its name there tells its name and the time, so that nothing else needs
to be remembered, and every host that shares the storage can bring it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cepheid.run import Raced
from cepheid_plugins.storage import descriptors, image_names, nova_locks
from cepheid_plugins.storage.instances_path import StorageError

#: Nova's scan knows no such name.
ASIDE = ".cepheid-removed"

_ASIDE_NAME = re.compile(r"(?P<name>[0-9A-Za-z_]+)@(?P<at>[0-9]{1,12})\Z")

#: A file system that has no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of the image cache.

    :param modified_at: in epoch seconds: its age is that of its last use
    :param aside_at: when it was set aside, in epoch seconds; None while it is in its place
    """

    name: str
    kind: str
    size_bytes: int
    modified_at: float
    device: int
    inode: int
    aside_at: int | None = None

    @property
    def entry(self) -> str:
        """What it is called in its directory."""
        return self.name if self.aside_at is None else f"{self.name}@{self.aside_at}"


class ImageCache:
    """The files beneath ``instances_path/_base``, and what becomes of those that nobody uses.

    :param path: instances_path; it may be a symbolic link itself, what is in it may not
    :param subdirectory: the cache's name in it
    """

    def __init__(self, path: str, subdirectory: str = "_base") -> None:
        if os.path.basename(subdirectory) != subdirectory or subdirectory in ("", ".", ".."):
            raise StorageError(
                f"[run_image_cache_manager_pass] subdirectory_name = {subdirectory!r} must be a "
                "name, not a path."
            )
        self.path = os.path.realpath(path)
        self.subdirectory = subdirectory

    @property
    def base_path(self) -> str:
        """The path of the cache, for comparisons and messages."""
        return os.path.join(self.path, self.subdirectory)

    def scan(self) -> list[CachedFile] | None:
        """Return the files in their place and those aside; None where there is no cache."""
        with self._root() as root:
            if descriptors.found(root, self.subdirectory) is None:
                return None
            with descriptors.opened_directory(root, self.subdirectory) as base:
                files = list(_cached(base))
                with self._aside(base) as aside:
                    files += [] if aside is None else _set_aside(aside)
        return sorted(files, key=lambda file: (file.name, file.aside_at or 0))

    def open(self, name: str) -> list[int]:
        """Open a file of any name in the cache, or where it is not there those aside.

        :return: descriptors, which the caller closes; none where there is no such file
        """
        with self._base() as base:
            there = descriptors.found(base, name)
            if there is not None:
                return [descriptors.open_file(base, name)]
            with self._aside(base) as aside:
                files = [] if aside is None else list(_set_aside(aside))
                return [
                    descriptors.open_file(aside, file.entry)
                    for file in files
                    if aside is not None and file.name == name
                ]

    def touch(self, files: Sequence[CachedFile], now: float) -> int:
        """Make files as old as `now`, so that nobody takes them for unused; return how many."""
        touched = 0
        with self._base() as base:
            for file in files:
                # Somebody else may have removed it meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if _inode(base, file.name) == file.inode:
                        os.utime(file.name, (now, now), dir_fd=base, follow_symlinks=False)
                        touched += 1
        return touched

    def set_aside(self, file: CachedFile, unused_since: float, now: float) -> None:
        """Rename a file aside, if it still is as it was.

        :param unused_since: the latest time, in epoch seconds, at which it may have been used
        :raises Held: nova-compute is at work on it
        :raises Raced: it was used meanwhile, is gone, or another one
        """
        with self._root() as root, nova_locks.held(root, file.name), self._base(root) as base:
            there = descriptors.found(base, file.name)
            if (
                there is None
                or not stat.S_ISREG(there.st_mode)
                or (there.st_dev, there.st_ino) != (file.device, file.inode)
                or there.st_mtime > unused_since
            ):
                raise Raced
            descriptors.make_directory(base, ASIDE)
            with descriptors.opened_directory(base, ASIDE) as aside:
                entry = f"{file.name}@{int(now)}"
                if descriptors.found(aside, entry) is not None:
                    raise StorageError(f"{self.base_path}/{ASIDE}/{entry} is there already.")
                os.rename(file.name, entry, src_dir_fd=base, dst_dir_fd=aside)
                os.fsync(aside)
            os.fsync(base)

    def restore(self, file: CachedFile, now: float) -> None:
        """Bring a file back to its place, as new.

        :raises StorageError: another file has taken its place
        """
        with self._root() as root, nova_locks.held(root, file.name), self._base(root) as base:
            with descriptors.opened_directory(base, ASIDE) as aside:
                _recheck(aside, file)
                _put_back(aside, file.entry, base, file.name)
                os.utime(file.name, (now, now), dir_fd=base, follow_symlinks=False)
                os.fsync(aside)
            os.fsync(base)

    def delete(self, file: CachedFile) -> None:
        """Delete a file that is aside, and its lock where nothing has taken its place.

        The lock of a swap or ephemeral file stays, as in Nova: it is named by a size that is used
        again, and who waits for the one that was removed would have it along with another.

        :raises Raced: it is gone
        """
        assert file.aside_at is not None
        with self._root() as root, nova_locks.held(root, file.name) as locks:
            with self._base(root) as base, descriptors.opened_directory(base, ASIDE) as aside:
                _recheck(aside, file)
                os.unlink(file.entry, dir_fd=aside)
                os.fsync(aside)
                is_free = descriptors.found(base, file.name) is None
            if is_free and file.kind in (image_names.ORIGINAL, image_names.RESIZED):
                nova_locks.remove(locks, file.name)

    @contextmanager
    def _root(self) -> Iterator[int]:
        with descriptors.opened_root(self.path, "[compute] instances_path") as root:
            yield root

    @contextmanager
    def _base(self, root: int | None = None) -> Iterator[int]:
        if root is None:
            with self._root() as root, self._base(root) as base:
                yield base
            return
        with descriptors.opened_directory(root, self.subdirectory) as base:
            yield base

    @contextmanager
    def _aside(self, base: int) -> Iterator[int | None]:
        if descriptors.found(base, ASIDE) is None:
            yield None
            return
        with descriptors.opened_directory(base, ASIDE) as aside:
            yield aside


def _cached(base: int) -> Iterator[CachedFile]:
    for name in os.listdir(base):
        kind = image_names.kind_of(name)
        there = descriptors.found(base, name) if kind else None
        if there is not None and stat.S_ISREG(there.st_mode):
            yield _file(name, kind, there, None)


def _set_aside(aside: int) -> Iterator[CachedFile]:
    for entry in os.listdir(aside):
        match = _ASIDE_NAME.match(entry)
        kind = image_names.kind_of(match["name"]) if match else ""
        there = descriptors.found(aside, entry) if kind else None
        if match and there is not None and stat.S_ISREG(there.st_mode):
            yield _file(match["name"], kind, there, int(match["at"]))


def _file(name: str, kind: str, there: os.stat_result, aside_at: int | None) -> CachedFile:
    return CachedFile(
        name, kind, there.st_size, there.st_mtime, there.st_dev, there.st_ino, aside_at
    )


def _inode(directory: int, name: str) -> int | None:
    there = descriptors.found(directory, name)
    return None if there is None else there.st_ino


def _recheck(aside: int, file: CachedFile) -> None:
    if _inode(aside, file.entry) != file.inode:
        raise Raced


def _put_back(aside: int, entry: str, base: int, name: str) -> None:
    """Rename without replacing anything, which rename(2) would."""
    try:
        os.link(entry, name, src_dir_fd=aside, dst_dir_fd=base, follow_symlinks=False)
    except FileExistsError:
        # An agent may have died before it removed the other name.
        if _inode(base, name) != _inode(aside, entry):
            raise StorageError(
                f"{entry} is used, and another {name} has taken its place since. Both are kept; "
                "look at them yourself."
            ) from None
    except OSError as err:
        if err.errno not in _NO_LINKS or descriptors.found(base, name) is not None:
            raise
        os.rename(entry, name, src_dir_fd=aside, dst_dir_fd=base)
        return
    os.unlink(entry, dir_fd=aside)
