# SPDX-License-Identifier: Apache-2.0
"""A bandwidth meter that tells what it is given to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from cepheid_plugins.bandwidth.driver import (
    BandwidthMeter,
    InterfaceCounters,
    MeteredInstance,
    MeterError,
)


class MemoryMeter(BandwidthMeter):
    """Tells what it is given to tell."""

    #: What a call that is not answered raises.
    unavailable = MeterError

    def __init__(self, agent: Any = None) -> None:
        super().__init__(agent)
        #: What it tells, right or wrong, and what it fails with after that.
        self.told: list[object] = []
        self.error: Exception | None = None
        #: Called before it tells.
        self.meanwhile: Callable[[], object] = lambda: None
        #: What it was asked for, each time.
        self.asked: list[list[MeteredInstance]] = []

    def read(self, instances: Sequence[MeteredInstance]) -> Iterable[InterfaceCounters]:
        self.asked.append(list(instances))
        self.meanwhile()
        yield from cast(Iterable[InterfaceCounters], self.told)
        if self.error is not None:
            raise self.error
