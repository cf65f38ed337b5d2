# SPDX-License-Identifier: Apache-2.0
"""Sending what the outbox holds: one thread, in order, for as long as it takes.

Of all processes that share an outbox one sends at a time. What is sent leaves the outbox once
the broker has confirmed it; an agent that dies between the two leaves a message that is sent
again, with the same message id.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cepheid import errors
from cepheid.clock import Clock
from cepheid.run import describe
from cepheid_plugins.notifications.outbox import Message, Outbox, OutboxError

LOG = logging.getLogger(__name__)

LOCK_NAME = "cepheid-outbox.lock"

#: Seconds between two looks at what other processes have put in, and how long an idle connection
#: is kept.
POLL_SECONDS = 5.0

#: Seconds after a failure until the next attempt; twice as many after each further one.
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0

#: Seconds after which a message on its way is reported as hanging.
HANGS_AFTER_SECONDS = 10.0


class Publisher(Protocol):
    """What brings a message to its consumers."""

    def publish(self, message: Message) -> None:
        """Send a message; return when it has arrived. What it raises means: try again."""

    def close(self) -> None:
        """Drop what is open; it is opened anew when it is next needed."""


class Sender:
    """Sends from a thread of its own. What hangs there keeps nobody else.

    :param lock_path: the directory of the file that only the process which sends holds
    """

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        lock_path: Path,
        clock: Clock,
        uniform: random.Random,
    ) -> None:
        self.outbox = outbox
        self._publisher = publisher
        self._lock_path = lock_path / LOCK_NAME
        self._clock = clock
        self._uniform = uniform
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._abandoned = False
        self._failures = 0
        #: When the message that is on its way was given to the publisher, monotonic seconds.
        self._began: float | None = None
        #: Whether a message was sent, and nothing has gone wrong since.
        self._is_well = False
        #: What was said of what goes wrong.
        self._said: set[str] = set()

    def start(self) -> None:
        """Send what waits, and go on with what comes; without a thread, at the next call."""
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._work, name="cepheid-notifications", daemon=True)
            try:
                thread.start()
            except RuntimeError as err:  # the system has no more; what waits is on the disk
                self._say(f"{err}; look at the limits of the agent's processes and threads")
            else:
                self._thread = thread

    def wake(self) -> None:
        """Send what was put into the outbox just now."""
        self.start()
        self._wake.set()
        self._report_hanging()

    def close(self, seconds: float) -> bool:
        """Give what waits one more attempt of so many seconds; tell whether that has ended."""
        self._stopping.set()
        self._wake.set()
        with self._starting:
            is_started = self._thread is not None
        if not is_started or self._clock.wait(self._ended, seconds):
            return True
        self._abandoned = True
        return False

    def _work(self) -> None:
        while True:
            self._wake.clear()
            succeeded = self._attempt()
            if self._stopping.is_set() and not (succeeded and self._wake.is_set()):
                break
            if not succeeded:
                self._clock.wait(self._stopping, self._delay())
            elif not self._clock.wait(self._wake, POLL_SECONDS):
                self._publisher.close()
        self._publisher.close()
        self._ended.set()

    def _attempt(self) -> bool:
        """Send all that waits; tell whether nothing went wrong."""
        failure = self._try()
        if failure is None:
            self._failures = 0
            return True
        self._failures += 1
        self._say(describe(failure))
        self._publisher.close()
        return False

    def _try(self) -> Exception | None:
        try:
            with self._exclusively() as free:
                if free:
                    self._send_all()
        except Exception as err:
            LOG.debug("A notification was not sent", exc_info=True)
            return err  # whatever a driver raises: it waits, and is tried again
        return None

    def _send_all(self) -> None:
        while messages := self.outbox.first():
            for message in messages:
                if self._abandoned:
                    return
                self._began = self._clock.monotonic()
                try:
                    self._publisher.publish(message)
                finally:
                    self._began = None
                self.outbox.record_sent(message)
                self._unsay()
            self.outbox.shrink()

    def _delay(self) -> float:
        doubled = FIRST_DELAY_SECONDS * 2.0 ** min(self._failures - 1, 16)
        return min(doubled, LONGEST_DELAY_SECONDS) * self._uniform.uniform(0.5, 1)

    def _report_hanging(self) -> None:
        began = self._began
        if began is not None and self._clock.monotonic() - began > HANGS_AFTER_SECONDS:
            self._say(f"a message was not confirmed within {HANGS_AFTER_SECONDS:g} seconds")

    def _say(self, reason: str) -> None:
        """Warn, once while it lasts."""
        self._is_well = False
        if reason in self._said or self._abandoned:
            return
        self._said.add(reason)
        LOG.warning(
            "Notifications cannot be sent: %s. They wait in %s. Look at the message broker, and "
            "at [oslo_messaging_notifications].",
            reason.rstrip("."),
            self.outbox.path,
        )
        with contextlib.suppress(OutboxError):
            self.outbox.set_trouble(reason)

    def _unsay(self) -> None:
        """Say that it is over, if there was anything."""
        if self._is_well:
            return
        if self._said:
            LOG.info("Over: notifications are sent again")
            self._said.clear()
        self.outbox.set_trouble("")
        self._is_well = True

    @contextmanager
    def _exclusively(self) -> Iterator[bool]:
        """Hold the lock while it is free; tell whether it was."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as err:
            raise errors.CepheidError(
                f"the lock file {self._lock_path} cannot be opened: {err.strerror}"
            ) from err
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)
