# SPDX-License-Identifier: Apache-2.0
"""What the agent has seen of its host, kept in a file, so that a wrong inventory is noticed.

A database that was restored from an old copy, or that is another cell's, says things that cannot
be: that an instance was deleted before it was last seen alive, for instance. Whoever destroys asks
here first.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cepheid import closed_files, errors

if TYPE_CHECKING:
    from cepheid.agent import Agent
    from cepheid.run import RunContext

FILE_NAME = "cepheid-sightings.json"

#: What one clock may be ahead of another, whose times are compared.
CLOCKS_DIFFER = datetime.timedelta(minutes=5)


@dataclass
class Sightings:
    """What was seen when the agent last looked. Times are naive UTC, as ISO 8601 text."""

    host: str = ""
    hypervisor: str = ""
    #: When the agent last looked and found somebody alive on this host; nothing if it was nobody.
    looked_at: str = ""
    #: Who was alive on this host then.
    live: set[str] = field(default_factory=set)
    #: By uuid of the others that had a domain here: when they were last seen alive, wherever.
    last_alive: dict[str, str] = field(default_factory=dict)
    #: Whether it was told who of the live ones is soft-deleted, ...
    knows_soft_deleted: bool = False
    #: ... and by uuid of those: when they were last seen in use; nothing if they never were.
    soft_deleted: dict[str, str] = field(default_factory=dict)
    #: By uuid: since when a domain is known to be a left-over.
    suspects: dict[str, str] = field(default_factory=dict)

    @property
    def is_new(self) -> bool:
        """Whether nothing was seen yet."""
        return not self.host

    def doubts(self, host: str, hypervisor: str, live: Collection[str], rows: Collection[str],
               is_known: bool) -> str:  # fmt: skip
        """Return why the inventory is not to be trusted with destruction; nothing if it is.

        :param live: the instances that are alive on this host now
        :param rows: those of the ones that were alive of which there is any row now
        :param is_known: whether the inventory has a record of this host itself
        """
        if self.is_new:
            if live or is_known:
                return ""
            return "the inventory knows neither this host nor an instance on it"
        if self.host != host:
            return f"this host was {self.host} and is {host} now"
        if self.hypervisor != hypervisor:
            return f"the hypervisor was {self.hypervisor} and is {hypervisor} now"
        if not live and self.live - set(rows):
            return f"all {len(self.live)} instances of this host vanished from the inventory"
        return ""

    def was_alive_after(self, uuid: str, then: datetime.datetime) -> str:
        """Return when an instance was seen alive, if that was after `then`; nothing if not."""
        seen = self._seen_alive(uuid)
        return seen if seen and datetime.datetime.fromisoformat(seen) > then else ""

    def was_used_after(self, uuid: str, then: datetime.datetime) -> str:
        """Return when an instance was seen in use, neither deleted nor soft-deleted, if that was
        long enough after `then` for no difference of clocks; nothing if not."""
        seen = self._seen_in_use(uuid)
        return seen if seen and datetime.datetime.fromisoformat(seen) > then + CLOCKS_DIFFER else ""

    def look(
        self,
        host: str,
        hypervisor: str,
        live: Collection[str],
        alive: Collection[str],
        domains: Collection[str],
        now: datetime.datetime,
        soft_deleted: Collection[str] | None = None,
    ) -> None:
        """Enter what is seen now.

        :param live: the instances that are alive on this host, soft-deleted ones included
        :param alive: those that are alive on whatever host, and have a domain here
        :param soft_deleted: those of `live` that are; None where that is not known
        """
        live = set(live)
        others = {
            uuid: now.isoformat() if uuid in alive else self._seen_alive(uuid)
            for uuid in domains
            if uuid not in live
        }
        self.last_alive = {uuid: seen for uuid, seen in others.items() if seen}
        self.soft_deleted = {uuid: self._seen_in_use(uuid) for uuid in soft_deleted or ()}
        self.knows_soft_deleted = soft_deleted is not None
        self.host, self.hypervisor = host, hypervisor
        self.looked_at, self.live = now.isoformat() if live else "", live

    def _seen_alive(self, uuid: str) -> str:
        """Return when an instance was last seen alive; nothing if it never was."""
        # A file of an earlier version has a time for each, and none for all.
        return (self.looked_at if uuid in self.live else "") or self.last_alive.get(uuid, "")

    def _seen_in_use(self, uuid: str) -> str:
        """Return when an instance was last seen in use here; nothing if it never was."""
        if uuid in self.soft_deleted:
            return self.soft_deleted[uuid]
        return self.looked_at if self.knows_soft_deleted and uuid in self.live else ""

    def suspect(self, uuids: Iterable[str], now: datetime.datetime) -> set[str]:
        """Enter the domains that are left-overs now; return those that were so before."""
        known, since = self.suspects, now.isoformat()
        self.suspects = {uuid: known.get(uuid, since) for uuid in uuids}
        return known.keys() & self.suspects.keys()


class SightingsFile:
    """Where they are kept.

    :param state_path: ``[DEFAULT] state_path``
    """

    def __init__(self, state_path: str) -> None:
        self.path = Path(state_path) / FILE_NAME
        #: What was in it when it was last read.
        self._text = ""

    def read(self) -> Sightings:
        """Return what was seen; nothing where there is no file.

        :raises CepheidError: the file cannot be read
        """
        self._text = ""
        try:
            self._text = self.path.read_text()
            found = json.loads(self._text)
            sightings = Sightings(**{**found, "live": set(found.get("live", ()))})
            _check(sightings.last_alive)
            _check({uuid: seen for uuid, seen in sightings.soft_deleted.items() if seen})
            _check(sightings.suspects)
            if sightings.looked_at:
                datetime.datetime.fromisoformat(sightings.looked_at)
        except FileNotFoundError:
            return Sightings()
        except (OSError, ValueError, TypeError, AttributeError) as err:
            raise errors.CepheidError(
                f"{self.path} cannot be read ({err}), so nothing is destroyed. Look whether the "
                "inventory is right, then run 'cepheid host confirm'."
            ) from err
        return sightings

    def write(self, sightings: Sightings) -> None:
        """Keep what was seen, all of it or nothing; a file that says so already is left as it is.

        :raises CepheidError: the file cannot be written
        """
        text = json.dumps({**vars(sightings), "live": sorted(sightings.live)}, sort_keys=True)
        if text == self._text:
            return
        partial = self.path.with_suffix(".part")
        try:
            with open(partial, "w", opener=closed_files.opener) as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(self.path)
        except OSError as err:
            raise errors.CepheidError(f"{self.path} cannot be written: {err}.") from err


def doubts_of(agent: Agent, sightings: Sightings, live: Collection[str]) -> str:
    """Return why the inventory is not to be trusted with destruction; nothing if it is.

    :param live: the instances that are alive on this host now
    :raises CepheidError: this host's clock is not the database's
    """
    database, hypervisor = agent.driver("database"), agent.driver("hypervisor")
    database.check_clock()
    rows: set[str] = set()
    is_known = False
    if not live and sightings.is_new:
        is_known = bool(database.compute_nodes(agent.host))
    elif not live and sightings.live:
        rows = database.known_uuids(sightings.live)
    return sightings.doubts(agent.host, hypervisor.identity, live, rows, is_known)


def is_in_doubt(context: RunContext, agent: Agent, seen: Sightings | None = None) -> bool:
    """Tell whether nothing of this host is to be destroyed, and say why.

    :param seen: what was seen, by whoever has read it already
    :raises CepheidError: as :func:`doubts_of`
    """
    live = agent.driver("database").instance_uuids_on_host(agent.host)
    if seen is None:
        seen = SightingsFile(agent.conf.state_path).read()
    doubts = doubts_of(agent, seen, live)
    if doubts:
        say_doubts(context, doubts)
    return bool(doubts)


def why_doubtful(
    uuid: str, deleted_at: datetime.datetime | None, seen: Sightings, is_moving: bool = False
) -> str:
    """Return why what a deleted instance has left is not to be removed; empty where it may be.

    :param deleted_at: what the inventory says of it, naive UTC
    :param seen: who was alive on this host, and when
    :param is_moving: whether a migration of it has not ended, by its status
    """
    if deleted_at is None:
        return "it is deleted, and its deleted_at is NULL"
    alive_at = seen.was_alive_after(uuid, deleted_at)
    if alive_at:
        return (
            f"the inventory says that it was deleted at {deleted_at}, and it was alive at "
            f"{alive_at}. Was the database restored from an old copy?"
        )
    if is_moving:
        return (
            "it is deleted, and by its status a migration of it still goes on; if nobody is at it "
            "any more, set migrations.status to failed"
        )
    return ""


def say_doubts(context: RunContext, doubts: str) -> None:
    """Tell the operator that nothing is destroyed, and what to do about it."""
    context.explain(
        None,
        f"nothing is destroyed: {doubts}",
        rule="nothing is destroyed while the inventory may be a wrong one",
        until="'cepheid host confirm', if it is the right one",
    )
    context.skip(
        "host",
        f"{doubts}, so nothing is destroyed. Is it the right database? If it is, run "
        "'cepheid host confirm'",
    )


def _check(times: Mapping[str, str]) -> None:
    for text in set(times.values()):
        datetime.datetime.fromisoformat(text)
