# SPDX-License-Identifier: Apache-2.0
"""What a driver's calls came to: how many, how long they took, and whether they are answered.

A driver that has one as its attribute ``record`` has its calls in the metrics, and ``/readyz``
tells whether what is behind it answers. If it has a method ``probe`` too, which makes one light
call, that is called when nothing else has been for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cepheid import concurrency
from cepheid.run import describe


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether calls are answered. Times are of the operating system's monotonic clock.

    :param answered_at: when the newest answer came, an error that it gave included
    :param failed_at: when the newest call came to nothing; None where an answer came since
    :param failure: why it did
    :param under_way: the call that has been going on the longest: its name, and when it began
    """

    answered_at: float | None = None
    failed_at: float | None = None
    failure: str = ""
    under_way: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What the calls of one name came to."""

    calls: int = 0
    seconds: float = 0.0


class CallRecord:
    """Counts and times calls; safe for native and green threads alike.

    :param unanswered: the errors that mean that nobody answered; all others are answers
    """

    def __init__(self, *unanswered: type[Exception]) -> None:
        self._unanswered = unanswered
        # Held for moments and never while another green thread may run.
        self._lock = concurrency.original("threading").Lock()
        self._monotonic = concurrency.original("time").monotonic
        self._totals: dict[str, Totals] = {}
        self._failures = {"refused": 0, "unanswered": 0}
        self._under_way: dict[object, tuple[str, float]] = {}
        self._answered_at: float | None = None
        self._failed_at: float | None = None
        self._failure = ""

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Record what is done inside as one call."""
        key, began = object(), self._monotonic()
        with self._lock:
            self._under_way[key] = name, began
        error: Exception | None = None
        try:
            yield
        except Exception as err:
            error = err
            raise
        finally:
            now = self._monotonic()
            with self._lock:
                del self._under_way[key]
                self._add(name, now - began)
                if error is not None and isinstance(error, self._unanswered):
                    self._failures["unanswered"] += 1
                    self._failed_at, self._failure = now, describe(error)
                else:
                    self._failures["refused"] += error is not None
                    self._answered_at, self._failed_at, self._failure = now, None, ""

    def add(self, name: str, seconds: float) -> None:
        """Record a call that was made, as a part of another one that is recorded too."""
        with self._lock:
            self._add(name, seconds)

    def _add(self, name: str, seconds: float) -> None:
        known = self._totals.get(name, Totals())
        self._totals[name] = Totals(known.calls + 1, known.seconds + seconds)

    @property
    def totals(self) -> dict[str, Totals]:
        """The calls that have ended, by name."""
        with self._lock:
            return dict(self._totals)

    @property
    def failures(self) -> dict[str, int]:
        """How many calls were ``refused`` (an error was the answer) and ``unanswered``."""
        with self._lock:
            return dict(self._failures)

    @property
    def standing(self) -> Standing:
        """Whether calls are answered."""
        with self._lock:
            under_way = min(self._under_way.values(), key=lambda call: call[1], default=None)
            return Standing(self._answered_at, self._failed_at, self._failure, under_way)
