# SPDX-License-Identifier: Apache-2.0
"""The outbox: notifications that were taken and not sent yet, in one local SQLite file.

They leave it in the order in which they came. Of those that came with a message id of their own
it remembers for some days that they were sent. Times are UTC, as ISO 8601 text.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cepheid.clock import Clock
from cepheid.sqlite_file import SqliteFile
from cepheid_plugins.notifications.driver import NotificationsRefused

FILE_NAME = "cepheid-outbox.sqlite"

#: How many are read at one time: a few hundred KiB.
PAGE = 100

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    remembered INTEGER NOT NULL,
    versioned INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    body TEXT NOT NULL,
    taken_at TEXT NOT NULL
);
CREATE TABLE sent (
    message_id TEXT PRIMARY KEY,
    sent_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sent_at ON sent (sent_at);
CREATE TABLE trouble (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT NOT NULL,
    since TEXT NOT NULL
);
"""


class OutboxError(NotificationsRefused):
    """The outbox cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Message:
    """A notification as it is sent, whenever that may be.

    :param body: JSON of message_id, publisher_id, event_type, priority, payload, timestamp
    :param remembered: whether it came with its message id, so that it may come again
    :param id: its place in the order; set by the outbox
    """

    message_id: str
    body: str
    request_id: str = ""
    versioned: bool = False
    remembered: bool = False
    id: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What an outbox holds; by default, what one holds that is not there yet.

    :param waiting: how many have not been sent
    :param oldest: when the first of them was taken
    :param remembered: how many of those that were sent it knows
    :param trouble: why the last attempt to send failed; nothing where it did not
    :param since: since when that is so
    """

    waiting: int = 0
    oldest: datetime.datetime | None = None
    remembered: int = 0
    trouble: str = ""
    since: datetime.datetime | None = None


class Outbox(SqliteFile):
    """Reads and writes the outbox, which is made when it is missing.

    Usable by several threads, and by several processes at one time.

    :param path: the file; its directory must exist
    :raises OutboxError: the file cannot be opened or is not an outbox of this version
    """

    def __init__(self, path: str | Path, clock: Clock) -> None:
        self._clock = clock
        super().__init__(path, "outbox", OutboxError)

    @classmethod
    def read_only(cls, path: Path) -> Outbox:
        """Open an outbox to read it on the calling thread alone.

        :raises OutboxError: the file cannot be opened
        """
        return cls._read_only(path, "outbox", OutboxError)

    def _make_tables(self) -> None:
        self._create(SCHEMA, SCHEMA_VERSION)

    def take(self, messages: Sequence[Message], max_waiting: int, remember_days: float) -> int:
        """Put messages behind those that wait, all or none; return how many are new.

        One that waits already, or was sent not longer ago than `remember_days`, is passed over.

        :raises NotificationsRefused: more than `max_waiting` would wait
        :raises OutboxError: the file cannot be written
        """
        now = self._clock.utcnow()
        rows = [
            (one.message_id, one.remembered, one.versioned, one.request_id, one.body, _text(now))
            for one in messages
        ]
        forgotten = _text(now - datetime.timedelta(days=remember_days))
        with self.transaction() as connection:
            connection.execute("DELETE FROM sent WHERE sent_at < ?", (forgotten,))
            cursor = connection.executemany(
                "INSERT INTO waiting"
                " (message_id, remembered, versioned, request_id, body, taken_at)"
                " SELECT ?1, ?2, ?3, ?4, ?5, ?6"
                " WHERE NOT EXISTS (SELECT 1 FROM sent WHERE message_id = ?1)"
                " ON CONFLICT (message_id) DO NOTHING",
                rows,
            )
            taken = cursor.rowcount
            (waiting,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
            if taken and waiting > max_waiting:
                raise NotificationsRefused(
                    f"{taken} notifications were not taken: {waiting - taken} wait in {self.path} "
                    f"already, and [notifications] max_waiting is {max_waiting}. 'cepheid "
                    "notifications status' says why they wait."
                )
        return taken

    def first(self, count: int = PAGE) -> list[Message]:
        """Return the messages that are to be sent next, in their order."""
        rows = self.rows("SELECT * FROM waiting ORDER BY id LIMIT ?", (count,))
        return [
            Message(
                row["message_id"],
                row["body"],
                row["request_id"],
                bool(row["versioned"]),
                bool(row["remembered"]),
                row["id"],
            )
            for row in rows
        ]

    def record_sent(self, message: Message) -> None:
        """Let a message go: it was sent."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM waiting WHERE id = ?", (message.id,))
            if message.remembered:
                connection.execute(
                    "INSERT OR IGNORE INTO sent VALUES (?, ?)",
                    (message.message_id, _text(self._clock.utcnow())),
                )

    def sent(self, message_ids: Collection[str]) -> set[str]:
        """Return which of these are remembered as sent."""
        rows = self.rows(
            "SELECT message_id FROM sent WHERE message_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(message_ids)),),
        )
        return {row["message_id"] for row in rows}

    def remember(self, message_ids: Collection[str]) -> None:
        """Remember as sent what never waited."""
        now = _text(self._clock.utcnow())
        with self.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO sent VALUES (?, ?)", [(one, now) for one in message_ids]
            )

    def set_trouble(self, reason: str) -> None:
        """Record why nothing can be sent; with no reason, that it can."""
        with self.transaction() as connection:
            if reason:
                connection.execute(
                    "INSERT INTO trouble VALUES (1, ?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET reason = excluded.reason",
                    (reason, _text(self._clock.utcnow())),
                )
            else:
                connection.execute("DELETE FROM trouble")

    def is_empty(self) -> bool:
        """Tell whether nothing waits."""
        return not self.rows("SELECT 1 FROM waiting LIMIT 1")

    def standing(self) -> Standing:
        """Return what the outbox holds."""
        (row,) = self.rows(
            "SELECT (SELECT count(*) FROM waiting) AS waiting,"
            " (SELECT taken_at FROM waiting ORDER BY id LIMIT 1) AS oldest,"
            " (SELECT count(*) FROM sent) AS remembered,"
            " (SELECT reason FROM trouble) AS trouble,"
            " (SELECT since FROM trouble) AS since"
        )
        return Standing(
            row["waiting"],
            _time(row["oldest"]),
            row["remembered"],
            row["trouble"] or "",
            _time(row["since"]),
        )


def _text(at: datetime.datetime) -> str:
    return at.isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
