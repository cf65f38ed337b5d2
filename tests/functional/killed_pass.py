# SPDX-License-Identifier: Apache-2.0
"""A pass over the image cache in a process that kills itself (SIGKILL) before a system call.

The processes are forked from one that has imported everything, so there can be many of them.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fake_agent import FakeClock
from tests.functional.processes import PATIENCE_SECONDS
from tests.images import ImageHost

#: What changes files. Source: os.
CALLS = ("rename", "unlink", "link", "mkdir", "utime", "chown", "fsync")


def run(path: Path, utc: datetime.datetime, last: int | None = None) -> bool:
    """Run a pass of the host in a directory; tell whether it was killed.

    :param last: how many system calls that change something are made; None for all
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(path, utc, last))
    process.start()
    process.join(PATIENCE_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the pass did not end")
    assert process.exitcode in (0, -signal.SIGKILL), f"it ended with {process.exitcode}"
    return process.exitcode == -signal.SIGKILL


def _run(path: Path, utc: datetime.datetime, last: int | None) -> None:
    host = ImageHost(path, clock=FakeClock(utc))
    host.define(1)
    if last is not None:
        _kill_before(last)
    outcome = host.run().outcome
    os._exit(0 if outcome == "ok" else 1)


def _kill_before(last: int) -> None:
    made: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if len(made) >= last:
                os.kill(os.getpid(), signal.SIGKILL)
            made.append(name)
            return call(*arguments, **options)

        return step

    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))
    opened = os.open
    creating = counted("open", opened)

    def open_(name: Any, flags: int, *arguments: Any, **options: Any) -> Any:
        call = creating if flags & os.O_CREAT else opened
        return call(name, flags, *arguments, **options)

    os.open = open_
