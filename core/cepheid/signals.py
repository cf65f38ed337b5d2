# SPDX-License-Identifier: Apache-2.0
"""Signals, received whatever the process is doing.

Python runs a signal's handler on the main thread, which may hang in a native call, and with green
threads with it everything else. The interpreter does write the signal's number to a descriptor at
once, though. A native thread reads it there, tells the main loop, and keeps the promise that the
process ends: when the grace period after SIGTERM is over, it ends it. It also has a report
written, which is most wanted when the main thread hangs.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

from cepheid import concurrency

#: What ends the agent, and what makes it read its configuration again.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RELOAD_SIGNALS = (signal.SIGHUP,)

#: What makes it write a report of what it is doing.
REPORT_SIGNALS = (signal.SIGUSR2,)

#: The exit status of a process that had to be ended at the end of its grace period.
FORCED_EXIT_STATUS = 1


#: Signals that are read at one time.
PIPE_BYTES = 4096

#: Reload signals that arrived before there was a watcher.
_early: list[int] = []


def remember_reloads() -> None:
    """Let a reload signal not end the process before there is a watcher, which is told of it.

    systemd takes an end by SIGHUP for a clean exit, and does not restart what ended so. Source:
    systemd.service(5), SuccessExitStatus.
    """
    for number in RELOAD_SIGNALS:
        signal.signal(number, _remember)


class SignalWatcher:
    """Receives the signals of the process from its creation on.

    Create it on the main thread.

    :param grace_seconds: asked for when a stop signal arrives
    """

    def __init__(self, grace_seconds: Callable[[], float]) -> None:
        self._grace_seconds = grace_seconds
        #: Called on the watcher's native thread at a report signal; it must not raise or block.
        self.on_report: Callable[[], None] = lambda: None
        self._os = concurrency.original("os")
        self._select = concurrency.original("select")
        self._time = concurrency.original("time")
        self._signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        self._received, self._forward = socket.socketpair()
        #: What was forwarded and is not received yet: once each, however often it arrives.
        self._pending: set[int] = set()
        #: The stop signal that has arrived; no other is waited for after it.
        self._stop: int | None = None
        # First: what arrived between would be received by a handler that ignores it.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, *RELOAD_SIGNALS, *REPORT_SIGNALS):
            signal.signal(number, _ignore)
        os.write(wakeup, bytes(set(_early)))
        threading = concurrency.original("threading")
        threading.Thread(target=self._watch, name="cepheid-signals", daemon=True).start()

    def wait(self, seconds: float) -> int | None:
        """Wait for a signal, `seconds` at most; return its number."""
        if self._stop is None:
            self._received.settimeout(seconds)
            try:
                number = self._received.recv(1)[0]
            except TimeoutError:
                return None
            # One that arrives from now on is another, which what follows may be too early for.
            self._pending.discard(number)
        return self._stop or number

    def _watch(self) -> None:
        ends_at: float | None = None
        while True:
            left = None if ends_at is None else max(0.0, ends_at - self._time.monotonic())
            ready, _, _ = self._select.select([self._signals], [], [], left)
            if not ready:
                self._os._exit(FORCED_EXIT_STATUS)
            for number in self._os.read(self._signals, PIPE_BYTES):
                if number in STOP_SIGNALS and ends_at is None:
                    ends_at = self._time.monotonic() + self._grace_seconds()
                if number in STOP_SIGNALS:
                    self._stop = number
                if number in REPORT_SIGNALS:
                    self.on_report()
                if number not in self._pending:
                    self._pending.add(number)
                    self._os.write(self._forward.fileno(), bytes([number]))


def _remember(number: int, frame: FrameType | None) -> None:
    _early.append(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Be there, so that the signal does not do what it would by default."""
