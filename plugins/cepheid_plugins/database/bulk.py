# SPDX-License-Identifier: Apache-2.0
"""Statements for many rows at once.

Where values go to the driver as a list (``executemany``), PyMySQL and psycopg2 send an UPDATE for
each of them; so what is written to many rows stands in the statement itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import sqlalchemy as sa

T = TypeVar("T")
#: Any named tuple.
R = TypeVar("R", bound=Any)

#: Rows that one statement names at most.
BATCH = 500


def batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """Give the items in portions that one statement can name."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def records(
    connection: sa.Connection, query: sa.Select[Any], record: type[R], **values: Any
) -> list[R]:
    """Return what a query finds: for each row a record, whose fields are the columns in order.

    :param query: best made once, when its module is imported: to make it takes as long as to read
        a hundred rows
    :param values: of the query's bind parameters, by name
    """
    return list(map(record._make, connection.execute(query, values).all()))


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
    rows = {row_id: {column.name: value} for row_id, value in values.items()}
    update_rows(connection, cast(sa.TableClause, column.table), rows, common)


def update_rows(
    connection: sa.Connection,
    table: sa.TableClause,
    rows: Mapping[int, Mapping[str, Any]],
    common: Mapping[str, Any],
    expected: Mapping[int, Mapping[str, Any]] | None = None,
) -> int:
    """Give each row values of its own in some columns, and all of them the same in others.

    :param rows: by id, the values by column, the same columns for each
    :param expected: likewise; a row with other values than these is left alone
    :return: how many rows were written
    """
    expected, written = expected or {}, 0
    for batch in batches(list(rows)):
        own = {name: _by_id(table, name, rows, batch) for name in rows[batch[0]]}
        query = sa.update(table).where(table.c.id.in_(batch)).values({**common, **own})
        for name in expected.get(batch[0], ()):
            # Cast: where all are NULL, a server does not know their type.
            value = sa.cast(_by_id(table, name, expected, batch), table.c[name].type)
            query = query.where(table.c[name].is_not_distinct_from(value))
        written += connection.execute(query).rowcount
    return written


def _by_id(
    table: sa.TableClause, name: str, rows: Mapping[int, Mapping[str, Any]], ids: Sequence[int]
) -> sa.Case[Any]:
    """Return the expression that gives each row its own value."""
    values = {row_id: sa.literal(rows[row_id][name], table.c[name].type) for row_id in ids}
    return sa.case(values, value=table.c.id)


def insert_rows(
    connection: sa.Connection, table: sa.TableClause, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows that have the same columns."""
    for batch in batches(rows):
        connection.execute(sa.insert(table).values(list(batch)))
