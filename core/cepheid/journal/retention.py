# SPDX-License-Identifier: Apache-2.0
"""Retention: what is older than some days leaves the journal, a small batch at a time.

It goes from the beginning of the chain of seals. What stays whatever its age is sealed anew at
the end: runs that go on, the newest run of each task, their changes, the newest pause or resume
of each task. SQLite uses the space that becomes free for what comes next.

A time of day that is wrong must not empty the journal. So nothing goes until a record that is a
day old confirms it, and what was written while it was wrong goes with what was written after.
"""

from __future__ import annotations

import datetime
import sqlite3

from cepheid import errors
from cepheid.journal import seals
from cepheid.journal.store import Store

DAY_SECONDS = 86400

#: Seals that one transaction removes, with their records; it takes some milliseconds.
BATCH = 500

#: A seal from further ahead than this was made while the time of day was wrong, or it is wrong now.
TOLERANCE_SECONDS = DAY_SECONDS

#: The age of a record that confirms the time of day; half of the retention where that is less.
CONFIRMING_SECONDS = DAY_SECONDS

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
    :raises DoubtfulTime: something would go, but no record confirms the time of day
    """
    oldest, newest = now - days * DAY_SECONDS, now + TOLERANCE_SECONDS
    _require_confirmation(store, oldest, now)
    with store.transaction() as connection:
        last = _last_to_go(connection, oldest, newest, batch)
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


def _require_confirmation(store: Store, oldest: float, now: int) -> None:
    """Refuse to go by a time of day that is known from nothing but a clock.

    One that was set wrong is far from all records. An agent that was away for longer than the
    retention finds the same, and prunes when its records of a day are there.
    """
    first = store.rows("SELECT at FROM seals ORDER BY id LIMIT 1")
    if not first or oldest <= first[0]["at"] <= now + TOLERANCE_SECONDS:
        return  # nothing is to go
    # A seal of that age is near the end: a day's records are looked through.
    confirmed = store.rows(
        "SELECT 1 FROM seals WHERE at BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
        (oldest, now - min(CONFIRMING_SECONDS, (now - oldest) / 2)),
    )
    if not confirmed:
        raise errors.DoubtfulTime(
            f"It is {_date(now)} by this host's clock, the oldest record is of "
            f"{_date(first[0]['at'])}, and no record confirms the clock yet. Set it if it is "
            "wrong; if it is right, wait for a day."
        )


def _last_to_go(
    connection: sqlite3.Connection, oldest: float, newest: float, batch: int
) -> seals.Head | None:
    """Return the last of the seals from the beginning that are all too old.

    One from the future is as old as the next one that is not: it was made before that.
    """
    last, ahead = None, None
    for place, hashed, at in connection.execute(
        "SELECT id, hash, at FROM seals ORDER BY id LIMIT ?", (batch,)
    ):
        if at > newest:
            ahead = seals.Head(place, hashed)
            continue
        if at >= oldest:
            return last
        last, ahead = seals.Head(place, hashed), None
    if ahead is not None:
        following = connection.execute(
            "SELECT at FROM seals WHERE id > ? AND at <= ? ORDER BY id LIMIT 1", (ahead.id, newest)
        ).fetchone()
        if following is not None and following["at"] < oldest:
            return ahead
    return last


def _date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d")


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
