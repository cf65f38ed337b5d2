# SPDX-License-Identifier: Apache-2.0
"""Journals of agents that have run for long, written in one go."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cepheid.journal import Journal


def fill(
    journal: Journal, names: Sequence[str], now: datetime.datetime, minutes: int, changes: int = 0
) -> None:
    """Record a run of each task in each of these minutes, the last of them a minute ago.

    :param changes: how many of them, among the runs
    """
    begins = (now - datetime.timedelta(minutes=minute) for minute in range(minutes, 0, -1))
    with journal._store.transaction() as connection:
        connection.executemany(
            "INSERT INTO runs (task, distribution, trigger, dry_run, request_id, started_at,"
            " lateness_seconds, duration_seconds, outcome, counters)"
            " VALUES (?, 'cepheid', 'timer', 0, ?, ?, 0.017, 0.125, 'ok', '{\"seen\": 1000}')",
            (
                (name, f"req-{name}-{at:%H%M}", at.isoformat(timespec="microseconds"))
                for at in begins
                for name in names
            ),
        )
        connection.executemany(
            "INSERT INTO changes (run_id, kind, target, before, after, reason, outcome)"
            " VALUES (?, 'power_state', ?, '1', '4', 'libvirt says it is shut off', 'done')",
            (
                (n % (minutes * len(names)) + 1, f"5f3c9b1e-0000-0000-0000-{n:012}")
                for n in range(changes)
            ),
        )
