# SPDX-License-Identifier: Apache-2.0
"""Networks in memory."""

from __future__ import annotations

from collections.abc import Sequence

from cepheid_plugins.network.driver import LookUp, Network, NetworkUnavailable, Vif


class MemoryNetwork(Network):
    """Networks in memory."""

    #: What a call that is not answered raises.
    unavailable = NetworkUnavailable

    is_of_cloud = True

    def __init__(self) -> None:
        self.calls = 0
        #: By instance: its interfaces; one without any has none.
        self.vifs: dict[str, list[Vif]] = {}
        #: By instance: its ports that are bound elsewhere, and why.
        self.misbound: dict[str, dict[str, str]] = {}
        #: By instance: what its look-up fails with.
        self.failures: dict[str, Exception] = {}
        #: Who was looked up, and whose ports were bound, in order.
        self.looked_up: list[str] = []
        self.bound: list[str] = []

    @property
    def changes(self) -> int:
        """How often anything was changed."""
        return len(self.bound)

    def look_up(self, uuid: str, cached: Sequence[Vif], order: Sequence[str]) -> LookUp:
        self.calls += 1
        self.looked_up.append(uuid)
        if uuid in self.failures:
            raise self.failures[uuid]
        return LookUp(self.vifs.get(uuid, []), self.misbound.get(uuid, {}))

    def rebind(self, uuid: str) -> None:
        self.calls += 1
        self.bound.append(uuid)
        self.misbound.pop(uuid, None)
