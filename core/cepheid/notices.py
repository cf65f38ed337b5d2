# SPDX-License-Identifier: Apache-2.0
"""Warnings that are said once while their cause lasts."""

from __future__ import annotations

import logging
from typing import Any

from cepheid.texts import encodable

#: The most warnings that are kept after a round that was cut short.
MAX_STANDING = 1000


class Notices:
    """Says a warning once while its cause lasts, and once when it has ended.

    Whoever looks at something again and again, such as a task in its runs, makes each look a round:
    :meth:`begin`, :meth:`say` for each thing that is wrong, :meth:`end`.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._standing: dict[Any, str] = {}
        self._seen: set[Any] = set()

    def begin(self) -> None:
        """Start a round."""
        self._seen = set()

    def say(self, key: Any, message: str, level: int = logging.WARNING) -> None:
        """Log `message`, unless it has been said of `key` in the same words and still stands.

        :param key: what the warning is about, anything hashable; one warning stands for each
        """
        message = encodable(message)
        self._seen.add(key)
        if self._standing.get(key) != message:
            self._standing[key] = message
            self._log.log(level, "%s", message)

    def end(self, complete: bool) -> None:
        """End a round.

        :param complete: whether everything was looked at, so that what was not said again is over,
            and the log is told so. If not, it stands, as nobody knows better; but of more than
            :data:`MAX_STANDING` warnings the oldest that were not said again are forgotten
        """
        unsaid = [key for key in self._standing if key not in self._seen]
        if complete:
            for key in unsaid:
                first_line, _, _ = self._standing.pop(key).partition("\n")
                self._log.info("Over: %s", first_line)
        else:
            for key in unsaid[: max(0, len(self._standing) - MAX_STANDING)]:
                del self._standing[key]
