# SPDX-License-Identifier: Apache-2.0
"""Tests in a process with a mount namespace of its own: what they mount, nobody else sees.

They need root. Source: unshare(2), mount(8).
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.functional.processes import PATIENCE_SECONDS

CLONE_NEWNS = 0x00020000  # linux/sched.h


def run(body: Callable[..., None], *arguments: Any) -> None:
    """Run a test's body there; what it raises comes out as a failure with its traceback."""
    if os.geteuid() != 0:
        pytest.fail("it mounts file systems of its own: run it as root")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(theirs, body, arguments)
    )
    process.start()
    theirs.close()
    failure = "it ended without an answer"
    if ours.poll(2 * PATIENCE_SECONDS):
        with contextlib.suppress(EOFError):
            failure = ours.recv()
    else:
        process.kill()
        failure = "it did not end"
    process.join()
    assert not failure, failure


def _run(answer: Connection, body: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    failure = ""
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare failed")
        mount("--make-rprivate", "/")
        body(*arguments)
    except BaseException:  # noqa: BLE001 - an assertion, an exit: the parent is to know
        failure = traceback.format_exc()
    answer.send(failure)
    # Mounts go with the last process; no clean-up of what the parent has opened.
    sys.stdout.flush()
    os._exit(0)


def mount(*words: str | Path) -> None:
    """Mount, or change a mount."""
    subprocess.run(["mount", *words], check=True, stdin=subprocess.DEVNULL)


def unmount(path: Path) -> None:
    """Take a mount away."""
    subprocess.run(["umount", path], check=True, stdin=subprocess.DEVNULL)


def new_file_system(path: Path, kind: str, image: Path) -> None:
    """Mount an empty file system of 8 MiB.

    :param kind: ``tmpfs``, or ``ext4`` in the file `image`
    """
    if kind == "tmpfs":
        mount("-t", "tmpfs", "-o", "size=8m,mode=755", "none", path)
        return
    with image.open("wb") as stream:
        stream.truncate(8 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, stdin=subprocess.DEVNULL)
    mount("-o", "loop", image, path)


def fill(path: Path) -> None:
    """Write to a file system until it is full."""
    with path.open("wb", buffering=0) as stream:
        for size in (65536, 512, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
