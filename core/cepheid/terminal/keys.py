# SPDX-License-Identifier: Apache-2.0
"""A terminal that is taken for a while: its keys one by one, its whole screen, and back again."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from rich.console import Console

#: What a terminal sends for a key. Source: console_codes(4); xterm's ctlseqs, "PC-Style Keys".
NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x0c": "redraw",
}

_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|.", re.DOTALL)
_BEGUN = re.compile(r"\x1b(\[[0-9;]*|O)?\Z")

#: Seconds in which the rest of a sequence follows its beginning.
SEQUENCE_SECONDS = 0.05

#: What ends the program. Their default would leave the terminal as it is.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def parse(typed: str) -> list[str]:
    """Return the keys that were typed: characters, and names of others; unknown ones are left."""
    keys = [NAMES.get(found, found) for found in _KEY.findall(typed)]
    return [key for key in keys if key in NAMES.values() or (len(key) == 1 and key.isprintable())]


class Keyboard:
    """Gives keys, and wakes up for signals and other threads.

    Create it on the main thread.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._woken, self._wakeup = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wakeup, False)
        self._is_to_stop = False

    @contextlib.contextmanager
    def taken(self, console: Console) -> Iterator[None]:
        """Take the keys and the whole screen; put all back as it was, whatever happens."""
        before = termios.tcgetattr(self._input)
        handlers = {
            number: signal.signal(number, handler)
            for number, handler in (
                *((number, _end) for number in ENDING_SIGNALS),
                (signal.SIGWINCH, _wake),
                (signal.SIGTSTP, self._stop),
            )
        }
        wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        try:
            tty.setcbreak(self._input)
            console.set_alt_screen(True)
            console.show_cursor(False)
            yield
        finally:
            # The terminal may be gone already.
            with contextlib.suppress(OSError, termios.error):
                console.show_cursor(True)
                console.set_alt_screen(False)
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._input, termios.TCSAFLUSH, before)
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def wait(self, seconds: float) -> list[str]:
        """Return the keys that are typed within `seconds`; nothing if it is woken."""
        ready, _, _ = select.select([self._input, self._woken], [], [], seconds)
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._input not in ready:
            return []
        typed = self._read()
        while _BEGUN.search(typed) and select.select([self._input], [], [], SEQUENCE_SECONDS)[0]:
            typed += self._read()
        return parse(typed)

    def wake(self) -> None:
        """Let :meth:`wait` return; from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wakeup, b"\0")

    @property
    def is_to_stop(self) -> bool:
        """Whether Ctrl-Z was typed."""
        return self._is_to_stop

    def stop(self) -> None:
        """Stop the process as Ctrl-Z does, and return when it goes on; not while it is taken."""
        self._is_to_stop = False
        os.kill(os.getpid(), signal.SIGSTOP)

    def _read(self) -> str:
        read = os.read(self._input, 4096)
        if not read:
            raise SystemExit(0)  # the terminal is gone
        return read.decode(errors="replace")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_to_stop = True


def _wake(number: int, frame: FrameType | None) -> None:
    """Do nothing. Only a signal with a handler is written to the wake-up descriptor."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
