# SPDX-License-Identifier: Apache-2.0
"""The progress of a run, as a bar on the terminal; nothing where there is none."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from cepheid import errors

#: Seconds between two looks at how far it is.
INTERVAL_SECONDS = 0.25

Progress = tuple[int, int | None] | None


@contextlib.contextmanager
def shown(name: str, read: Callable[[], Progress]) -> Iterator[None]:
    """Show a bar on standard error meanwhile, once there is progress, if that is a terminal.

    :param read: tells how far it is, on a thread of its own
    """
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(name, _quiet(read), ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _quiet(read: Callable[[], Progress]) -> Callable[[], Progress]:
    """Take an agent that does not answer for no progress: its own call tells what is wrong."""

    def look() -> Progress:
        try:
            return read()
        except (errors.CepheidError, OSError):
            return None

    return look


def _show(name: str, read: Callable[[], Progress], ended: threading.Event) -> None:
    progress: Progress = None
    while progress is None:
        if ended.wait(INTERVAL_SECONDS):
            return
        progress = read()
    # Imported here: it takes a while, and most runs end before.
    from rich import console
    from rich import progress as rich_progress

    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        console=console.Console(stderr=True),
        transient=True,
    ) as bar:
        done, total = progress
        shown = bar.add_task(name, completed=done, total=total)
        while not ended.wait(INTERVAL_SECONDS):
            progress = read()
            if progress is not None:
                done, total = progress
                bar.update(shown, completed=done, total=total)
