# SPDX-License-Identifier: Apache-2.0
"""Files that only their owner and group can open.

QEMU's user passes through state_path to the disks in ``instances``. So the directory keeps nobody
out of a file whose name is known, and each file has to do that itself.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

#: Of a file that is made.
MODE = 0o640

#: Of state_path: others pass through, and cannot list it.
DIRECTORY_MODE = 0o711

OTHERS = stat.S_IRWXO

#: How what SQLite does not take for a path begins. Source: SQLite's documentation, "In-memory
#: databases" and "Uniform resource identifiers".
NO_PATHS = (":memory:", "file:")


def opener(path: str, flags: int) -> int:
    """Open a file as :func:`open` wants it done."""
    return os.open(path, flags, MODE)


def make(path: str | os.PathLike[str]) -> None:
    """Make an empty file if it is missing; who opens it says what keeps it from being made.

    It is not opened: with a descriptor that is closed, the locks that SQLite holds on the same file
    in this process would go. Source: fcntl(2).
    """
    if os.fspath(path).startswith(NO_PATHS):
        return
    with contextlib.suppress(OSError):
        os.mknod(path, stat.S_IFREG | MODE)


def close_all(folder: Path) -> None:
    """Close what is the agent's in its state_path and was made open to others."""
    for path in folder.glob("cepheid*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & OTHERS:
                path.chmod(stat.S_IMODE(mode) & ~OTHERS)
