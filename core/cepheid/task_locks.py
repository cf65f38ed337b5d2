# SPDX-License-Identifier: Apache-2.0
"""The file locks that keep a task from overlapping itself in several processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cepheid import errors


@contextmanager
def hold(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of a task; the kernel releases it when the process dies.

    :raises Busy: another process holds it
    :raises CepheidError: its file cannot be opened
    """
    path = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as err:
        raise errors.CepheidError(
            f"The lock file {path} cannot be opened: {err.strerror}. Look at its owner and "
            "the free space there."
        ) from err
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.Busy(
                f"{name} is running in another process; wait until it has ended."
            ) from None
        yield
    finally:
        os.close(descriptor)
