# SPDX-License-Identifier: Apache-2.0
"""Statements for many rows at once.

Where values go to the driver as a list (``executemany``), PyMySQL and psycopg2 send an UPDATE for
each of them; so what is written to many rows stands in the statement itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

#: Rows that one statement names at most.
BATCH = 500


def batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """Give the items in portions that one statement can name."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def update_each(
    connection: sa.Connection,
    column: sa.Column[Any],
    values: Mapping[int, str | None],
    common: Mapping[str, Any],
) -> None:
    """Give each row a value of its own in one column, and all of them the same in others.

    :param values: by the row's id
    :param common: by the column's name
    """
    table = column.table
    for batch in batches(list(values)):
        own = sa.case({row_id: values[row_id] for row_id in batch}, value=table.c.id)
        connection.execute(
            sa.update(table).where(table.c.id.in_(batch)).values({**common, column.name: own})
        )
