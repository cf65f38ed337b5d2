# SPDX-License-Identifier: Apache-2.0
"""What a check found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

OK, FAILED, WARNING, SKIPPED = "ok", "failed", "warning", "skipped"


class Problem(NamedTuple):
    """What is wrong, where, and how to mend it.

    :param where: a file with its line, or whatever else the author finds it by
    """

    what: str
    remedy: str
    where: str = ""


class NotChecked(Exception):
    """A check could not be made; the text says why."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    :param task: empty where it is about the whole distribution
    :param result: :data:`OK`, :data:`FAILED`, :data:`WARNING` or :data:`SKIPPED`
    """

    task: str
    check: str
    result: str
    what: str = ""
    where: str = ""
    remedy: str = ""


def findings_of(
    task: str, check: str, problems: Iterable[Problem], result: str = FAILED
) -> list[Finding]:
    """Return the lines for what a check found; one line that says ok where that is nothing.

    :param result: what each problem counts as
    """
    found = []
    for problem in dict.fromkeys(problems):
        found.append(Finding(task, check, result, problem.what, problem.where, problem.remedy))
    return found or [Finding(task, check, OK)]


def skipped(task: str, check: str, why: str) -> Finding:
    """Return the line for a check that was not made."""
    return Finding(task, check, SKIPPED, why)


def as_dict(finding: Finding) -> dict[str, str]:
    """Return a line as what JSON can hold."""
    return dataclasses.asdict(finding)
