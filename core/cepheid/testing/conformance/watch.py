# SPDX-License-Identifier: Apache-2.0
"""Sees what a plugin's code does to the machine, through an audit hook, and refuses the worst.

An act counts as the plugin's where, from within outwards, a frame of the plugin's comes before
one of the core's. What is done within a double, or within the watch itself, does not count.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import cepheid

CORE = str(Path(cepheid.__file__).parent) + os.sep
#: Frames of the kit's are in between and decide nothing.
KIT = CORE + "testing" + os.sep

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

#: Audit events by what they are, for a reader. Their first argument is a path.
FILES = {
    "os.remove": "deletes",
    "os.rmdir": "deletes",
    "os.rename": "renames",
    "os.mkdir": "makes",
    "os.link": "links",
    "os.symlink": "links",
    "os.truncate": "truncates",
    "os.chmod": "changes the mode of",
    "os.chown": "changes the owner of",
    "os.utime": "changes the times of",
    "os.setxattr": "changes attributes of",
    "os.removexattr": "changes attributes of",
}
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
NETWORK = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}
PROCESS = {"os.chdir": "changes the working directory", "os.kill": "sends a signal",
           "signal.pthread_kill": "sends a signal", "os.putenv": "changes the environment",
           "os.unsetenv": "changes the environment"}  # fmt: skip

#: The beginning of what an act is refused with.
REFUSED = "cepheid task check "

#: What is refused as well.
SIGNALS = {"os.kill", "signal.pthread_kill"}


@dataclass(frozen=True)
class Act:
    """Something that a plugin's code did.

    :param kind: ``file``, ``program``, ``network``, ``process`` or ``sleep``
    :param what: in words
    :param in_door: whether it was done within ``context.change``
    """

    kind: str
    what: str
    path: str
    where: str
    phase: str
    in_door: bool


class Watch:
    """Keeps the acts of one process.

    :param directory: the sandbox's
    :param source: the plugin's package or module: a directory or file
    """

    def __init__(self, directory: Path, source: str) -> None:
        self.directory = os.path.realpath(directory) + os.sep
        self.source = source
        self.acts: list[Act] = []
        self.phase = ""
        self._local = threading.local()

    def install(self) -> None:
        """Begin; an audit hook cannot be taken away again."""
        sys.addaudithook(self._hook)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do what does not count."""
        before = getattr(self._local, "aside", False)
        self._local.aside = True
        try:
            yield
        finally:
            self._local.aside = before

    @property
    def is_aside(self) -> bool:
        """Whether what this thread does does not count."""
        return bool(getattr(self._local, "aside", False))

    @contextmanager
    def door(self) -> Iterator[None]:
        """Do what goes through the door for changes."""
        self._local.door = self.in_door + 1
        try:
            yield
        finally:
            self._local.door -= 1

    @property
    def in_door(self) -> int:
        """How deep within the door this thread is."""
        depth: int = getattr(self._local, "door", 0)
        return depth

    def note(self, kind: str, what: str, path: str = "") -> bool:
        """Keep an act if it is a plugin's; tell whether it is."""
        frame = self.plugins_frame()
        if frame is None or (kind == "sleep" and self.is_aside):
            return False
        act = Act(kind, what, path, self.place(frame), self.phase, bool(self.in_door))
        self.acts.append(act)
        return True

    def place(self, frame: FrameType) -> str:
        """Return where a frame is, as an author finds it."""
        return f"{self.short(frame.f_code.co_filename)}:{frame.f_lineno}"

    def short(self, path: str) -> str:
        """Return a path without the directory of the installation or the sandbox."""
        for root in (self.directory, os.path.dirname(self.source.rstrip(os.sep)) + os.sep):
            if path.startswith(root):
                return path[len(root) :]
        return path

    def plugins_frame(self) -> FrameType | None:
        """Return the plugin's frame that does what is going on; None where the core does it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self.source):
                return frame
            if name.startswith(CORE) and not name.startswith(KIT):
                return None
            frame = frame.f_back
        return None

    def since(self, number: int, *kinds: str) -> list[Act]:
        """Return the acts of these kinds since there were so many of all."""
        return [act for act in self.acts[number:] if act.kind in kinds]

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in HANDLED or self.is_aside:
            return
        with self.aside():
            self._look(event, args)

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        if event in FILES:
            path = _path(args[0])
            self.note("file", f"{FILES[event]} {self.short(path)}", path)
            self._refuse_outside(path)
        elif event == "open":
            path, flags = _path(args[0]), args[2] or 0
            if flags & WRITING and path != os.devnull and not isinstance(args[0], int):
                self.note("file", f"writes {self.short(path)}", path)
                self._refuse_outside(path)
        elif event in PROGRAMS:
            self.note("program", f"starts a program ({_program(event, args)})")
        elif event in NETWORK:
            if self.note("network", f"uses the network ({event.partition('.')[2]} {args[1:]!r})"):
                raise PermissionError(1, f"{REFUSED}allows no network")
        elif event in PROCESS:
            foreign = self.note("process", PROCESS[event])
            if foreign and event in SIGNALS:
                raise PermissionError(1, f"{REFUSED}allows no signals")

    def _refuse_outside(self, path: str) -> None:
        real = os.path.realpath(os.path.dirname(path) or ".") + os.sep
        if os.path.isabs(path) and not real.startswith(self.directory):
            raise PermissionError(13, f"{REFUSED}writes to its own directory only", path)


HANDLED = {"open", *FILES, *PROGRAMS, *NETWORK, *PROCESS}


def _path(value: Any) -> str:
    try:
        return os.fsdecode(value)
    except TypeError:
        return str(value)


def _program(event: str, args: tuple[Any, ...]) -> str:
    if event == "subprocess.Popen":
        return _path(args[1][0]) if isinstance(args[1], list | tuple) and args[1] else str(args[0])
    return " ".join(str(one) for one in args[:1]) or event
