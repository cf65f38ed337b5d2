# SPDX-License-Identifier: Apache-2.0
"""The database server's clock beside this host's.

How long ago an instance was deleted is told by a time that another machine wrote, and by this
host's clock. With one that is a year ahead, all that is kept for a while would be removed at once.
"""

from __future__ import annotations

import time

import sqlalchemy as sa

#: Seconds by which the two may differ.
MOST_SECONDS = 300

#: How a server tells the seconds since 1970. Source: MariaDB's and PostgreSQL's manuals.
QUERIES = {
    "mysql": "SELECT UNIX_TIMESTAMP()",
    "mariadb": "SELECT UNIX_TIMESTAMP()",
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
}


class ServerClock:
    """What the server's clock shows, by what the server told last and the time since then.

    That time is counted by a clock which nobody sets, so this host's may have been set meanwhile.
    """

    def __init__(self) -> None:
        self._ahead_of_uptime: float | None = None

    def set(self, seconds: float) -> None:
        """Take what the server tells now.

        :param seconds: since 1970
        """
        self._ahead_of_uptime = seconds - _uptime()

    @property
    def agrees(self) -> bool:
        """Whether it is known to show the time of this host's clock, more or less."""
        return self._ahead_of_uptime is not None and abs(self.seconds_ahead()) <= MOST_SECONDS

    def seconds_ahead(self) -> float:
        """Return by how much this host's clock is ahead of it; negative where it is behind."""
        assert self._ahead_of_uptime is not None
        return time.time() - (self._ahead_of_uptime + _uptime())


def ask(connection: sa.Connection) -> float:
    """Return what a server's clock shows, in seconds since 1970."""
    return float(connection.execute(sa.text(QUERIES[connection.dialect.name])).scalar_one())


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
