# SPDX-License-Identifier: Apache-2.0
"""Measuring peers side by side: they take turns in one process, and medians are compared.

What else a machine does then slows all of them, and a ratio holds on another machine.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Rounds that are measured at least, however long each takes.
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Timings:
    """The seconds that something took, in the order in which it was measured."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    def quantile(self, part: float) -> float:
        """Return the value that this part (0 to 1) of all does not exceed; 1 is the longest."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    def plus(self, other: Timings) -> Timings:
        """Return what both took together.

        :param other: measured in the same rounds
        """
        both = zip(self.seconds, other.seconds, strict=True)
        return Timings([mine + theirs for mine, theirs in both])

    def ratio_to(self, other: Timings) -> float:
        """Return how many times as long as `other` it took: the median over the rounds.

        :param other: measured in the same rounds
        """
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True)
        )


def in_turn(
    subjects: Mapping[str, Callable[[], object]],
    seconds: float,
    least: int = LEAST_ROUNDS,
    most: int = 1000,
) -> dict[str, Timings]:
    """Call the subjects in turn, again and again; return what each took, by its name.

    A first round is not counted: it connects, fills caches and imports. Every second round goes
    backwards, so that none always has another's leavings in the processor's caches.

    :param seconds: how long to go on
    :param least: rounds, even if they take longer
    :param most: rounds, even if they take less
    """
    for subject in subjects.values():
        subject()
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    until = time.perf_counter() + seconds
    for done in range(most):
        if done >= least and time.perf_counter() > until:
            break
        for name in names:
            taken[name].append(seconds_of(subjects[name]))
        names.reverse()
    return {name: Timings(values) for name, values in taken.items()}


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes, without what was left to be collected before it."""
    gc.collect()
    begins = time.perf_counter()
    call()
    return time.perf_counter() - begins


@dataclass
class Counted:
    """What was counted inside :func:`counting`: the total of each counter, by its name."""

    totals: dict[str, int] = field(default_factory=dict)


@contextmanager
def counting(**counters: Counter[str]) -> Iterator[Counted]:
    """Count what is added to counters, such as ``hypervisor.calls``, until the block ends."""
    before = {name: counter.total() for name, counter in counters.items()}
    counted = Counted()
    yield counted
    counted.totals = {name: counter.total() - before[name] for name, counter in counters.items()}


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, user's and system's, to the nanosecond.

    proc(5) has it in hundredths of a second, which is much beside what an agent uses at rest.
    Source: Linux, include/linux/posix-timers.h: the clock that clock_getcpuclockid(3) finds.
    """
    clock = ~pid << 3 | 2
    return time.clock_gettime(clock)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is resident (RSS). Source: proc(5)."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
