# SPDX-License-Identifier: Apache-2.0
"""Retention: what is older than some days leaves the journal, a small batch at a time.

It goes from the beginning of the chain of seals. What stays whatever its age is sealed anew at
the end: runs that go on, the newest run of each task, their changes, the newest pause or resume
of each task. SQLite uses the space that becomes free for what comes next.
"""

from __future__ import annotations

import sqlite3

from cepheid.journal import seals
from cepheid.journal.store import Store

DAY_SECONDS = 86400

#: Seals that one transaction removes, with their records; it takes some milliseconds.
BATCH = 500

#: A seal from further ahead than this was made while the time of day was wrong; it holds up
#: nothing.
TOLERANCE_SECONDS = DAY_SECONDS

_RUN_STAYS = """(
    (r.duration_seconds IS NULL AND r.outcome != 'interrupted')
    OR r.id = (SELECT max(id) FROM runs WHERE task = r.task)
)"""

#: By table: when a record, ``t``, stays.
_STAYS = {
    "runs": _RUN_STAYS.replace("r.", "t."),
    "changes": f"EXISTS (SELECT 1 FROM runs r WHERE r.id = t.run_id AND {_RUN_STAYS})",
    "pauses": "t.action != 'held' AND t.id = (SELECT max(id) FROM pauses"
    " WHERE task = t.task AND action != 'held')",
}


def prune(store: Store, days: float, now: int, batch: int = BATCH) -> bool:
    """Remove the oldest records, as many as `batch` seals cover; tell whether there may be more.

    :param days: how long records are kept
    :param now: in Unix seconds
    """
    with store.transaction() as connection:
        last = _last_to_go(connection, now - days * DAY_SECONDS, now + TOLERANCE_SECONDS, batch)
        if last is None:
            return False
        (top_change,) = connection.execute("SELECT max(id) FROM changes").fetchone()
        staying = {table: _newest_sealed(connection, table, last.id, True) for table in _STAYS}
        going = {table: _newest_sealed(connection, table, last.id, False) for table in _STAYS}
        for table, ids in going.items():
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(n,) for n in ids])
        connection.execute("DELETE FROM seals WHERE id <= ?", (last.id,))
        connection.execute(
            "UPDATE anchor SET seal_id = ?, hash = ?, change_id = max(change_id, ?)",
            (last.id, last.hash, top_change or 0),
        )
        chain = seals.Chain(connection, now)
        for table, ids in staying.items():
            chain.reseal(table, ids)
        chain.reseal("anchor", [1])
        return True


def _last_to_go(
    connection: sqlite3.Connection, oldest: float, newest: float, batch: int
) -> seals.Head | None:
    """Return the last of the seals from the beginning that are all too old."""
    last = None
    for place, hashed, at in connection.execute(
        "SELECT id, hash, at FROM seals ORDER BY id LIMIT ?", (batch,)
    ):
        if oldest <= at <= newest:
            break
        last = seals.Head(place, hashed)
    return last


def _newest_sealed(
    connection: sqlite3.Connection, table: str, last: int, staying: bool
) -> list[int]:
    """Return the records whose newest seal is to go: those that stay, or those that do not."""
    # CROSS JOIN makes SQLite begin with the few seals, not with the whole table.
    # Source: sqlite.org/optoverview.html, manual control of query plans.
    rows = connection.execute(
        f"SELECT t.id FROM seals s CROSS JOIN {table} t"
        f" WHERE s.id <= ? AND s.record = '{table}' AND t.id = s.record_id AND t.seal = s.id"
        f" AND {'' if staying else 'NOT '}({_STAYS[table]}) ORDER BY t.id",
        (last,),
    )
    return [row[0] for row in rows]
