# SPDX-License-Identifier: Apache-2.0
"""The directory of the instances' files, and the only way in which anything there is removed.

Everything is named relative to an open directory, never by a path that is looked up anew, and no
symbolic link is followed: what is swapped between a look and a deletion cannot lead outside.
Source: openat(2), unlinkat(2), renameat(2); the layout is Nova's libvirt driver's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cepheid_plugins.storage import trees
from cepheid_plugins.storage.errors import StorageError as StorageError
from cepheid_plugins.storage.errors import StorageUnavailable

#: What an entry of an instance is called: its uuid, its files before a resize, those that are
#: being deleted, and a copy that is not complete.
SUFFIXES = ("", "_resize", "_del", "_part")
NAME = re.compile(rf"[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}(?:{'|'.join(SUFFIXES)})\Z")

#: A file in the directory of an instance.
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class InstancesPath:
    """The directories of instances beneath ``[compute] instances_path``.

    Entries are named by an instance's uuid, with one of the suffixes of :data:`NAME`; any other
    name is refused. What is made belongs to whom the directory around it belongs to, so that
    QEMU can open it.

    :param path: it may be a symbolic link itself; what is in it may not
    :param option: where the path is configured, of group ``[compute]``
    :param check: called before each step that changes something; what it raises ends the call
    :param resolved: the path is no symbolic link, and nobody has to look
    """

    def __init__(
        self,
        path: str,
        option: str = "instances_path",
        check: Callable[[], None] = lambda: None,
        resolved: bool = False,
    ) -> None:
        self.path = path if resolved else os.path.realpath(path)
        self._option = option
        self._check = check

    def checked(self, check: Callable[[], None]) -> InstancesPath:
        """Return the same directory, with something called before each change."""
        return InstancesPath(self.path, self._option, check, resolved=True)

    def exists(self, name: str) -> bool:
        """Tell whether an entry is there.

        :raises StorageError: it is no directory, or a symbolic link
        """
        with self._opened() as root:
            return self._is_directory(root, name)

    def check(self) -> None:
        """See that the directory is there and can be opened.

        :raises StorageUnavailable: it is not, or cannot
        """
        with self._opened():
            pass

    def names(self) -> tuple[str, ...]:
        """Return the entries of instances, of all that is there, in no order."""
        with self._opened() as root:
            return _of_instances(tuple(os.listdir(root)))

    def names_of(self, uuid: str) -> list[str]:
        """Return the entries of one instance."""
        with self._opened() as root:
            names = (_checked(f"{uuid}{suffix}") for suffix in SUFFIXES)
            return [name for name in names if _is_there(root, name)]

    def files(self, name: str) -> list[str]:
        """Return what is in an entry; nothing where it is not there."""
        with self._opened() as root, self._entry(root, name) as directory:
            return [] if directory is None else sorted(os.listdir(directory))

    def modified_at(self, name: str, file: str) -> float | None:
        """Return when a file was last written to, in seconds since 1970; None without the file."""
        with self._opened() as root, self._entry(root, name) as directory:
            if directory is None:
                return None
            try:
                return os.stat(file, dir_fd=directory, follow_symlinks=False).st_mtime
            except FileNotFoundError:
                return None

    def file_path(self, name: str, file: str) -> str:
        """Return the path of a file, for programs that want one."""
        _check_file(file)
        return os.path.join(self.path, _checked(name), file)

    def holds(self, name: str, path: str) -> bool:
        """Tell whether a path is that of a file right in an entry."""
        return os.path.realpath(os.path.dirname(path)) == os.path.join(self.path, _checked(name))

    def make(self, name: str) -> None:
        """Make an entry, if it is not there."""
        with self._opened() as root:
            if not self._is_directory(root, name):
                self._check()
                os.mkdir(name, 0o755, dir_fd=root)
                with self._entry(root, name) as directory:
                    if directory is not None:
                        os.fchmod(directory, 0o755)  # whatever the umask: QEMU's user enters it
                self._give_away(root, name)

    def read(self, name: str, file: str) -> bytes | None:
        """Return what a file holds; None where it is not there."""
        _check_file(file)
        with self._opened() as root, self._entry(root, name) as directory:
            if directory is None:
                return None
            try:
                descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
            except FileNotFoundError:
                return None
            with os.fdopen(descriptor, "rb") as stream:
                return stream.read()

    def write(self, name: str, file: str, content: bytes) -> None:
        """Write a file, all of it or nothing; only its owner may read it."""
        _check_file(file)
        with self._opened() as root, self._entry(root, name) as directory:
            if directory is None:
                raise StorageError(f"{self.path}/{name} does not exist.")
            partial = f"{file}.part"
            self._check()
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(partial, flags, 0o600, dir_fd=directory), "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            self._check()
            os.rename(partial, file, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)

    def complete(self, name: str, partial: str, file: str) -> None:
        """Give a file that was written under another name its own."""
        _check_file(partial)
        _check_file(file)
        with self._opened() as root, self._entry(root, name) as directory:
            if directory is None:
                raise StorageError(f"{self.path}/{name} does not exist.")
            self._check()
            self._give_away(directory, partial)
            os.rename(partial, file, src_dir_fd=directory, dst_dir_fd=directory)

    def unlink(self, name: str, file: str) -> None:
        """Remove a file, or a directory with all that is in it; one that is gone is fine."""
        _check_file(file)
        with self._opened() as root, self._entry(root, name) as directory:
            if directory is not None:
                trees.remove(directory, file, self._check)

    def rename(self, old: str, new: str) -> None:
        """Give an entry another name that is not taken."""
        with self._opened() as root:
            if self._is_directory(root, new):
                raise StorageError(f"{self.path}/{new} is there already.")
            _checked(old)
            self._check()
            os.rename(old, new, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)

    def copy(self, old: str, new: str) -> None:
        """Copy an entry, with owners, modes and holes; all of it or nothing.

        :raises StorageError: cp failed; the text is its own
        """
        partial = f"{old}_part"
        self.remove(partial)
        if not self.exists(old) or self.exists(new):
            raise StorageError(f"{self.path}/{old} cannot become {new}: one is not as it was.")
        source, target = (os.path.join(self.path, name) for name in (old, partial))
        done = subprocess.run(
            ["cp", "--archive", "--sparse=always", "--reflink=auto", "--", source, target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise StorageError(f"{source} was not copied: {done.stderr.strip()}")
        self.rename(partial, new)

    def remove(self, name: str) -> None:
        """Remove an entry with all that is in it; one that is gone is fine.

        :raises StorageError: something of it is left
        """
        with self._opened() as root:
            if self._is_directory(root, name):
                trees.remove(root, name, self._check)

    def remove_instance(self, uuid: str) -> bool:
        """Remove all files of an instance, aside first; tell whether there were any."""
        aside = f"{uuid}_del"
        found = bool(self.set_aside(uuid)) or self.exists(aside)
        self.remove(aside)
        return found

    def survey(self, name: str) -> trees.Survey:
        """Look at all that is in an entry; nothing where it is not there.

        :raises StorageError: a mount point is in it, or it is one
        """
        with self._opened() as root:
            if not self._is_directory(root, name):
                return trees.Survey({})
            return trees.survey(root, name)

    def set_aside(self, uuid: str) -> list[tuple[str, str]]:
        """Give all entries of an instance the one name of what is being deleted.

        What has that name already, from an interrupted removal, is in nobody's way: the others
        are moved into it. Nothing is moved if there is a mount point in any of them.

        :return: what :meth:`put_back` takes: for each its name, and where it is in there
        """
        aside = f"{uuid}_del"
        names = (uuid, f"{uuid}_resize", f"{uuid}_part")
        moved: list[tuple[str, str]] = []
        with self._opened() as root:
            there = [name for name in (aside, *names) if self._is_directory(root, name)]
            for name in there:
                trees.survey(root, name)
            for name in there:
                # Somebody else may remove the same meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if name != aside:
                        moved.append(self._move(root, name, aside))
            if moved:
                os.fsync(root)
        return moved

    def _move(self, root: int, name: str, aside: str) -> tuple[str, str]:
        with self._entry(root, aside) as directory:
            self._check()
            if directory is None:
                os.rename(name, aside, src_dir_fd=root, dst_dir_fd=root)
                return name, ""
            trees.remove(directory, name, self._check)  # of an earlier try
            self._check()
            os.rename(name, name, src_dir_fd=root, dst_dir_fd=directory)
            return name, name

    def put_back(self, uuid: str, moved: list[tuple[str, str]]) -> None:
        """Give what was set aside its names again.

        :raises StorageError: a name has been taken meanwhile
        """
        aside = f"{uuid}_del"
        with self._opened() as root:
            for name, inner in reversed(moved):
                if self._is_directory(root, name):
                    raise StorageError(f"{self.path}/{name} is there anew; {aside} stays as well.")
                self._check()
                if not inner:
                    os.rename(aside, name, src_dir_fd=root, dst_dir_fd=root)
                    continue
                with self._entry(root, aside) as directory:
                    assert directory is not None
                    os.rename(inner, name, src_dir_fd=directory, dst_dir_fd=root)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            root = os.open(self.path, trees.DIRECTORY)
        except OSError as err:
            raise StorageUnavailable(
                f"The directory {self.path} cannot be opened: {err.strerror}. Is [compute] "
                f"{self._option} right, and its storage mounted?"
            ) from err
        try:
            yield root
        except OSError as err:
            raise StorageError(
                f"{self.path}: {err.strerror} ({err.filename}). Look at its owner and the free "
                "space there."
            ) from err
        finally:
            os.close(root)

    @contextmanager
    def _entry(self, root: int, name: str) -> Iterator[int | None]:
        if not self._is_directory(root, name):
            yield None
            return
        directory = os.open(name, trees.DIRECTORY, dir_fd=root)
        try:
            yield directory
        finally:
            os.close(directory)

    def _is_directory(self, root: int, name: str) -> bool:
        try:
            mode = os.stat(_checked(name), dir_fd=root, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(mode):
            raise StorageError(
                f"{self.path}/{name} is no directory or a symbolic link; it is left alone. "
                "Look at it yourself."
            )
        return True

    def _give_away(self, directory: int, name: str) -> None:
        """Let what was made belong to whom the directory belongs to, where we are root."""
        owner = os.fstat(directory)
        if os.geteuid() == 0:
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=directory, follow_symlinks=False)


def require_apart(instances: InstancesPath, copies: InstancesPath) -> None:
    """See that the entries of neither directory are the other's, nor is it in one of them.

    :raises StorageError: what is removed of one would be the other's
    """
    if (
        instances.path == copies.path
        or _is_in_entry(instances.path, copies.path)
        or _is_in_entry(copies.path, instances.path)
    ):
        raise StorageError(
            f"[compute] instances_path = {instances.path} and [compute] shelved_path = "
            f"{copies.path} are the same, or one is in an instance's directory of the other: "
            "copies and originals would be taken for each other. Set another shelved_path."
        )


def _is_in_entry(path: str, root: str) -> bool:
    inner = os.path.relpath(path, root)
    return bool(NAME.match(inner.partition(os.sep)[0]))


@functools.lru_cache(maxsize=2)
def _of_instances(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that are names of entries. In most passes a directory is as it was."""
    return tuple(filter(NAME.match, names))


def _is_there(root: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _checked(name: str) -> str:
    if not NAME.match(name):
        raise StorageError(f"{name!r} names no directory of an instance; nothing was touched.")
    return name


def _check_file(file: str) -> None:
    if not FILE.match(file):
        raise StorageError(f"{file!r} names no file of an instance; nothing was touched.")
