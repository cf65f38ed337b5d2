# SPDX-License-Identifier: Apache-2.0
"""Tells systemd's journal how grave each line on standard error is; it takes them all for alike.

A line that goes to it begins with its priority. Source: sd-daemon(3), systemd.exec(5).
"""

from __future__ import annotations

import logging
import os
import syslog
from collections.abc import Iterable
from typing import Any

#: syslog's priorities, by the level from which they count.
PRIORITIES = {
    logging.CRITICAL: syslog.LOG_CRIT,
    logging.ERROR: syslog.LOG_ERR,
    logging.WARNING: syslog.LOG_WARNING,
    logging.INFO: syslog.LOG_INFO,
    logging.NOTSET: syslog.LOG_DEBUG,
}


class JournalFormatter(logging.Formatter):
    """Marks all lines of what another formatter makes of a record."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return marked(self._formatter.format(record), record.levelno)


def marked(text: str, level: int) -> str:
    """Return a text whose lines begin with the priority of a level of :mod:`logging`."""
    prefix = f"<{next(priority for least, priority in PRIORITIES.items() if level >= least)}>"
    return "\n".join(prefix + line for line in text.split("\n"))


def is_journal(stream: Any) -> bool:
    """Tell whether what is written to a stream goes to systemd's journal at once."""
    try:
        found = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):  # no file, or closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def mark(handlers: Iterable[logging.Handler]) -> None:
    """Let those handlers that write to the journal mark what they write."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and is_journal(handler.stream):
            formatter = handler.formatter or logging.Formatter()
            if not isinstance(formatter, JournalFormatter):
                handler.setFormatter(JournalFormatter(formatter))
