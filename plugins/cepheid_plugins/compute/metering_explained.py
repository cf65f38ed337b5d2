# SPDX-License-Identifier: Apache-2.0
"""What is said of the counters of one instance's volume or interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cepheid.explanation import Kind

if TYPE_CHECKING:
    from cepheid.run import RunContext


#: What is said of an instance of which the meter tells nothing.
NO_INTERFACE = (
    "no counter of it can be booked: its guest does not run, or has no interface that the meter "
    "counts at"
)


def explain(
    context: RunContext,
    uuid: str,
    change: str,
    name: str,
    known: Mapping[str, int] | None,
    counters: Mapping[str, int],
    *,
    is_changed: bool,
    is_reset: bool,
) -> None:
    """Say whether counters are written.

    :param change: what the writing is called in the journal
    :param name: what counts
    :param known: what is on record
    :param is_reset: whether they began anew
    """
    if is_changed:
        anew = ", which began anew" if is_reset else ""
        evidence = {"change": change, "before": known, "after": counters}
        text = f"the counters of {name}{anew} are written"
        context.explain(uuid, text, kind=Kind.ACTS, evidence=evidence)
    else:
        context.explain(uuid, f"the counters of {name} are as on record", evidence=counters)
