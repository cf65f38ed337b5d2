# SPDX-License-Identifier: Apache-2.0
"""The hosts that share a storage: Nova's registry beneath instances_path, and our memory of it.

nova-compute enters its host into ``compute_nodes`` at each pass of its own; one that cannot read
the file begins a new one. So each host that was ever seen there is kept in a file of our own too,
until an operator says that it is gone. Source: Nova's storage_users.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping

from cepheid_plugins.storage import descriptors, nova_locks
from cepheid_plugins.storage.instances_path import StorageError

REGISTRY = "compute_nodes"
MEMORY = "cepheid_compute_nodes"
LOCK = "storage-registry-lock"

_FULL = (errno.ENOSPC, errno.EDQUOT)

#: A registry is some bytes for each host.
_MAX_BYTES = 1 << 20


class NoRoom(StorageError):
    """The registry was read, and there is no room to write it; it is as it was."""


class StorageUsers:
    """The hosts whose instances are beneath a directory.

    :param path: the resolved instances_path
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def hosts(self) -> dict[str, float]:
        """Return all hosts that were ever seen, each with its last time in epoch seconds.

        :raises StorageError: a registry cannot be read
        """
        with self._root() as root:
            return _merged(*_read_both(root))

    def register(self, host: str, now: float) -> dict[str, float]:
        """Enter this host, for Nova too; return all hosts.

        :raises Held: somebody else is writing to the registry
        :raises NoRoom: it can be read and not written
        :raises StorageError: a registry cannot be read; it is left as it is
        """
        return self._rewrite(lambda hosts: {**hosts, host: now})

    def forget(self, host: str) -> None:
        """Remove a host that is gone; it comes back by itself when it is not.

        :raises Held: somebody else is writing to the registry
        """
        self._rewrite(lambda hosts: {name: at for name, at in hosts.items() if name != host})

    def _rewrite(
        self, change: Callable[[Mapping[str, float]], dict[str, float]]
    ) -> dict[str, float]:
        with self._root() as root, nova_locks.held(root, LOCK):
            registry, memory = _read_both(root)
            known = change(_merged(registry, memory))
            try:
                # Memory first: what is in the registry is in it too, whatever happens between.
                _write(root, MEMORY, known, memory)
                _write(root, REGISTRY, change(registry), registry)
            except OSError as err:
                if err.errno not in _FULL:
                    raise
                raise NoRoom(f"{self._path}/{REGISTRY} is not written: {err.strerror}") from err
            return known

    def _root(self) -> contextlib.AbstractContextManager[int]:
        return descriptors.opened_root(self._path, "[compute] instances_path")


def _merged(registry: Mapping[str, float], memory: Mapping[str, float]) -> dict[str, float]:
    names = registry.keys() | memory.keys()
    return {name: max(registry.get(name, 0), memory.get(name, 0)) for name in sorted(names)}


def _read_both(root: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the hosts in the registry, and in our memory.

    :raises StorageError: one cannot be read; the text says what to do about it
    """
    found: dict[str, dict[str, float]] = {}
    broken: dict[str, Exception] = {}
    for name in (REGISTRY, MEMORY):
        try:
            found[name] = _read(root, name)
        except (ValueError, TypeError, AttributeError) as err:
            broken[name] = err
    if not broken:
        return found[REGISTRY], found[MEMORY]
    name, why = next(iter(broken.items()))
    known = ", ".join(sorted({host for hosts in found.values() for host in hosts}))
    if_all = f"Known are {known}: if that is all of them" if known else "If nobody else does"
    raise StorageError(
        f"The registry {name} in instances_path cannot be read ({why}), so who else uses this "
        f"storage is not known, and nothing is removed. {if_all}, remove {name}, and it is made "
        'anew; else write it as JSON, {"HOST": 0} with each host that does.'
    ) from why


def _read(root: int, name: str) -> dict[str, float]:
    """Return the hosts in a registry; none where there is none.

    :raises ValueError, TypeError, AttributeError: it cannot be read
    """
    if descriptors.found(root, name) is None:
        return {}
    descriptor = descriptors.open_file(root, name)
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(_MAX_BYTES)
    if not text.strip():
        # Nova empties it before it writes it: it was killed, or the disk is full.
        raise ValueError("it is empty")
    found = json.loads(text)
    return {str(host): float(at) for host, at in found.items()}


def _write(root: int, name: str, hosts: Mapping[str, float], before: Mapping[str, float]) -> None:
    """Write a registry, all of it or nothing."""
    if hosts == before:
        return
    partial = f"{name}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, 0o644, dir_fd=root), "w") as stream:
            json.dump(hosts, stream)
            stream.flush()
            os.fsync(stream.fileno())
        descriptors.give_away(root, partial)
        os.rename(partial, name, src_dir_fd=root, dst_dir_fd=root)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=root)
        raise
    os.fsync(root)
