# SPDX-License-Identifier: Apache-2.0
"""Whether what a task says of objects is what its next run does to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from cepheid.explanation import Kind, Subject, Verdict
from cepheid.run import Run

#: Statements that read. Source: sqlite.org, PRAGMA table_info.
READING = {"BEGIN", "SELECT", "PRAGMA"}

#: What may follow a change within its run: it cannot be planned before that is made.
FOLLOWING = {"migration_status"}


def instance(uuid: str) -> Subject:
    """Return the subject for an instance."""
    return Subject("instance", uuid, frozenset({uuid}))


def file(name: str) -> Subject:
    """Return the subject for a file that tasks call so."""
    return Subject("file", name, frozenset({name}))


def ask(world: Any, task: Any, subjects: Iterable[Subject]) -> dict[str, list[Verdict]]:
    """Ask a task about subjects, and see that nothing is written, done or put on record."""
    statements, acts = world.database.statements.copy(), list(world.hypervisor.acts)
    runs = len(world.agent.journal.runs(limit=10**6))
    said = {subject.name: task.explain(subject) for subject in subjects}
    assert set(world.database.statements - statements) <= READING
    assert world.hypervisor.acts == acts
    assert len(world.agent.journal.runs(limit=10**6)) == runs
    return said


def agree(said: dict[str, list[Verdict]], run: Run, follow: Collection[str] = ()) -> None:
    """See that a run has tried on each object what was said, and nothing else.

    :param follow: kinds of changes that are made after others only
    """
    for name, verdicts in said.items():
        assert verdicts
        assert all(verdict.text for verdict in verdicts)
        kinds = {verdict.kind for verdict in verdicts}
        mine = [change for change in run.changes if name in (change.target, change.about)]
        tried = {change.kind for change in mine if change.outcome != "refused"}
        promised = {v.evidence["change"] for v in verdicts if v.kind is Kind.ACTS}
        assert promised <= tried, (verdicts, mine, run.error)
        assert tried - promised <= (set(follow) if promised else set()), (verdicts, mine)
        refused = any(change.outcome == "refused" for change in mine)
        assert (Kind.REFUSED in kinds) == refused or (refused and promised and follow)
        assert (Kind.UNKNOWN in kinds) == bool(run.error), (verdicts, run.error)
        if tried:
            assert kinds & {Kind.ACTS}
