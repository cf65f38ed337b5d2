# SPDX-License-Identifier: Apache-2.0
"""Finding disk images beneath instances_path, and reading their first bytes.

These calls block for as long as the storage does; make them with a deadline. They only read.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cepheid_plugins.storage import descriptors, image_formats
from cepheid_plugins.storage.instances_path import StorageError

#: Files in an instance's directory whose content a guest or user chooses, and that are no disks.
#: Source: Nova's libvirt driver.
NO_DISKS = ("kernel", "ramdisk", "kernel.rescue", "ramdisk.rescue")
CONSOLE = "console.log"

#: The file in which Nova keeps the formats of an instance's disks, and the most of it that is read.
#: Source: Nova's image back end.
DISK_INFO = "disk.info"
DISK_INFO_BYTES = 65536

#: How many directories deep a walk goes; Nova's are two deep (``snapshots/tmp…``).
MAX_DEPTH = 8

#: How often a walk is begun anew because something was renamed under it.
ATTEMPTS = 3

Inode = tuple[int, int]
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Looked:
    """An image that was looked at.

    :param path: absolute; no symbolic link in it beneath instances_path
    :param home: the directory in which a relative name of its backing file begins
    :param inode: device and inode
    :param stamp: size in bytes, mtime and ctime in nanoseconds: what changes when it is written to
    :param head: its first bytes; None where an image of this inode and stamp was read already
    """

    path: str
    home: str
    inode: Inode
    stamp: Stamp
    head: bytes | None


@dataclass
class Found:
    """What is beneath instances_path.

    :param formats: by path, what ``disk.info`` says of a disk
    :param links: the paths of symbolic links
    :param problems: what could not be read, and why
    :param heads: the first bytes of the images; disks begin alike, and such are kept once
    """

    images: list[Looked] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    heads: dict[bytes, bytes] = field(default_factory=dict)


#: Tells whether an image is known with this stamp.
IsKnown = Callable[[Inode, Stamp], bool]


def walk(path: str, left_out: Iterable[str], is_known: IsKnown) -> Found:
    """Look at all files beneath instances_path.

    :param left_out: directories in it
    :raises StorageError: it cannot be read at all
    """
    without = frozenset(left_out)
    for _ in range(ATTEMPTS):
        found = Found()
        with descriptors.opened_root(path, "[compute] instances_path") as root:
            try:
                _walk(root, path, without, is_known, found, 0)
            except FileNotFoundError as err:
                # It may be there under another name, which this walk does not meet any more.
                moved = err.filename
                continue
        return found
    found.problems.append(f"{path}: {moved} was renamed or removed while it was looked at")
    return found


def look_at(paths: Mapping[str, str], root: str, is_known: IsKnown) -> dict[str, Looked | str]:
    """Look at files one by one.

    :param paths: with the home of each
    :return: by path, what was found, or why it cannot be read; a missing one is left out
    """
    found: dict[str, Looked | str] = {}
    heads: dict[bytes, bytes] = {}
    for path, home in paths.items():
        try:
            descriptor = open_beneath(path, root)
        except FileNotFoundError:
            continue
        except (OSError, StorageError) as err:
            found[path] = _text(err)
            continue
        try:
            found[path] = _looked(path, home, descriptor, is_known, heads)
        except OSError as err:
            found[path] = _text(err)
        finally:
            os.close(descriptor)
    return found


def reopen(looked: Looked, root: str) -> int:
    """Open an image that was looked at, for reading; the caller closes it.

    :raises StorageError: it is another one now
    """
    try:
        descriptor = open_beneath(looked.path, root)
    except OSError as err:
        raise StorageError(f"{looked.path}: {err.strerror}") from err
    if _inode(os.fstat(descriptor)) != looked.inode:
        os.close(descriptor)
        raise StorageError(f"{looked.path} was replaced while it was looked at")
    return descriptor


def open_beneath(path: str, root: str) -> int:
    """Open a file, following no symbolic link beneath instances_path, nor as its last part.

    :raises OSError: it is not there, or a symbolic link
    :raises StorageError: it is no file
    """
    above = root if path.startswith(f"{root}/") else os.path.dirname(path)
    *parents, name = os.path.relpath(path, above).split("/")
    directory = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(parent, flags, dir_fd=directory)
            os.close(directory)
            directory = below
        return descriptors.open_file(directory, name)
    finally:
        os.close(directory)


def _walk(
    directory: int, path: str, left_out: frozenset[str], is_known: IsKnown, found: Found, depth: int
) -> None:
    if depth > MAX_DEPTH:
        found.problems.append(f"{path} is nested too deep to be looked at")
        return
    for name in os.listdir(directory):
        if name in left_out or name in NO_DISKS or name.startswith(CONSOLE):
            continue
        there = f"{path}/{name}"
        what = os.stat(name, dir_fd=directory, follow_symlinks=False)
        try:
            if stat.S_ISLNK(what.st_mode):
                found.links.append(there)
            elif stat.S_ISDIR(what.st_mode):
                with descriptors.opened_directory(directory, name) as below:
                    _walk(below, there, frozenset(), is_known, found, depth + 1)
            elif stat.S_ISREG(what.st_mode) and is_known(_inode(what), _stamp(what)):
                found.images.append(Looked(there, path, _inode(what), _stamp(what), None))
            elif stat.S_ISREG(what.st_mode):
                _read(directory, name, path, is_known, found)
            if name == DISK_INFO:
                found.formats.update(_formats(directory, path))
        except FileNotFoundError:
            raise
        except (OSError, StorageError) as err:
            found.problems.append(f"{there} cannot be read: {_text(err)}")


def _read(directory: int, name: str, path: str, is_known: IsKnown, found: Found) -> None:
    descriptor = descriptors.open_file(directory, name)
    try:
        looked = _looked(f"{path}/{name}", path, descriptor, is_known, found.heads)
        found.images.append(looked)
    finally:
        os.close(descriptor)


def _looked(
    path: str, home: str, descriptor: int, is_known: IsKnown, heads: dict[bytes, bytes]
) -> Looked:
    what = os.fstat(descriptor)
    inode, stamp = _inode(what), _stamp(what)
    if stat.S_ISREG(what.st_mode) and is_known(inode, stamp):
        return Looked(path, home, inode, stamp, None)
    head = os.pread(descriptor, image_formats.HEAD_BYTES, 0)
    return Looked(path, home, inode, stamp, heads.setdefault(head, head))


def _formats(directory: int, path: str) -> dict[str, str]:
    """Return what ``disk.info`` says of the disks beside it; nothing where it says none."""
    descriptor = descriptors.open_file(directory, DISK_INFO)
    try:
        said = json.loads(os.pread(descriptor, DISK_INFO_BYTES, 0))
        # The paths in it are those of before a rename.
        return {f"{path}/{os.path.basename(disk)}": str(said[disk]) for disk in dict(said)}
    except (ValueError, TypeError):
        return {}
    finally:
        os.close(descriptor)


def _inode(what: os.stat_result) -> Inode:
    return what.st_dev, what.st_ino


def _stamp(what: os.stat_result) -> Stamp:
    return what.st_size, what.st_mtime_ns, what.st_ctime_ns


def _text(err: Exception) -> str:
    return (err.strerror or "") if isinstance(err, OSError) else str(err)


def real_paths(paths: Sequence[str]) -> dict[str, str]:
    """Return each path with its symbolic links followed, by looking at names alone."""
    directories = {os.path.dirname(path) for path in paths}
    real = {directory: os.path.realpath(directory) for directory in directories}
    found = {}
    for path in paths:
        there = os.path.join(real[os.path.dirname(path)], os.path.basename(path))
        found[path] = os.path.realpath(there) if os.path.islink(there) else there
    return found
