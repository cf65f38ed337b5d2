# SPDX-License-Identifier: Apache-2.0
"""A client's connection, which nobody waits for longer than it may take."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

#: Bytes of a request, headers and body.
MAX_REQUEST_BYTES = 32 * 1024

#: Seconds for a client to send its request, and as many again to take the answer.
REQUEST_SECONDS = 5.0

#: Seconds to wait for a client to close; otherwise what it still sends would break the answer.
LINGER_SECONDS = 1.0


class Connection(io.RawIOBase):
    """A client's socket as a stream whose reading and writing end at a time."""

    def __init__(self, connection: Any, peer: str, monotonic: Callable[[], float]) -> None:
        self._socket = connection
        self._monotonic = monotonic
        self._left_bytes = MAX_REQUEST_BYTES
        self.peer = peer
        self.until = monotonic() + REQUEST_SECONDS
        #: Whether the client is to do something: to send its request, take the answer, or close.
        self.waits_for_client = True
        self.dropped = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._wait_no_longer()
        count: int = self._socket.recv_into(buffer, min(len(buffer), self._left_bytes + 1))
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise OSError("the request is too long")
        return count

    def write(self, sent: Any) -> int:
        self._wait_no_longer()
        self._socket.sendall(sent)
        return len(sent)

    def begin_answer(self) -> None:
        """Note that the request is complete."""
        self.waits_for_client = False

    def begin_sending(self) -> None:
        """Give the client its time to take the answer."""
        self.waits_for_client = True
        self.until = self._monotonic() + REQUEST_SECONDS

    def drop(self) -> None:
        """Break the connection; whoever reads from it or writes to it is woken."""
        self.dropped = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)

    def linger(self) -> None:
        """End the answer, and wait until the client has closed, for a moment."""
        self._socket.shutdown(SHUT_WR)
        self.until = self._monotonic() + LINGER_SECONDS
        self._left_bytes = MAX_REQUEST_BYTES
        while self.readinto(bytearray(4096)):
            pass

    def close(self) -> None:
        if not self.closed:
            self._socket.close()
        super().close()

    def _wait_no_longer(self) -> None:
        left = self.until - self._monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
