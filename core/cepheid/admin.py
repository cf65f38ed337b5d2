# SPDX-License-Identifier: Apache-2.0
"""The agent's admin socket: how the command line asks a running agent.

A Unix socket of mode 0600 under state_path. A request and its answer are one line of JSON each:
``{"command": NAME, ...arguments}``, then ``{"result": ...}`` or ``{"error": TEXT, "type": CLASS}``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cepheid import errors, host_lock

LOG = logging.getLogger(__name__)

SOCKET_NAME = "cepheid-agent.sock"

#: The longest path of a Unix socket. Source: unix(7).
MAX_PATH_BYTES = 107

#: Seconds for the server to end.
CLOSE_SECONDS = 2.0

#: Seconds after which the server goes on when no request can be taken, for want of descriptors say.
RETRY_SECONDS = 1.0

#: Seconds for a client to send its request, and as many to take the answer. What it asks for may
#: take longer.
CLIENT_SECONDS = 10.0

#: The longest request that is read.
MAX_REQUEST_BYTES = 65536


class AdminServer:
    """Answers requests on a thread of its own, and each request on another.

    :param path: the socket; one that a dead agent left is replaced
    :param commands: by name, what is called with the request's arguments
    :raises ConfigError: the socket cannot be made
    """

    def __init__(self, path: Path, commands: Mapping[str, Callable[..., Any]]) -> None:
        self.path = path
        self._commands = commands
        self._stopped = False
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise errors.ConfigError(
                f"The admin socket {path} has too long a path ({MAX_PATH_BYTES} bytes at most); "
                "choose a shorter [DEFAULT] state_path."
            )
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            previous = os.umask(0o177)
            try:
                self._socket.bind(os.fspath(path))
            finally:
                os.umask(previous)
            self._socket.listen()
        except OSError as err:
            raise errors.ConfigError(
                f"The admin socket {path} cannot be made: {err.strerror}."
            ) from err
        self._thread = threading.Thread(target=self._serve, name="admin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests and remove the socket."""
        self._stopped = True
        try:
            with socket.socket(socket.AF_UNIX) as waker:
                waker.settimeout(CLOSE_SECONDS)
                waker.connect(os.fspath(self.path))  # wakes who waits for a request
        except OSError:
            # Somebody removed the file. This wakes a native thread, and closing a green one.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        with contextlib.suppress(OSError):  # the agent is to end, whatever becomes of the file
            self.path.unlink()
        self._thread.join(CLOSE_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        is_failing = False
        while not self._stopped:
            try:
                self._take_one()
            except (OSError, RuntimeError) as err:  # no more descriptors, or threads
                if self._stopped:
                    return
                if not is_failing:
                    LOG.error("The admin socket cannot take a request: %s", err)
                is_failing = True
                time.sleep(RETRY_SECONDS)
            else:
                if is_failing:
                    LOG.info("The admin socket takes requests again")
                is_failing = False

    def _take_one(self) -> None:
        connection, _ = self._socket.accept()
        if self._stopped:
            connection.close()
            return
        try:
            threading.Thread(
                target=self._answer, args=(connection,), name="admin-request", daemon=True
            ).start()
        except RuntimeError:
            connection.close()
            raise

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            line = _receive_line(connection)
            if len(line) > MAX_REQUEST_BYTES:
                text = f"The request is longer than {MAX_REQUEST_BYTES} bytes."
                answer: dict[str, Any] = {"error": text}
            else:
                answer = self._carry_out(line)
            _send(connection, json.dumps(answer, default=str).encode() + b"\n")

    def _carry_out(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = self._commands[request.pop("command")]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return {"error": "The request is not one that this agent knows."}
        try:
            return {"result": command(**request)}
        except errors.CepheidError as err:
            return {"error": str(err), "type": type(err).__name__}
        except Exception as err:
            LOG.exception("An admin request failed")
            return {"error": f"{type(err).__name__}: {err}; see the agent's log."}


def _receive_line(connection: socket.socket) -> bytes:
    """Receive a line, or as much of it as shows that it is too long.

    :raises OSError: the client has gone, or its time is over
    """
    ends_at = time.monotonic() + CLIENT_SECONDS
    received = b""
    while b"\n" not in received and len(received) <= MAX_REQUEST_BYTES:
        _limit(connection, ends_at)
        piece = connection.recv(MAX_REQUEST_BYTES)
        if not piece:
            break
        received += piece
    return received.partition(b"\n")[0]


def _send(connection: socket.socket, answer: bytes) -> None:
    """Send an answer.

    :raises OSError: the client has gone, or its time is over
    """
    ends_at = time.monotonic() + CLIENT_SECONDS
    left = memoryview(answer)
    while left:
        _limit(connection, ends_at)
        left = left[connection.send(left) :]


def _limit(connection: socket.socket, ends_at: float) -> None:
    """Let what is done next on a connection take until a time only."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def call(
    state_path: str | Path, command: str, *, within: float | None = None, **arguments: Any
) -> Any:
    """Ask the agent that runs on this host; return its answer.

    :param within: the seconds to wait for it; None for as long as it takes
    :raises NotRunning: no agent answers
    :raises CepheidError: the agent refuses, or its socket may not be used
    """
    path = Path(state_path) / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within)
        try:
            connection.connect(os.fspath(path))
            with connection.makefile("rwb") as stream:
                stream.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
                stream.flush()
                line = stream.readline()
        except PermissionError as err:
            raise errors.NotPermitted(path) from err
        except TimeoutError as err:
            raise errors.NotRunning(
                f"The agent on {path} has not answered within {within:g} s. It hangs: SIGUSR2 has "
                "it write where."
            ) from err
        except OSError as err:
            raise errors.NotRunning(_absence(path)) from err
    if not line.endswith(b"\n"):
        raise errors.CepheidError("The agent ended before it answered; see its log.")
    answer = json.loads(line)
    if "error" in answer:
        raise errors.CepheidError(answer["error"])
    return answer["result"]


def _absence(path: Path) -> str:
    """Say why nobody answers: no agent runs, or one that does takes no requests."""
    holder = host_lock.holder(path.parent)
    if holder is not None:
        return (
            f"The agent, process {holder}, takes no requests on {path}: it starts or stops, or the "
            "socket was removed; its log says which."
        )
    return (
        f"No agent answers on {path}. Start it: 'systemctl start cepheid', or "
        "'cepheid agent' in the foreground."
    )


def ask(state_path: str | Path, command: str, **arguments: Any) -> Any:
    """Ask the agent that runs on this host; return its answer, or None where none does."""
    try:
        return call(state_path, command, **arguments)
    except errors.NotRunning:
        return None
