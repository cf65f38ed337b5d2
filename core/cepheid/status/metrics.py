# SPDX-License-Identifier: Apache-2.0
"""``/metrics``: what everybody in the agent tells, in Prometheus's formats.

The numbers are kept by those who tell them (:mod:`cepheid.metric`) and become prometheus_client's
at a scrape. Its own counters would take a lock of the threading module, which is green in an agent
with green threads, and a scrape comes on a native one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import prometheus_client
from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from cepheid.metric import Histogram, Metric, Summary
from cepheid.status.messages import Request, Response

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

#: Whoever tells metrics: its name, and what gives them.
Source = tuple[str, Callable[[], Iterable[Metric]]]


class Exposition:
    """Answers scrapes.

    :param sources: gives whoever tells metrics; an error of one keeps the others not
    """

    def __init__(self, sources: Callable[[], Iterable[Source]]) -> None:
        self._sources = sources
        self._process = prometheus_client.ProcessCollector(registry=None)
        #: What went wrong last, by source, for the log.
        self.failures: dict[str, str] = {}

    def answer(self, request: Request) -> Response:
        """Answer a scrape."""
        encode, content_type = exposition.choose_encoder(request.header("Accept"))
        return Response(200, encode(self.registry()), content_type)

    def registry(self) -> prometheus_client.CollectorRegistry:
        """Return a registry of what is told now; it is for the calling thread alone."""
        registry = prometheus_client.CollectorRegistry(auto_describe=False)
        registry.register(self._process)
        registry.register(_Collector(self._families))
        return registry

    def _families(self) -> Iterator[Any]:
        known: dict[str, str] = {}
        failures: dict[str, str] = {}
        for source, tell in self._sources():
            try:
                families = [(metric.name, _family(metric)) for metric in tell()]
            except Exception as err:  # noqa: BLE001 - a vendor's metrics: those alone are missing
                failures[source] = f"{type(err).__name__}: {err}"
                continue
            for name, family in families:
                if known.setdefault(family.name, source) != source:
                    failures[source] = f"{name} is told by {known[family.name]} already"
                else:
                    yield family
        self.failures = failures
        yield _family(
            Metric(
                "cepheid_metrics_failed",
                "Whose metrics are missing here since they could not be told; always 1.",
                {(source,): 1 for source in failures},
                ("source",),
            )
        )


class _Collector(Collector):
    def __init__(self, families: Callable[[], Iterator[Any]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        return self._families()


def _family(metric: Metric) -> Any:
    """Return a metric as prometheus_client has it.

    :raises ValueError: it is none
    """
    for name in (metric.name, *metric.labels):
        # prometheus_client takes any text, which Prometheus 2 does not.
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a metric or label")
    make = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in metric.values.items():
        texts = [str(label) for label in labels]
        if len(texts) != len(metric.labels):
            raise ValueError(f"{metric.name}: {labels} are not values of {metric.labels}")
        if isinstance(value, Summary):
            make.add_metric(texts, count_value=value.count, sum_value=value.sum)
        elif isinstance(value, Histogram):
            make.add_metric(texts, buckets=_buckets(value), sum_value=value.sum)
        else:
            make.add_metric(texts, float(value))
    return make


_FAMILIES: Mapping[str, Callable[..., Any]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "summary": SummaryMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _buckets(histogram: Histogram) -> list[tuple[str, int]]:
    """Return the counts up to each bound, each holding those before."""
    total, found = 0, []
    bounds = [prometheus_client.utils.floatToGoString(bound) for bound in histogram.bounds]
    for bound, count in zip([*bounds, "+Inf"], histogram.counts, strict=True):
        total += count
        found.append((bound, total))
    return found
