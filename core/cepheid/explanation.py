# SPDX-License-Identifier: Apache-2.0
"""Why a task does, or does not do, something about one object: the words for it.

A task says so itself, in its pass, where it decides: with :meth:`Unheard.asked` and
:meth:`Unheard.explain` of its run's context. In a run nobody listens, and it costs nothing. An
explanation is that same pass, rehearsed with a listener (:mod:`cepheid.rehearsal`).
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """The object that is asked about.

    :param kind: ``instance`` or ``file``
    :param name: how it is named to the operator
    :param targets: what tasks call it: an instance's uuid, a file's name, ...
    :param facts: what it is, for whoever reads the explanation
    """

    kind: str
    name: str
    targets: frozenset[str]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Kind(enum.Enum):
    """What a verdict comes to, those first that an operator wants to see first."""

    #: A run now would change it.
    ACTS = "acts"
    #: It would, but ``max_changes`` is used up by others.
    REFUSED = "refused"
    #: It is named to the operator, in the log.
    WARNS = "warns"
    #: It cannot be judged; somebody has to look at it.
    SKIPS = "skips"
    #: The facts cannot be read, so there is no verdict.
    UNKNOWN = "not known"
    #: It is counted in, or told of, and not changed itself.
    COUNTS = "counts"
    #: It is looked at and left as it is.
    LEAVES = "leaves"
    #: Nothing at all is done, whatever the object.
    OFF = "off"
    #: It is none of those that the task looks at.
    UNCONCERNED = "unconcerned"


@dataclass(frozen=True)
class Verdict:
    """What a task says of one object.

    :param text: in words
    :param rule: what decides: an option with its value, or a guard
    :param evidence: the facts that it was decided on, in base units
    :param changes_at: when time alone changes the verdict; UTC, naive
    :param until: what else would change it, in words
    """

    kind: Kind
    text: str
    rule: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    changes_at: datetime.datetime | None = None
    until: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {
            "verdict": self.kind.value,
            "text": self.text,
            "rule": self.rule,
            "evidence": {name: plain(value) for name, value in self.evidence.items()},
            "changes_at": plain(self.changes_at),
            "until": self.until,
        }


class Unheard:
    """The part of a run's context that explanations hear; in a run it does nothing."""

    #: What an explanation asks about, by what tasks call it; nothing in a run.
    targets: frozenset[str] = frozenset()

    def asked(self, things: Iterable[T], key: Callable[[T], str | None] | None = None) -> list[T]:
        """Return those of `things` that an explanation asks about: none in a run.

        :param key: what each is called; by default its ``uuid``
        """
        return []

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
        """Say what is decided about one target, and why, where no change, skip or notice says it.

        :param target: None for whatever there is: the pass does nothing
        :param rule: an option of the task, whose value is added, or a guard in words
        :param changes_at: when time alone changes that; UTC, naive
        :param until: what else would change it, in words
        :param evidence: the facts, in base units
        """


def plain(value: Any) -> Any:
    """Return a fact as what JSON can hold."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(str(one) for one in value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
