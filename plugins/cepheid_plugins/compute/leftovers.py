# SPDX-License-Identifier: Apache-2.0
"""Removing the files of deleted instances, once it is proven that nobody uses them.

Used is what a definition of a domain of this host names, running or not, and what its disks stand
on; what a process or loop device of this host has open (running copy jobs as well), what anybody
holds a lock on, and what has a mount in it.
It is looked at twice, the second time when the files have been set aside: who came in between is
seen then, and after that nobody finds them under their names.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cepheid import errors, progress
from cepheid_plugins.compute import power_state
from cepheid_plugins.compute.sightings import Sightings, SightingsFile, doubts_of
from cepheid_plugins.hypervisor.driver import DomainNotFound
from cepheid_plugins.storage import native_files, open_files
from cepheid_plugins.storage.backing_chains import ChainReader
from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.image_cache import ImageCache
from cepheid_plugins.storage.instances_path import InstancesPath, require_apart
from cepheid_plugins.storage.storage_users import StorageUsers

if TYPE_CHECKING:
    from cepheid.agent import Agent

T = TypeVar("T")

#: By uuid: None where nothing is left, ``"raced"`` where somebody has begun to use the files, or
#: why something is left.
Removed = dict[str, Any]

#: What was set aside of an instance, and where.
Moved = list[tuple[InstancesPath, list[tuple[str, str]]]]

UUID_LENGTH = 36

#: A use of a file: its path, the uuid of the domain that names it, and the use in words.
Use = tuple[str, str, str]


class Leftovers:
    """The files of deleted instances in the directories of this host.

    :param proc: where the kernel tells of processes, and `sys` of devices
    """

    def __init__(self, agent: Agent, proc: str = "/proc", sys: str = "/sys") -> None:
        self._agent = agent
        self._database = agent.driver("database")
        self._hypervisor = agent.driver("hypervisor")
        self._file = SightingsFile(agent.conf.state_path)
        self._proc = proc
        self._sys = sys

    def check(self) -> None:
        """See that the directories can be opened, without reading them.

        :raises StorageError: one cannot
        """

        def look() -> None:
            for folder in self._folders():
                folder.check()

        self._native(look)

    def names(self) -> tuple[str, ...]:
        """Return the names of all that is here of instances: one look at each directory.

        :raises StorageError: a directory cannot be read
        """

        def look() -> tuple[str, ...]:
            return tuple(name for folder in self._folders() for name in folder.names())

        return self._native(look)

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

        return self._native(look)

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
        """Return why the files of instances are not to be touched, of those where it is so.

        Where it is not known what a domain has, that is so of all.

        :raises CepheidError: the hypervisor, the storage or the processes cannot be looked at
        """
        domains = self._hypervisor.domains()
        found = {uuid: "its domain is still there" for uuid in uuids if uuid in domains}
        rest = [uuid for uuid in uuids if uuid not in found]
        if rest:
            found.update(self._named(rest))
        rest = [uuid for uuid in rest if uuid not in found]
        found.update(self._native(functools.partial(self._in_use, rest)))
        return found

    def obstacles_beside_domains(
        self, uuids: Collection[str], copies: bool = True
    ) -> dict[str, str]:
        """Return :meth:`obstacles` of instances whose own domains may still be there.

        What an instance's own domain has is no obstacle. While that is not off, who else has the
        files open cannot be told from it; :meth:`remove` looks at that later.

        :param copies: whether those in shelved_path are meant as well
        :raises CepheidError: as there
        """
        domains = self._hypervisor.domains()
        found = self._named(uuids)
        rest = [
            uuid
            for uuid in uuids
            if uuid not in found
            and (uuid not in domains or domains[uuid].power_state == power_state.SHUTDOWN)
        ]
        found.update(self._native(functools.partial(self._in_use, rest, copies)))
        return found

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
            used = self._native(functools.partial(self._in_use, moved, copies))
        except errors.CepheidError:
            self._put_back(moved)
            raise
        results.update(self._put_back({uuid: moved[uuid] for uuid in used}))
        for uuid in progress.each(moved.keys() - used.keys()):
            results[uuid] = self._remove_aside(uuid, copies)
        return results

    def _folders(
        self, copies: bool = True, check: Callable[[], None] = lambda: None
    ) -> list[InstancesPath]:
        paths = self._agent.conf.compute
        folders = [InstancesPath(paths.instances_path, check=check)]
        # It is made when the first instance is shelved.
        if copies and os.path.isdir(paths.shelved_path):
            folders.append(InstancesPath(paths.shelved_path, "shelved_path", check))
            require_apart(*folders)
        return folders

    def _named(self, uuids: Collection[str]) -> dict[str, str]:
        """Return which instances' files other domains name, running or not, or stand on."""
        unknown = ""
        others: defaultdict[str, set[str]] = defaultdict(set)
        own: defaultdict[str, set[str]] = defaultdict(set)
        uses: list[Use] = []
        for domain in self._hypervisor.named_files():
            words = f"is named in a definition of the domain {domain.name}"
            uses += [(path, domain.uuid, f"{path} {words}") for path in domain.files]
            formats = own if domain.uuid in uuids else others
            for path, said in domain.files.items():
                formats[path] |= said
            for disk in domain.unresolved if formats is others else ():
                unknown = (
                    f"the domain {domain.name} has the disk {disk}, which libvirt does not find. "
                    "Is the pool active?"
                )
        cache = self._native(lambda: ImageCache(self._agent.conf.compute.instances_path))
        reader = ChainReader(cache, self._agent.run_native)
        chains = reader.read_domains(others)
        standing = list(chains.paths.items())
        # What is not known of those that are to go is no reason for them to stay.
        standing += reader.read_domains(own).paths.items()
        if chains.problems:
            unknown = f"it is not known what all domains' disks stand on: {chains.problems[0]}"
        found = dict.fromkeys(uuids, unknown) if unknown else {}
        return found | self._native(functools.partial(self._attached, uuids, uses, standing))

    def _attached(
        self,
        uuids: Collection[str],
        uses: Sequence[Use],
        standing: Iterable[tuple[str, Collection[str]]],
    ) -> dict[str, str]:
        """Return of which instances another than their own domain uses files, with the use.

        :param standing: paths, each with the disks that stand on it
        """
        found: dict[str, str] = {}
        roots = tuple(os.path.join(folder.path, "") for folder in self._folders())
        owners = {os.path.realpath(path): owner for path, owner, _ in uses}
        stood_on = [
            (path, owners.get(disk, ""), f"the disk {disk} of a domain stands on {path}")
            for path, disks in standing
            for disk in sorted(disks)
        ]
        for path, owner, use in (*uses, *stood_on):
            real = os.path.realpath(path)
            for root in roots:
                uuid = real[len(root) :][:UUID_LENGTH]
                if real.startswith(root) and uuid in uuids and uuid != owner:
                    found.setdefault(uuid, use)
        return found

    def _in_use(self, uuids: Iterable[str], copies: bool = True) -> dict[str, str]:
        """Return which instances' files somebody has open or locked, or may not be touched."""
        found: dict[str, str] = {}
        held: dict[str, str] = {}
        owners: dict[tuple[int, int], tuple[str, str]] = {}
        for uuid in uuids:
            for folder in self._folders(copies):
                for name in folder.names_of(uuid):
                    try:
                        survey = folder.survey(name)
                    except StorageError as err:
                        found[uuid] = str(err)
                        continue
                    owners.update({one: (uuid, path) for one, path in survey.paths.items()})
                    if survey.locked:
                        found[uuid] = f"somebody holds a lock on {survey.locked}"
                    if survey.held:
                        held[uuid] = survey.held
        if not owners:
            return found
        holders = open_files.holders(owners, self._proc, self._sys)
        if holders.blind:
            reasons = {
                uuid: f"{holders.blind}, and somebody may have {path} open. Is the agent root?"
                for uuid, path in held.items()
            }
            found = {**reasons, **found}
        for one, who in holders.found.items():
            uuid, path = owners[one]
            found[uuid] = f"{who} has {path} open"
        return found

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
            folders = self._folders(copies, check)
            return [(folder, folder.set_aside(uuid)) for folder in folders]

        return self._native(set_aside)

    def _put_back(self, moved: Mapping[str, Moved]) -> Removed:
        results: Removed = {}
        for uuid, places in moved.items():
            results[uuid] = "raced"
            for folder, names in places:
                check = native_files.until(self._agent.clock, native_files.LOOK_SECONDS)
                back = folder.checked(check)
                try:
                    self._native(functools.partial(back.put_back, uuid, names))
                except errors.CepheidError as err:
                    results[uuid] = err
        return results

    def _remove_aside(self, uuid: str, copies: bool) -> Exception | None:
        check = native_files.until(self._agent.clock, native_files.REMOVE_SECONDS)

        def remove() -> None:
            for folder in self._folders(copies, check):
                folder.remove(f"{uuid}_del")

        try:
            self._native(remove, native_files.REMOVE_SECONDS)
        except errors.CepheidError as err:
            return err
        return None

    def _native(self, call: Callable[[], T], seconds: float | None = None) -> T:
        answer: T = self._agent.run_native(
            call,
            deadline=native_files.LOOK_SECONDS if seconds is None else seconds,
            name="looking at instances' files",
        )
        return answer


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
