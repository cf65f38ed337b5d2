# SPDX-License-Identifier: Apache-2.0
"""What a look at the image cache says of one file in it, and of the files of one instance."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from cepheid_plugins.compute.image_survey import Found, Survey
from cepheid_plugins.compute.image_verdicts import Rules, Verdict, shortened
from cepheid_plugins.storage import image_names

if TYPE_CHECKING:
    from cepheid.run import RunContext

_UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

#: The verdicts that no change speaks of.
KEPT = (Verdict.USED, Verdict.KEPT, Verdict.WAITING)


def explain(context: RunContext, survey: Survey, rules: Rules) -> None:
    """Say why files are left where they are, and which of them an instance uses."""
    left = survey.having(*KEPT) if context.targets else []
    for one in context.asked(left, key=lambda one: one.file.entry):
        _explain_file(context, one, rules)
    users = ((one, owner) for one in survey.found for owner in one.owners)
    for one, owner in context.asked(users, key=lambda pair: _uuid_of(pair[1])):
        context.explain(
            _uuid_of(owner),
            f"it uses {one.file.entry} ({owner}), which is kept as long as it does",
            evidence={"kind": one.file.kind, "size_bytes": one.file.size_bytes},
        )


def _explain_file(context: RunContext, one: Found, rules: Rules) -> None:
    file = one.file
    rule, changes_at, until = "", None, ""
    if one.verdict is Verdict.USED:
        rule, until = "what is used is kept", "nobody uses it any more"
    elif file.aside_at is not None:
        rule, changes_at = "removed_retention_seconds", _time(file.aside_at + rules.aside_seconds)
    elif not rules.remove:
        rule = "remove_unused_base_images"
    else:
        size = "resized" if file.kind == image_names.RESIZED else "original"
        rule = f"remove_unused_{size}_minimum_age_seconds"
        changes_at = _time(file.modified_at + rules.minimum_age_seconds(file.kind))
    used = f"it is used by {shortened(one.owners)}"
    context.explain(
        file.entry,
        used if one.verdict is Verdict.USED else one.reason,
        rule=rule,
        changes_at=changes_at,
        until=until,
        evidence={
            "kind": file.kind,
            "size_bytes": file.size_bytes,
            "last_used_at": _time(file.modified_at),
            "users": sorted(one.owners),
        },
    )


def _uuid_of(owner: str) -> str | None:
    """Return the uuid of the instance that an owner is, or is a disk of; None for others."""
    found = _UUID.search(owner)
    return found.group() if found else None


def _time(at: float) -> datetime.datetime:
    """Return epoch seconds as naive UTC."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).replace(tzinfo=None, microsecond=0)
