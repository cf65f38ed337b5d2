# SPDX-License-Identifier: Apache-2.0
"""A metric, as a task, a driver or an observer tells it.

Any of them may have a method ``metrics()`` that returns these. It is called on a native thread
whenever somebody scrapes ``/metrics``, also while the agent's threads hang: it must give what is
in memory, take no lock of the agent's, write to no log, and ask neither the hypervisor nor the
database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Labels = tuple[str, ...]

Kind = Literal["gauge", "counter", "summary", "histogram"]


@dataclass(frozen=True, slots=True)
class Summary:
    """How many observations there were, and their sum."""

    count: int = 0
    sum: float = 0.0

    def with_one(self, value: float) -> Summary:
        """Return it with one observation more."""
        return Summary(self.count + 1, self.sum + value)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations, counted by the upper bounds that they do not exceed.

    :param counts: of those up to each bound, and of those beyond the last
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Histogram:
        """Return one without observations."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def with_one(self, value: float) -> Histogram:
        """Return it with one observation more."""
        place = sum(value > bound for bound in self.bounds)
        counts = tuple(n + (number == place) for number, n in enumerate(self.counts))
        return Histogram(self.bounds, counts, self.sum + value)


Value = float | Summary | Histogram


@dataclass(frozen=True)
class Metric:
    """A metric and its values.

    :param name: in Prometheus's manner: a prefix that tells whose it is, base units (seconds,
        bytes), ``_total`` at the end of a counter
    :param help: what it means, in a sentence
    :param labels: the names of its labels; few values each
    :param values: by the labels' values; of a metric without labels, by ``()``
    :param kind: ``gauge`` or ``counter``, whose values are numbers; ``summary`` or ``histogram``
    """

    name: str
    help: str
    values: Mapping[Labels, Value] = field(default_factory=dict)
    labels: Labels = ()
    kind: Kind = "gauge"


def gauge(name: str, help: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return Metric(name, help, {(): value})
