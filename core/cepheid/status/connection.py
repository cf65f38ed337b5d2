# SPDX-License-Identifier: Apache-2.0
"""A client's connection with deadlines, so that a slow client holds nothing up."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

#: The most bytes of a request, headers and body.
MAX_REQUEST_BYTES = 32 * 1024

#: Seconds for a client to send its request, and as many again to take the answer.
REQUEST_SECONDS = 5.0

#: Seconds to wait for a client to close. If the server closed while the client still sends, the
#: client's system would discard the answer.
LINGER_SECONDS = 1.0


class Connection(io.RawIOBase):
    """A client's socket as a stream; reading and writing raise TimeoutError after a deadline.

    :param connection: the native socket
    :param peer: the client's address
    :ivar until: the deadline, in monotonic seconds
    :ivar dropped: whether the server has given the client up
    """

    def __init__(self, connection: Any, peer: str, monotonic: Callable[[], float]) -> None:
        self._socket = connection
        self._monotonic = monotonic
        self._left_bytes = MAX_REQUEST_BYTES
        self.peer = peer
        self.until = monotonic() + REQUEST_SECONDS
        #: Whether it is the client's turn: to send its request, to take the answer, or to close.
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
        """Break the connection, which wakes the thread that reads from it or writes to it."""
        self.dropped = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)

    def linger(self) -> None:
        """End the answer, and wait :data:`LINGER_SECONDS` at most until the client has closed."""
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
