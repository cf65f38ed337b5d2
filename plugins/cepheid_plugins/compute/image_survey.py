# SPDX-License-Identifier: Apache-2.0
"""Finding out who uses the files of the image cache.

A quick look asks the inventory and reads the disks beneath instances_path. What it finds unused is
looked for once more, thoroughly: in the definitions of all domains, among their disks elsewhere,
and among the files that processes have open.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cepheid import closed_files
from cepheid_plugins.compute.image_verdicts import Rules, Uses, Verdict, decide
from cepheid_plugins.compute.sightings import SightingsFile, doubts_of
from cepheid_plugins.database.records import ImageUser
from cepheid_plugins.storage import file_users, image_heads
from cepheid_plugins.storage.backing_chains import ChainReader
from cepheid_plugins.storage.backing_files import READ_SECONDS
from cepheid_plugins.storage.image_cache import CachedFile, ImageCache
from cepheid_plugins.storage.instances_path import NAME
from cepheid_plugins.storage.storage_users import StorageUsers

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: What is known of disks, kept in state_path for a task that cron runs.
FILE_NAME = "cepheid-backing-files.json"

#: After this time without an entry, a host is named to the operator. Source: Nova's storage_users.
SILENT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the image cache, with what is to become of it.

    :param owners: who uses it
    """

    file: CachedFile
    owners: frozenset[str]
    verdict: Verdict
    reason: str


@dataclass
class Survey:
    """What a look at the image cache has found.

    :param uses: who uses which files; with the problems for which nothing is removed
    """

    found: list[Found]
    uses: Uses

    def having(self, *verdicts: Verdict) -> list[Found]:
        """Return the files on which one of these verdicts was given."""
        return [one for one in self.found if one.verdict in verdicts]


class Surveyor:
    """Looks at the image cache of this host.

    :param agent: its drivers ``database`` and ``hypervisor`` are asked
    :param subdirectory: the name of the cache in instances_path
    :param proc: where the host's processes are
    """

    def __init__(self, agent: Agent, subdirectory: str, proc: str = "/proc") -> None:
        self._agent = agent
        self._database = agent.driver("database")
        self._hypervisor = agent.driver("hypervisor")
        self._proc = proc
        #: What it was made for.
        self.configured = agent.conf.compute.instances_path, subdirectory
        self.cache = ImageCache(*self.configured)
        self.users = StorageUsers(self.cache.path)
        self.chains = ChainReader(self.cache, agent.run_native)
        self._memory = Path(agent.conf.state_path) / FILE_NAME
        with contextlib.suppress(OSError):
            self.chains.backing_files.load(self._memory.read_text(errors="replace"))
        self._remembered = self.chains.backing_files.known

    def now(self) -> float:
        """Return the time in epoch seconds."""
        return self._agent.clock.utcnow().replace(tzinfo=datetime.UTC).timestamp()

    def scan(self) -> list[CachedFile] | None:
        """Return the files of the cache and those aside; None where there is no cache."""
        files: list[CachedFile] | None = self._agent.run_native(
            self.cache.scan, deadline=READ_SECONDS, name="scan of the image cache"
        )
        return files

    def look(
        self, files: Sequence[CachedFile], hosts: Sequence[str], rules: Rules, thorough: bool
    ) -> Survey:
        """Decide on files, from all that can be found out.

        :param hosts: those that share the storage
        :param thorough: ask the hypervisor and look at processes as well
        """
        uses = Uses()
        users = self._database.image_users(list(hosts))
        uses.add_instances(users)
        defined, unresolved = self._ask_hypervisor(uses) if thorough else (None, [])
        aside = [file for file in files if file.aside_at is not None]
        chains = self.chains.read(defined, aside)
        if thorough and chains.problems:
            # Who deletes an instance takes its domain away, then its files.
            before = defined
            defined, unresolved = self._ask_hypervisor(uses)
            if defined != before:
                chains = self.chains.read(defined, aside)
        uses.add_names(chains.names, "disk ")
        uses.problems += [*unresolved, *chains.problems]
        if thorough:
            self._look_at_processes(uses, files)
            doubts = self._doubts(users)
            if doubts:
                uses.problems.append(doubts)
        else:
            # The definitions may solve them, and are asked before anything is removed.
            uses.problems.clear()
        now = self.now()
        cached = {file.name: file.inode for file in files if file.aside_at is None}
        found = []
        for file in files:
            # One that has both names is on its way back.
            is_taken = cached.get(file.name, file.inode) != file.inode
            verdict, reason = decide(file, uses, rules, now, is_taken)
            found.append(Found(file, frozenset(uses.of(file)), verdict, reason))
        return Survey(found, uses)

    def remember(self) -> None:
        """Keep what is known of disks for the next process."""
        known = self.chains.backing_files.known
        if known == self._remembered:
            return
        partial = self._memory.with_suffix(".part")
        try:
            with open(partial, "w", opener=closed_files.opener) as stream:
                stream.write(self.chains.backing_files.dump())
            partial.replace(self._memory)
        except OSError as err:
            # It is asked again then, and no reason to stop.
            LOG.warning("%s cannot be written: %s.", self._memory, err.strerror)
        else:
            self._remembered = known

    def _ask_hypervisor(self, uses: Uses) -> tuple[dict[str, set[str]], list[str]]:
        """Enter the files that domains name.

        :return: those with the formats they are given, and a sentence for each disk that the
            hypervisor does not find
        """
        unresolved: list[str] = []
        formats: dict[str, set[str]] = defaultdict(set)
        owners: dict[str, set[str]] = defaultdict(set)
        for domain in self._hypervisor.named_files():
            for path, said in domain.files.items():
                formats[path] |= said
                owners[path].add(f"domain {domain.name}")
            unresolved += [
                f"domain {domain.name} has the disk {disk}, which libvirt does not find. Is the "
                "pool active?"
                for disk in domain.unresolved
            ]
        real: dict[str, str] = self._agent.run_native(
            image_heads.real_paths, list(owners), deadline=READ_SECONDS, name="real paths"
        )
        for path, there in real.items():
            for name in {os.path.basename(path), os.path.basename(there)}:
                uses.names[name] |= owners[path]
        return formats, unresolved

    def _look_at_processes(self, uses: Uses, files: Sequence[CachedFile]) -> None:
        wanted = {(file.device, file.inode) for file in files}
        found = self._agent.run_native(
            file_users.users_of, wanted, self._proc, deadline=READ_SECONDS, name="open files"
        )
        for inode, owners in found.items():
            uses.inodes[inode] |= owners

    def _doubts(self, users: Sequence[ImageUser]) -> str:
        """Return why the inventory is not to be trusted with deletions; nothing if it is."""
        sightings = SightingsFile(self._agent.conf.state_path).read()
        live = {user.uuid for user in users if user.host == self._agent.host}
        doubts = doubts_of(self._agent, sightings, live)
        if not doubts and sightings.is_new and not users:
            there = self._agent.run_native(
                os.listdir, self.cache.path, deadline=READ_SECONDS, name="list of instances_path"
            )
            files = sum(1 for name in there if NAME.match(name))
            if files:
                doubts = f"no instance is on record, and {files} have files here"
        if doubts:
            doubts += ". Is it the right database? If it is, run 'cepheid host confirm'"
        return doubts
