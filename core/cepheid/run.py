# SPDX-License-Identifier: Apache-2.0
"""One run of one task, and the one door through which it changes the world."""

from __future__ import annotations

import datetime
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oslo_context import context as oslo_context

from cepheid import errors
from cepheid.explanation import Unheard
from cepheid.journal import Journal
from cepheid.notices import Notices as Notices  # vendors know it by this module
from cepheid.texts import encodable

LOG = logging.getLogger(__name__)


class Raced(Exception):
    """The target moved on since it was decided about; raise it out of ``do`` to say so.

    Its text tells what was done nevertheless; without one, nothing was.
    """


@dataclass(eq=False)
class Change:
    """What is changed on one target.

    :param target: what it is done to: an instance's uuid, a file, ...
    :param before: the value that was found; anything JSON can hold
    :param after: the value that is wanted
    :param reason: why, in words for the operator
    :param about: the uuid of the instance, where the target is something of it
    """

    target: str
    before: Any = None
    after: Any = None
    reason: str = ""
    #: What is changed (``power_state``, ``stop``, ...); set by the door.
    kind: str = ""
    #: planned, started, done, raced, refused, failed, unknown; set by the door.
    outcome: str = ""
    error: str = ""
    id: int | None = None
    about: str | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class Run:
    """The record of one execution of a task.

    Outcomes: ``running``, then ``ok``, ``partial`` (an item was skipped or failed), ``limited``
    (max_changes refused some), ``overdue`` (longer than time_limit) or ``failed`` (an error
    ended it). The journal also knows ``interrupted``: the agent died in it.
    """

    task: str
    distribution: str
    trigger: str
    dry_run: bool
    started_at: datetime.datetime
    lateness_seconds: float = 0.0
    request_id: str = ""
    outcome: str = "running"
    duration_seconds: float | None = None
    counters: dict[str, int] = field(default_factory=dict)
    error: str = ""
    #: How far it is, as (done, total); total is None where it is not known.
    progress: tuple[int, int | None] | None = None
    id: int | None = None
    changes: list[Change] = field(default_factory=list)


def plugin_of(name: str) -> str:
    """Return the plugin whose run has this name: that of a further method is ``plugin.method``."""
    return name.partition(".")[0]


