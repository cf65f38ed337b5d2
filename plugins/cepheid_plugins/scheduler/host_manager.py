# SPDX-License-Identifier: Apache-2.0
"""The receiving side: what a scheduler knows of each host's instances.

Source: Nova's scheduler/host_manager.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

LOG = logging.getLogger(__name__)

#: Seconds that a host's word counts: three of its messages at the default spacing.
MAX_AGE_SECONDS = 360.0


class Inventory(Protocol):
    """Where the truth is: the database driver, or whatever else can answer this."""

    def instance_uuids_on_host(self, host: str) -> list[str]:
        """Return the uuids of a host's live instances, in every state."""


@dataclass(eq=False)
class _Host:
    """What is known of one host."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Its instances; None where they are not known.
    uuids: set[str] | None = None
    #: When the host last said something that agreed, monotonic seconds; None for never since the
    #: set was read.
    confirmed_at: float | None = None


class HostManager:
    """Holds the instances of each host, as the hosts' messages and the database tell them.

    A set is trusted while its host goes on saying that it is right. Where it does not match what
    the host says, or the host is not known, the database is read. What the database could not
    tell is not known, and is read again when next asked for. Usable by several threads; a slow
    read of one host delays no other.

    :param inventory: the database driver
    :param max_age_seconds: after so long without a word from a host its set is not trusted
    :param monotonic: the clock, in seconds
    """

    def __init__(
        self,
        inventory: Inventory,
        max_age_seconds: float = MAX_AGE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inventory = inventory
        self._max_age_seconds = max_age_seconds
        self._monotonic = monotonic
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    @property
    def hosts(self) -> list[str]:
        """The hosts that are known."""
        with self._lock:
            return sorted(self._hosts)

    def instances(self, host: str) -> frozenset[str]:
        """Return the uuids of a host's instances.

        They come from memory while the host confirms them, else from the database, of which one
        host costs one query.

        :raises DatabaseError: they had to be read and could not
        """
        with self._lock:
            known = self._hosts.get(host)
        if known is None:
            return frozenset(self._inventory.instance_uuids_on_host(host))
        with known.lock:
            if known.uuids is None or not self._is_fresh(known):
                self._read(host, known)
            return frozenset(known.uuids or ())

    def is_confirmed(self, host: str) -> bool:
        """Tell whether what is known of a host is what it said itself, not too long ago."""
        with self._lock:
            known = self._hosts.get(host)
        return known is not None and known.uuids is not None and self._is_fresh(known)

    def sync_instance_info(self, host: str, uuids: Iterable[str]) -> None:
        """Take a host's word on which instances it has, all of them.

        :raises DatabaseError: the database had to be read and could not
        """
        known = self._known(host)
        with known.lock:
            if known.uuids == set(uuids):
                known.confirmed_at = self._monotonic()
                return
            reason = "was not known" if known.uuids is None else "did not match"
            self._read(host, known)
            LOG.info("Host %s %s; its %d instances were read", host, reason, len(known.uuids or ()))

    def update_instance_info(self, host: str, uuids: Iterable[str]) -> None:
        """Add instances to a host: new ones, or some that it has.

        :raises DatabaseError: the host was not known, and the database could not tell
        """
        self._amend(host, lambda known: known.update(uuids))

    def delete_instance_info(self, host: str, uuid: str) -> None:
        """Take an instance off a host.

        :raises DatabaseError: the host was not known, and the database could not tell
        """
        self._amend(host, lambda known: known.discard(uuid))

    def forget(self, host: str) -> None:
        """Drop what is known of a host, such as one that was taken out of service."""
        with self._lock:
            self._hosts.pop(host, None)

    def _amend(self, host: str, amend: Callable[[set[str]], None]) -> None:
        """Change what is known of a host, as it says itself; read it where nothing is known."""
        known = self._known(host)
        with known.lock:
            if known.uuids is None:
                self._read(host, known)
                return
            amend(known.uuids)
            known.confirmed_at = self._monotonic()

    def _known(self, host: str) -> _Host:
        with self._lock:
            return self._hosts.setdefault(host, _Host())

    def _is_fresh(self, known: _Host) -> bool:
        if known.confirmed_at is None:
            return False
        return self._monotonic() - known.confirmed_at <= self._max_age_seconds

    def _read(self, host: str, known: _Host) -> None:
        """Read a host's instances; until that is done they are not known."""
        known.uuids = known.confirmed_at = None
        known.uuids = set(self._inventory.instance_uuids_on_host(host))
