# SPDX-License-Identifier: Apache-2.0
"""The lock that keeps a second agent from running on one state_path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from cepheid import errors

LOCK_NAME = "cepheid-agent.lock"

#: Seconds after which the lock is tried once more: who looks who has it takes it for a moment.
LOOK_SECONDS = 0.1


def acquire(state_path: Path) -> int:
    """Take the lock for as long as the descriptor that is returned is open.

    :raises CepheidError: another agent has it
    """
    descriptor = os.open(state_path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
    except BlockingIOError:
        pid = _read(descriptor)
        os.close(descriptor)
        raise errors.CepheidError(
            f"Another agent (process {pid}) runs on {state_path}; stop it, or "
            "set another [DEFAULT] state_path."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def holder(state_path: Path) -> str | None:
    """Return the process that has the lock, as text; None when nobody has.

    A lock file that may not be read tells nothing: None.
    """
    try:
        descriptor = os.open(state_path / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)
    return None


def _lock(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    time.sleep(LOOK_SECONDS)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(descriptor: int) -> str:
    return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
