# SPDX-License-Identifier: Apache-2.0
"""How far the run of this thread is, and its changes, for whoever works on it item by item."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from oslo_context import context as oslo_context

from cepheid.run import RunContext

T = TypeVar("T")


class Steps:
    """Tells how many of these items are done, beside those that the run went through before.

    So a run that goes through one thing after another is not back at the beginning in between:
    what is done never goes back, and is never more than the total. Outside of a run nobody is told.

    :param total: how many items there are
    """

    def __init__(self, total: int) -> None:
        self._context = _of_this_thread()
        before = self._context.run.progress if self._context is not None else None
        self._before = before or (0, 0)
        self._total = total
        if total:
            self.done(0)

    def done(self, number: int) -> None:
        """Say that this many of the items are done. As cheap as setting a variable."""
        if self._context is not None:
            done, total = self._before
            done += min(number, self._total)
            self._context.progress(done, None if total is None else total + self._total)


def each(items: Collection[T]) -> Iterator[T]:
    """Go through items one after another, and say of each that it is done."""
    steps = Steps(len(items))
    for number, item in enumerate(items, 1):
        yield item
        steps.done(number)


def settle(results: Mapping[str, Any]) -> None:
    """Enter in this thread's run what became of targets, see :meth:`RunContext.settle`."""
    context = _of_this_thread()
    if context is not None:
        context.settle(results)


def _of_this_thread() -> RunContext | None:
    """Return the context of the run that goes on in this thread; None where none does."""
    current = oslo_context.get_current()
    # That of a run which has ended stays until there is another.
    if isinstance(current, RunContext) and current.run.duration_seconds is None:
        return current
    return None
