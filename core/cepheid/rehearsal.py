# SPDX-License-Identifier: Apache-2.0
"""Rehearsing a task's pass to hear what it says of one object; nothing is changed or recorded.

It is the pass itself that is run, as a dry run, so an explanation cannot differ from what the task
does. Neither the journal nor the log hears of it, and it does not hold the task's lock: it may go
on beside a run.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from cepheid.explanation import Kind, Subject, Verdict
from cepheid.notices import Notices
from cepheid.run import Change, Run, RunContext, describe

if TYPE_CHECKING:
    from cepheid.task import Task

T = TypeVar("T")

_NO_OPTIONS: Mapping[str, Any] = {}


class Rehearsal(RunContext):
    """The context of a pass that is rehearsed: it collects what the task says of the subject.

    :param options: the task's; where one is named as a rule, its value is told as well
    """

    def __init__(
        self, run: Run, subject: Subject, options: Mapping[str, Any] = _NO_OPTIONS,
        max_changes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(run, None, _Unsaid(logging.getLogger(__name__)), max_changes)
        self.targets = subject.targets
        self._options = options
        self.verdicts: list[Verdict] = []

    def asked(self, things: Iterable[T], key: Callable[[T], str | None] | None = None) -> list[T]:
        name = key or _uuid
        return [thing for thing in things if name(thing) in self.targets]

    def explain(
        self,
        target: str | None,
        text: str,
        *,
        rule: str = "",
        kind: Kind = Kind.LEAVES,
        changes_at: datetime.datetime | None = None,
        until: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        if target is None and kind is Kind.LEAVES:
            kind = Kind.OFF
        if target is None or target in self.targets:
            if rule in self._options:
                rule = f"{rule} = {self._options[rule]}"
            self._hear(Verdict(kind, text, rule, evidence or {}, changes_at, until))

    def change_many(
        self,
        kind: str,
        changes: Iterable[Change],
        do: Callable[[list[Change]], Iterable[str] | Mapping[str, Any] | None],
    ) -> list[Change]:
        wanted = list(changes)
        made = super().change_many(kind, wanted, do)
        for change in wanted:
            if not {str(change.target), change.about} & self.targets:
                continue
            evidence = {"change": kind, "before": change.before, "after": change.after}
            if change.outcome == "planned":
                self._hear(Verdict(Kind.ACTS, change.reason, evidence=evidence))
                continue
            rule = f"max_changes = {self._max_changes}"
            text = f"{change.reason}; others come first, and one run makes no more changes"
            self._hear(Verdict(Kind.REFUSED, text, rule, evidence, until="a later run"))
        return made

    def skip(self, target: str, reason: str, about: str | None = None) -> None:
        if {target, about} & self.targets:
            self._hear(Verdict(Kind.SKIPS, reason))

    def notice(self, key: Any, message: str) -> None:
        names = key if isinstance(key, tuple) else (key,)
        if any(str(name) in self.targets for name in names):
            self._hear(Verdict(Kind.WARNS, message))

    def fail(self, err: BaseException) -> None:
        """Hear that the pass ended with an error."""
        self._hear(Verdict(Kind.UNKNOWN, describe(err)))

    def _hear(self, verdict: Verdict) -> None:
        if verdict not in self.verdicts:
            self.verdicts.append(verdict)


class _Unsaid(Notices):
    """Says nothing in the log."""

    def say(self, key: Any, message: str, level: int = logging.WARNING) -> None:
        pass


def rehearse(task: Task, subject: Subject) -> list[Verdict]:
    """Return what the task's pass says of the subject, if it were made now."""
    looked_at = task.explains.get(subject.kind)
    if looked_at is None:
        looked_at = "; ".join(task.explains.values())
        return [Verdict(Kind.UNCONCERNED, looked_at)]
    now = task.agent.clock.utcnow()
    verdicts: list[Verdict] = []
    for name, function in type(task)._periodic_declared.items():
        # Each is a run of its own, with the limit for itself.
        run = Run(name, task.distribution, "explain", dry_run=True, started_at=now)
        context = Rehearsal(run, subject, task.conf, task.conf.max_changes)
        try:
            function(task, context)
        except (Exception, SystemExit) as err:  # noqa: BLE001 - a vendor's task may do anything
            context.fail(err)
        verdicts += [verdict for verdict in context.verdicts if verdict not in verdicts]
    return verdicts or [Verdict(Kind.UNCONCERNED, looked_at)]


def _uuid(thing: Any) -> str | None:
    uuid: str | None = thing.uuid
    return uuid
