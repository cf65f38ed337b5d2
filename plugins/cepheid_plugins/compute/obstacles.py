# SPDX-License-Identifier: Apache-2.0
"""Why the files of deleted instances are not to be touched: somebody uses them, or may do so.

Used is what a definition of a domain of this host names, running or not, and what its disks stand
on; what a process or loop device of this host has open (running copy jobs as well), what anybody
holds a lock on, and what has a mount in it.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from cepheid_plugins.compute import instance_folders, power_state
from cepheid_plugins.hypervisor.driver import NamedFiles
from cepheid_plugins.storage import open_files
from cepheid_plugins.storage.backing_chains import ChainReader
from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.image_cache import ImageCache

if TYPE_CHECKING:
    from cepheid.agent import Agent

UUID_LENGTH = 36

#: How often definitions and files are read at most, while domains come and go.
LOOKS = 3

#: A use of a file: its path, the uuid of the domain that names it, and the use in words.
Use = tuple[str, str, str]


class Obstacles:
    """Looks for who uses the files of instances.

    :param proc: where the kernel tells of processes, and `sys` of devices
    """

    def __init__(self, agent: Agent, proc: str = "/proc", sys: str = "/sys") -> None:
        self._agent = agent
        self._hypervisor = agent.driver("hypervisor")
        self._proc = proc
        self._sys = sys

    def of(self, uuids: Collection[str]) -> dict[str, str]:
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
        found.update(self.in_use(rest))
        return found

    def beside_domains(self, uuids: Collection[str], copies: bool = True) -> dict[str, str]:
        """Return :meth:`of` instances whose own domains may still be there.

        What an instance's own domain has is no obstacle. While that is not off, who else has the
        files open cannot be told from it; :meth:`in_use` tells that later.

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
        found.update(self.in_use(rest, copies))
        return found

    def in_use(self, uuids: Iterable[str], copies: bool = True) -> dict[str, str]:
        """Return which instances' files somebody has open or locked, or may not be touched.

        :param copies: as in :meth:`beside_domains`
        :raises CepheidError: the storage or the processes cannot be looked at
        """
        look = functools.partial(self._in_use, uuids, copies)
        return instance_folders.native(self._agent, look)

    def _named(self, uuids: Collection[str]) -> dict[str, str]:
        """Return which instances' files other domains name, running or not, or stand on."""
        domains = self._hypervisor.named_files()
        unknown, found = self._named_by(domains, uuids)
        for _ in range(LOOKS - 1):
            if not unknown:
                break
            # Who deletes an instance takes its domain away, then its files.
            before, domains = domains, self._hypervisor.named_files()
            if domains == before:
                break
            unknown, found = self._named_by(domains, uuids)
        return (dict.fromkeys(uuids, unknown) if unknown else {}) | found

    def _named_by(
        self, domains: Iterable[NamedFiles], uuids: Collection[str]
    ) -> tuple[str, dict[str, str]]:
        """Return what is not known of domains' files, in words, and :meth:`_named` of the rest."""
        unknown = ""
        others: defaultdict[str, set[str]] = defaultdict(set)
        own: defaultdict[str, set[str]] = defaultdict(set)
        uses: list[Use] = []
        for domain in domains:
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
        instances_path = self._agent.conf.compute.instances_path
        cache = instance_folders.native(self._agent, lambda: ImageCache(instances_path))
        reader = ChainReader(cache, self._agent.run_native)
        chains = reader.read_domains(others)
        standing = list(chains.paths.items())
        # What is not known of those that are to go is no reason for them to stay.
        standing += reader.read_domains(own).paths.items()
        if chains.problems:
            unknown = f"it is not known what all domains' disks stand on: {chains.problems[0]}"
        attached = functools.partial(self._attached, uuids, uses, standing)
        return unknown, instance_folders.native(self._agent, attached)

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
        roots = tuple(os.path.join(folder.path, "") for folder in instance_folders.of(self._agent))
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

    def _in_use(self, uuids: Iterable[str], copies: bool) -> dict[str, str]:
        found: dict[str, str] = {}
        held: dict[str, str] = {}
        owners: dict[tuple[int, int], tuple[str, str]] = {}
        for uuid in uuids:
            for folder in instance_folders.of(self._agent, copies):
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
