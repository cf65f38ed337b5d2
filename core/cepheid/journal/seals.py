# SPDX-License-Identifier: Apache-2.0
"""Seals: a chain of hashes that shows whether a record was edited after it was written.

Each state in which a record is written gets a seal: the SHA-256 of the record as the table holds
it (its *digest*), and the SHA-256 of that, the seal's own fields and the hash before it. So a
record cannot be edited, removed or put in without the chain being made anew from there to its
end. The record names its newest seal; earlier states of it live on as digests.

The chain begins at the *anchor*: the last seal that retention removed. The anchor is a record and
sealed itself, so cutting the beginning off does not go unnoticed either.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid import errors

#: The hash before the first seal.
GENESIS = bytes(32)

#: What is sealed: the tables with their columns, in the order in which they are hashed.
RECORDS: dict[str, tuple[str, ...]] = {
    "runs": (
        "id", "task", "distribution", "trigger", "dry_run", "request_id", "started_at",
        "lateness_seconds", "duration_seconds", "outcome", "counters", "error",
    ),
    "changes": (
        "id", "run_id", "kind", "target", "before", "after", "reason", "outcome", "error",
    ),
    "pauses": ("id", "task", "action", "at", "until", "reason", "who"),
    "anchor": ("id", "seal_id", "hash", "change_id"),
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A seal by its place and its hash; as text ``PLACE:HASH``."""

    id: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.id}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read what ``str`` has written.

        :raises CepheidError: it is not that
        """
        found = re.fullmatch(r"(\d+):([0-9a-f]{64})", text.strip().lower())
        if found is None:
            raise errors.CepheidError(
                f"{text!r} is not a seal as 'cepheid audit verify' prints it (PLACE:HASH)."
            )
        return cls(int(found[1]), bytes.fromhex(found[2]))


class Chain:
    """Appends seals within one transaction.

    A record is written with ``seal = next_id`` (the second one of a batch with the number after
    it, and so on), then :meth:`seal` reads it back and seals it: what is hashed is what is stored.

    :param at: now, in Unix seconds
    """

    def __init__(self, connection: sqlite3.Connection, at: int) -> None:
        self._connection = connection
        self._at = at
        self._head = head(connection)

    @property
    def next_id(self) -> int:
        """The place of the next seal."""
        return self._head.id + 1

    def seal(self, table: str, first_id: int, last_id: int) -> None:
        """Seal those records of an id from `first_id` to `last_id` that were just written."""
        rows = self._connection.execute(
            f"SELECT {', '.join(RECORDS[table])} FROM {table}"
            " WHERE id BETWEEN ? AND ? AND seal >= ? ORDER BY seal",
            (first_id, last_id, self.next_id),
        ).fetchall()
        seals = []
        for row in rows:
            digest = digest_of(table, row)
            place = self.next_id
            hashed = link(self._head.hash, place, table, row["id"], self._at, digest)
            seals.append((place, table, row["id"], self._at, digest, hashed))
            self._head = Head(place, hashed)
        self._connection.executemany(
            "INSERT INTO seals (id, record, record_id, at, digest, hash) VALUES (?, ?, ?, ?, ?, ?)",
            seals,
        )

    def reseal(self, table: str, ids: Sequence[int]) -> None:
        """Seal records that have not just been written, as they are."""
        if not ids:
            return
        self._connection.executemany(
            f"UPDATE {table} SET seal = ? WHERE id = ?",
            numbered(self.next_id, ids),
        )
        self.seal(table, min(ids), max(ids))


def numbered(first: int, ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return a place for each id, beginning with `first`."""
    return [(first + n, record_id) for n, record_id in enumerate(ids)]


def head(connection: sqlite3.Connection) -> Head:
    """Return the newest seal, or the anchor where there is none."""
    row = connection.execute("SELECT id, hash FROM seals ORDER BY id DESC LIMIT 1").fetchone()
    if row is None:
        row = connection.execute("SELECT seal_id, hash FROM anchor").fetchone()
    return Head(*row)


def digest_of(table: str, row: Any) -> bytes:
    """Return the digest of a record, given as a mapping from columns to values."""
    values = [row[column] for column in RECORDS[table]]
    return _sha256([table, *(v.hex() if isinstance(v, bytes) else v for v in values)])


def link(previous: bytes, place: int, table: str, record_id: int, at: int, digest: bytes) -> bytes:
    """Return the hash of a seal."""
    return _sha256([previous.hex(), place, table, record_id, at, digest.hex()])


def unix_seconds(at: datetime.datetime) -> int:
    """Return a time in UTC as seals hold it."""
    return calendar.timegm(at.timetuple())


def _sha256(values: list[Any]) -> bytes:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).digest()
