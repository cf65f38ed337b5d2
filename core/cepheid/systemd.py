# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how the service is. Source: sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
import time

LOG = logging.getLogger(__name__)


class Notifier:
    """Sends service states to the socket that systemd gave; without one it does nothing."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        environment = dict(os.environ) if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: Seconds within which systemd wants a sign of life; None without a watchdog.
        self.watchdog_seconds = int(usec) / 1e6 if usec.isdigit() and ours else None

    def ready(self, status: str) -> None:
        """Say that the service has started, or has ended a reload."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """Say that a reload has begun; :meth:`ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the service is ending."""
        self._send("STOPPING=1\nSTATUS=Stopping")

    def status(self, status: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """Give the watchdog its sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # the abstract namespace
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.connect(address)
                connection.sendall(message.encode())
        except OSError as err:
            LOG.warning("systemd's notification socket %s: %s", self._address, err)


def _line(text: str) -> str:
    """Return a text as one line: what comes after a line feed would be another assignment."""
    return " ".join(text.split())
