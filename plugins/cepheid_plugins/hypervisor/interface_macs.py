# SPDX-License-Identifier: Apache-2.0
"""Whose traffic it is: libvirt counts it by device of the host, and guests are known by MAC.

Which MAC a device has is in the domain's definition. That is read once, and again when the domain
was started anew (its id is another), when its devices have other names, and when libvirt told that
something was plugged in: a device may go and come back under its old name, for another MAC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cepheid import concurrency
from cepheid_plugins.hypervisor.driver import NetworkCounters


class Devices(NamedTuple):
    """A running domain's interfaces, as libvirt counts them.

    :param start: the domain's id, which is another at each start as long as libvirtd runs
    :param counters: by device, what the guest received and sent, in bytes
    """

    uuid: str
    start: int
    counters: Mapping[str, tuple[int, int]]


class _Known(NamedTuple):
    start: int
    devices: frozenset[str]
    macs: Mapping[str, str]


class InterfaceMacs:
    """Remembers the MACs of domains' devices. :meth:`forget` may be called on any thread."""

    def __init__(self) -> None:
        # libvirt calls back on a native thread.
        self._lock = concurrency.original("threading").Lock()
        self._known: dict[str, _Known] = {}
        #: Whose definitions are being read; what was told of meanwhile is taken out.
        self._awaited: set[str] = set()

    def forget(self, uuid: str) -> None:
        """Read a domain's definition again, the next time; something was plugged in."""
        with self._lock:
            self._known.pop(uuid, None)
            self._awaited.discard(uuid)

    def forget_all(self) -> None:
        """Read all definitions again; what was plugged in meanwhile has not been told."""
        with self._lock:
            self._known.clear()
            self._awaited.clear()

    def counters(
        self,
        bulk: Callable[[], Iterable[Devices]],
        macs_of: Callable[[str], Mapping[str, str] | None],
    ) -> dict[str, list[NetworkCounters]]:
        """Return the counters by MAC.

        Where definitions had to be read, the bulk is asked for once more afterwards, so that no
        counters are older than the MAC they are given to. A domain that changes even then is left
        out; its counters go on until the next time.

        :param bulk: gives all domains' counters
        :param macs_of: reads a domain's MACs by device; None where that cannot be done
        """
        found = list(bulk())
        unknown = [one for one, macs in self._macs(found) if macs is None]
        for one in unknown:
            self._learn(one, macs_of)
        if unknown:
            found = list(bulk())
        self._keep({one.uuid for one in found})
        return {
            one.uuid: [
                NetworkCounters(macs[device], received, sent)
                for device, (received, sent) in one.counters.items()
                if device in macs
            ]
            for one, macs in self._macs(found)
            if macs is not None
        }

    def _macs(self, found: Iterable[Devices]) -> list[tuple[Devices, Mapping[str, str] | None]]:
        """Return each domain with its MACs by device; None where they are not known."""
        with self._lock:
            return [(one, self._macs_of(one)) for one in found]

    def _macs_of(self, one: Devices) -> Mapping[str, str] | None:
        known = self._known.get(one.uuid)
        if known is None or known.start != one.start or known.devices != one.counters.keys():
            return None
        return known.macs

    def _learn(self, one: Devices, macs_of: Callable[[str], Mapping[str, str] | None]) -> None:
        with self._lock:
            self._awaited.add(one.uuid)
        macs = None
        try:
            macs = macs_of(one.uuid)
        finally:
            with self._lock:
                if macs is not None and one.uuid in self._awaited:
                    self._known[one.uuid] = _Known(one.start, frozenset(one.counters), macs)
                self._awaited.discard(one.uuid)

    def _keep(self, uuids: set[str]) -> None:
        with self._lock:
            for uuid in self._known.keys() - uuids:
                del self._known[uuid]
