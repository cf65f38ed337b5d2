# SPDX-License-Identifier: Apache-2.0
"""How long ago something happened to an instance."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import NamedTuple

from cepheid_plugins.database.records import Instance


class Ages(NamedTuple):
    """Instances by how long ago something happened to them."""

    #: Those of which it is too long ago.
    old: list[Instance]
    #: Those of which it is not known, since the column is NULL.
    unknown: list[Instance]


def older_than(seconds: int, rows: Iterable[Instance], column: str, now: datetime.datetime) -> Ages:
    """Tell the instances whose time in `column` is strictly more than `seconds` before `now`."""
    limit = datetime.timedelta(seconds=seconds)
    ages = Ages([], [])
    for row in rows:
        then: datetime.datetime | None = getattr(row, column)
        if then is None:
            ages.unknown.append(row)
        elif now - then > limit:
            ages.old.append(row)
    return ages
