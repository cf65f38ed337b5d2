# SPDX-License-Identifier: Apache-2.0
"""Traffic per hour and device in a file of SQLite, with the counters that it was computed from.

Both are written in one transaction, so that what is killed in the middle counts nothing twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from acme_bandwidth.tap_devices import Traffic
from cepheid import errors

COLUMNS = "in_bytes INTEGER NOT NULL, out_bytes INTEGER NOT NULL"
TABLES = (
    f"CREATE TABLE IF NOT EXISTS counters (device TEXT PRIMARY KEY, {COLUMNS})",
    "CREATE TABLE IF NOT EXISTS traffic"
    f" (hour TEXT, device TEXT, {COLUMNS}, PRIMARY KEY (hour, device))",
)


class TrafficFile:
    """Reads and writes the file.

    :raises CepheidError: out of every method: it cannot be used
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def counters(self) -> dict[str, Traffic]:
        """Return the counters of the last time by device; none where there was no last time."""
        if not self.path.exists() or not self.path.stat().st_size:
            return {}
        with self._transaction() as connection:
            rows = connection.execute("SELECT device, in_bytes, out_bytes FROM counters")
            return {device: Traffic(*bytes_) for device, *bytes_ in rows}

    def save(
        self, hour: str, carried: Mapping[str, Traffic], counters: Mapping[str, Traffic]
    ) -> None:
        """Add what was carried to an hour, and remember the counters."""
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                connection.execute(table)
            connection.executemany(
                "INSERT INTO traffic VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " in_bytes = in_bytes + excluded.in_bytes,"
                " out_bytes = out_bytes + excluded.out_bytes",
                [(hour, device, *bytes_) for device, bytes_ in carried.items()],
            )
            connection.executemany(
                "REPLACE INTO counters VALUES (?, ?, ?)",
                [(device, *bytes_) for device, bytes_ in counters.items()],
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
                yield connection
        except sqlite3.Error as err:
            raise errors.CepheidError(
                f"The traffic_file {self.path} cannot be used: {err}; move it aside, or name "
                "another."
            ) from err
