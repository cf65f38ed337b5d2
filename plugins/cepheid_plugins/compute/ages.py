# SPDX-License-Identifier: Apache-2.0
"""How long ago something happened to an instance."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cepheid import durations

if TYPE_CHECKING:
    from cepheid.run import RunContext


class Row(Protocol):
    """What is read of an instance."""

    @property
    def uuid(self) -> str: ...


R = TypeVar("R", bound=Row)


@dataclass
class Ages(Generic[R]):
    """Instances by how long ago something happened to them.

    :param seconds: how long ago is too long
    :param column: when it happened
    :param now: when that was asked
    """

    seconds: int
    column: str
    now: datetime.datetime
    #: Those of which it is too long ago.
    old: list[R] = field(default_factory=list)
    #: Those of which it is not known, since the column is NULL.
    unknown: list[R] = field(default_factory=list)
    young: list[R] = field(default_factory=list)

    def explain(self, context: RunContext, what: str, rule: str) -> None:
        """Say why the young are left alone.

        :param what: has happened to them, as in "soft-deleted"
        :param rule: the option that says how long ago is too long
        """
        limit = datetime.timedelta(seconds=self.seconds)
        for row in context.asked(self.young):
            then: datetime.datetime = getattr(row, self.column)
            explain_young(context, row.uuid, what, then, self.now, limit, rule)


def older_than(seconds: int, rows: Iterable[R], column: str, now: datetime.datetime) -> Ages[R]:
    """Tell the instances whose time in `column` is strictly more than `seconds` before `now`."""
    limit = datetime.timedelta(seconds=seconds)
    ages: Ages[R] = Ages(seconds, column, now)
    for row in rows:
        then: datetime.datetime | None = getattr(row, column)
        if then is None:
            ages.unknown.append(row)
        elif now - then > limit:
            ages.old.append(row)
        else:
            ages.young.append(row)
    return ages


def explain_young(
    context: RunContext, target: str, what: str, then: datetime.datetime, now: datetime.datetime,
    limit: datetime.timedelta, rule: str,
) -> None:  # fmt: skip
    """Say of a target to which something happened a short time ago why it is left alone.

    :param limit: how long ago it must be, more than that
    :param rule: the option that says so
    """
    seconds = limit.total_seconds()
    context.explain(
        target,
        f"{what} {ago(then, now)}; something is done when that is more than "
        f"{durations.in_words(seconds)} ago",
        rule=rule,
        changes_at=then + limit,
        evidence={"since": then, "age_seconds": int((now - then).total_seconds())},
    )


def ago(then: datetime.datetime, now: datetime.datetime) -> str:
    """Say how long ago a time is: ``3 min ago``; ``in the future`` where it is that."""
    elapsed = (now - then).total_seconds()
    return f"{durations.in_words(elapsed)} ago" if elapsed >= 0 else f"at {then}, in the future,"