class RunContext(Unheard, oslo_context.RequestContext):
    """What a task is given: the door for changes, counters, and the request id of the run."""

    def __init__(
        self, run: Run, journal: Journal | None, notices: Notices, max_changes: int = 0
    ) -> None:
        super().__init__(is_admin=True)
        run.request_id = self.request_id
        self.run = run
        self.dry_run = run.dry_run
        self._journal = journal
        self._notices = notices
        self._max_changes = max_changes
        self._counters: Counter[str] = Counter()
        self._lock = threading.RLock()

    def change(
        self,
        kind: str,
        target: str,
        before: Any = None,
        after: Any = None,
        reason: str = "",
        *,
        do: Callable[[], Any],
    ) -> Change:
        """Change one target.

        An error of `do` is recorded and does not come out: the pass goes on.

        :param do: carries it out; may raise :class:`Raced`
        """
        change = Change(target, before, after, reason)

        def do_it(changes: list[Change]) -> None:
            do()

        self.change_many(kind, [change], do_it)
        return change

    def change_many(
        self,
        kind: str,
        changes: Iterable[Change],
        do: Callable[[list[Change]], Iterable[str] | Mapping[str, Any] | None],
    ) -> list[Change]:
        """Change many targets in one go; return the changes that were really made.

        :param do: called once with the admitted changes. Returns None (all were made), the
            targets that were changed (the others had moved on), or a mapping from each target
            to None (changed), ``"raced"`` or the exception it failed with. What it raises goes
            for all of them that are not settled, see :meth:`settle`
        """
        wanted = list(changes)
        for change in wanted:
            change.kind = kind
        with self._lock:
            admitted, refused = self._admit(wanted)
            for change in admitted:
                change.outcome = "planned" if self.dry_run else "started"
            for change in refused:
                change.outcome = "refused"
            if wanted and self._journal is not None:
                self._journal.add_changes(self.run, wanted)
            self.run.changes += wanted
        if refused:
            self._refuse(kind, refused)
        if self.dry_run or not admitted:
            self.count("planned", len(admitted))
            return []
        try:
            self._carry_out(admitted, do)
        except BaseException:
            try:
                self._complete(admitted)
            except errors.JournalError as err:  # what ends the run counts more
                LOG.error("What came of changes (%s) is not recorded: %s", kind, err)
            raise
        self._complete(admitted)
        return [change for change in admitted if change.outcome == "done"]

    def settle(self, results: Mapping[str, Any]) -> None:
        """Enter what became of targets that are being changed.

        For a ``do`` that is cut short by an exception after it has changed some of them.

        :param results: as the ``do`` of :meth:`change_many` returns them
        """
        with self._lock:
            for change in self.run.changes:
                if change.outcome == "started" and change.target in results:
                    _enter(change, results[change.target])

    def count(self, name: str, n: int = 1) -> None:
        """Add `n` to the run's counter `name`."""
        with self._lock:
            self._counters[name] += n
            self.run.counters = {key: count for key, count in self._counters.items() if count}

    def failed(self) -> set[str]:
        """Return the targets of this run's changes that have failed."""
        return {change.target for change in self.run.changes if change.outcome == "failed"}

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the run is; shown while it goes on. As cheap as setting a variable.

        :param total: of which `done` are done; None where it is not known
        """
        self.run.progress = (done, total)

    def skip(self, target: str, reason: str, about: str | None = None) -> None:
        """Leave one bad item out: counted, and named in the log once while it lasts.

        :param about: as in :class:`Change`
        """
        self.count("skipped")
        self._notices.say(("skip", target), f"{self.run.task}: {target} skipped: {reason}")

    def notice(self, key: Any, message: str) -> None:
        """Warn the operator, once while it lasts."""
        self._notices.say(key, f"{self.run.task}: {message}")

    def _admit(self, changes: list[Change]) -> tuple[list[Change], list[Change]]:
        if not self._max_changes:
            return changes, []
        used = sum(change.outcome != "refused" for change in self.run.changes)
        room = max(0, self._max_changes - used)
        return changes[:room], changes[room:]

    def _refuse(self, kind: str, refused: Sequence[Change]) -> None:
        self.count("refused", len(refused))
        self._notices.say(
            ("refused", kind),
            f"{self.run.task}: {len(refused)} changes ({kind}) refused, the first of them "
            f"{refused[0].target}: this run reached max_changes = {self._max_changes}. "
            f"Look at 'cepheid task history {self.run.task}' and raise "
            f"[{self.run.task}] max_changes if they are wanted.",
        )

    def _carry_out(self, changes: list[Change], do: Callable[[list[Change]], Any]) -> None:
        try:
            answer = do(changes)
            if isinstance(answer, Iterator):
                answer = list(answer)  # of a generator, which changes while it is asked
        except Exception as err:
            LOG.debug("%s failed", changes[0].kind, exc_info=True)
            self.settle({change.target: err for change in changes})
            return
        if answer is None:
            answer = [change.target for change in changes]
        results = answer if isinstance(answer, Mapping) else dict.fromkeys(answer)
        for change in changes:
            _enter(change, results.get(change.target, "raced"))

    def _complete(self, changes: Sequence[Change]) -> None:
        """Record what came of changes; of those that were cut short, that it is not known."""
        for change in changes:
            if change.outcome == "started":
                change.outcome = "unknown"
        with self._lock:
            if self._journal is not None:
                self._journal.complete_changes(changes)
        for change in changes:
            self.count(change.outcome)
            if change.outcome == "failed":
                self._notices.say(
                    (change.kind, change.target),
                    f"{change.kind} of {change.target} failed: {change.error}",
                )


def _enter(change: Change, result: Any) -> None:
    """Enter what became of a change: None, ``"raced"`` or an exception."""
    if result is None:
        change.outcome, change.error = "done", ""
    elif isinstance(result, Exception) and not isinstance(result, Raced):
        change.outcome, change.error = "failed", describe(result)
    else:
        change.outcome = "raced"
        change.error = str(result) if isinstance(result, Raced) else ""


def describe(err: BaseException) -> str:
    """Return an error in one line; its class where its text does not say enough."""
    text = encodable(" ".join(str(err).split()))
    if isinstance(err, errors.CepheidError):
        return text
    return f"{type(err).__name__}: {text}" if text else type(err).__name__
