# SPDX-License-Identifier: Apache-2.0
"""Removing the files of deleted instances, once it is proven that nobody uses them.

It is looked at twice, see :mod:`.obstacles`, the second time when the files have been set aside:
who came in between is seen then, and after that nobody finds them under their names.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cepheid import errors, progress
from cepheid_plugins.compute import instance_folders
from cepheid_plugins.compute.obstacles import UUID_LENGTH, Obstacles
from cepheid_plugins.compute.sightings import Sightings, SightingsFile, doubts_of
from cepheid_plugins.hypervisor.driver import DomainNotFound
from cepheid_plugins.storage import native_files
from cepheid_plugins.storage.instances_path import InstancesPath
from cepheid_plugins.storage.storage_users import StorageUsers

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: By uuid: None where nothing is left, ``"raced"`` where somebody has begun to use the files, or
#: why something is left.
Removed = dict[str, Any]

#: What was set aside of an instance, and where.
Moved = list[tuple[InstancesPath, list[tuple[str, str]]]]


class Leftovers:
    """The files of deleted instances in the directories of this host.

    :param proc: where the kernel tells of processes, and `sys` of devices
    """

    def __init__(self, agent: Agent, proc: str = "/proc", sys: str = "/sys") -> None:
        self._agent = agent
        self._database = agent.driver("database")
        self._hypervisor = agent.driver("hypervisor")
        self._file = SightingsFile(agent.conf.state_path)
        self._obstacles = Obstacles(agent, proc, sys)

    def check(self) -> None:
        """See that the directories can be opened, without reading them.

        :raises StorageError: one cannot
        """

        def look() -> None:
            for folder in instance_folders.of(self._agent):
                folder.check()

        instance_folders.native(self._agent, look)

    def names(self) -> tuple[str, ...]:
        """Return the names of all that is here of instances: one look at each directory.

        :raises StorageError: a directory cannot be read
        """

        def look() -> tuple[str, ...]:
            return tuple(
                name for folder in instance_folders.of(self._agent) for name in folder.names()
            )

        return instance_folders.native(self._agent, look)

    def entries(self) -> dict[str, list[str]]:
        """Return :meth:`names` by the uuid of the instance."""
        return by_uuid(self.names())

    def hosts(self) -> set[str]:
        """Return the hosts that were ever seen to be registered as users of this host's
        instances_path, as Nova's image cache does there.

        :raises StorageError: the registry cannot be read
        """
        path = self._agent.conf.compute.instances_path

        def look() -> set[str]:
            return set(StorageUsers(os.path.realpath(path)).hosts())

        return instance_folders.native(self._agent, look)

    def doubts(self, live: Collection[str], write: bool) -> tuple[str, Sightings]:
        """Return why nothing is to be destroyed, if so, and what was seen before.

        :param live: the instances that are alive on this host
        :param write: whether what is seen is kept if nothing was seen before; who looks for
            domains that are left over keeps it up to date
        """
        seen = self._file.read()
        doubts = doubts_of(self._agent, seen, live)
        if write and not doubts and seen.is_new:
            host, hypervisor = self._agent.host, self._hypervisor.identity
            seen.look(host, hypervisor, live, (), (), self._agent.clock.utcnow())
            self._file.write(seen)
        return doubts, seen

    def obstacles(self, uuids: Collection[str]) -> dict[str, str]:
        """Return :meth:`.Obstacles.of` these instances."""
        return self._obstacles.of(uuids)

    def obstacles_beside_domains(
        self, uuids: Collection[str], copies: bool = True
    ) -> dict[str, str]:
        """Return :meth:`.Obstacles.beside_domains` of these instances."""
        return self._obstacles.beside_domains(uuids, copies)

    def remove(
        self, uuids: Sequence[str], is_dead: Callable[[str], bool], copies: bool = True
    ) -> Removed:
        """Remove all files of instances.

        :param is_dead: asked once more for each, right before
        :param copies: whether those in shelved_path are removed as well
        """
        results: Removed = {}
        moved: dict[str, Moved] = {}
        for uuid in uuids:
            try:
                is_there = not is_dead(uuid) or self._has_domain(uuid)
            except errors.CepheidError:
                self._put_back(moved)
                raise
            if is_there:
                results[uuid] = "raced"
                continue
            try:
                moved[uuid] = self._set_aside(uuid, copies)
            except errors.CepheidError as err:
                results[uuid] = err
        try:
            used = self._obstacles.in_use(moved, copies)
        except errors.CepheidError:
            self._put_back(moved)
            raise
        results.update(self._put_back({uuid: moved[uuid] for uuid in used}))
        for uuid in progress.each(moved.keys() - used.keys()):
            results[uuid] = self._remove_aside(uuid, copies)
        return results

    def _has_domain(self, uuid: str) -> bool:
        try:
            self._hypervisor.power_state(uuid)
        except DomainNotFound:
            return False
        return True

    def _set_aside(self, uuid: str, copies: bool) -> Moved:
        # Who waits for this may have given it up: the instance may be alive again.
        check = native_files.until(self._agent.clock, native_files.LOOK_SECONDS)

        def set_aside() -> Moved:
            folders = instance_folders.of(self._agent, copies, check)
            return [(folder, folder.set_aside(uuid)) for folder in folders]

        return instance_folders.native(self._agent, set_aside)

    def _put_back(self, moved: Mapping[str, Moved]) -> Removed:
        results: Removed = {}
        for uuid, places in moved.items():
            results[uuid] = "raced"
            for folder, names in places:
                check = native_files.until(self._agent.clock, native_files.LOOK_SECONDS)
                back = folder.checked(check)
                try:
                    instance_folders.native(
                        self._agent, functools.partial(back.put_back, uuid, names)
                    )
                except errors.CepheidError as err:
                    results[uuid] = err
        return results

    def _remove_aside(self, uuid: str, copies: bool) -> Exception | None:
        check = native_files.until(self._agent.clock, native_files.REMOVE_SECONDS)

        def remove() -> None:
            for folder in instance_folders.of(self._agent, copies, check):
                folder.remove(f"{uuid}_del")

        try:
            instance_folders.native(self._agent, remove, native_files.REMOVE_SECONDS)
        except errors.CepheidError as err:
            return err
        return None


def by_uuid(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of what is here of instances by the uuid that each begins with."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        found[uuid_of(name)].append(name)
    return dict(found)


@functools.lru_cache(maxsize=2)
def uuids_of(names: tuple[str, ...]) -> frozenset[str]:
    """Return the uuids of all that is here. In most passes that is what it was in the last."""
    return frozenset(map(uuid_of, names))


def uuid_of(name: str) -> str:
    """Return the uuid of the instance of which there is something of this name."""
    return name[:UUID_LENGTH]


def directories(names: Sequence[str]) -> str:
    """Say how many directories there are, for the record of a change."""
    return "1 directory" if len(names) == 1 else f"{len(names)} directories"
