# SPDX-License-Identifier: Apache-2.0
"""A sender of notifications that keeps what it takes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from cepheid_plugins.notifications.driver import Notification, NotificationsRefused, Notifier


class MemoryNotifier(Notifier):
    """Keeps what it takes, and in a file where one is given, so that it survives its process."""

    #: What a call that is not answered raises.
    unavailable = NotificationsRefused

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        #: By message id, in the order in which they were taken.
        self.taken: dict[str, Notification] = {}
        #: How often any was passed over.
        self.repeated = 0
        #: How many more it can take; None for any number.
        self.room: int | None = None
        if path is not None and path.exists():
            # Each line is a batch; one without its end was not taken.
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    self._keep([Notification(**one) for one in json.loads(line)])

    @property
    def changes(self) -> int:
        """How often anything was changed."""
        return len(self.taken)

    def send(self, notifications: Sequence[Notification]) -> None:
        wanted: dict[str, Any] = {one.message_id or str(uuid4()): one for one in notifications}
        try:
            json.dumps([one.payload for one in notifications])
        except (TypeError, ValueError) as err:
            raise NotificationsRefused(f"A payload is not for JSON: {err}") from err
        new = {name: one for name, one in wanted.items() if name not in self.taken}
        if self.room is not None and len(new) > self.room:
            raise NotificationsRefused("The outbox is full.")
        self.repeated += len(notifications) - len(new)
        batch = [dataclasses.replace(one, message_id=name) for name, one in new.items()]
        if self._path is not None and batch:
            line = json.dumps([dataclasses.asdict(one) for one in batch])
            with self._path.open("a") as file:
                file.write(f"{line}\n")
        self._keep(batch)
        if self.room is not None:
            self.room -= len(batch)

    def _keep(self, batch: Iterable[Notification]) -> None:
        self.taken.update({one.message_id: one for one in batch})
