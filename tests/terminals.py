# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own, whose screen is read as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyte

from cepheid import concurrency
from tests.functional.processes import PATIENCE_SECONDS, wait_until


class TerminalProgram:
    """Runs a program on a new pseudo-terminal, as a login shell's would be."""

    def __init__(
        self,
        words: Sequence[str | Path],
        environment: Mapping[str, str],
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        # The green one would wait for more.
        self._os = concurrency.original("os")
        #: All that was written to the terminal.
        self.written = b""
        self._master, self._slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.resize(columns, lines)
        #: The settings of the terminal before the program began.
        self.settings_before = self.settings
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={"TERM": "xterm-256color", **environment},
        )

    @property
    def settings(self) -> list[Any]:
        """The settings of the terminal."""
        return termios.tcgetattr(self._slave)

    @property
    def lines(self) -> list[str]:
        """What is on the screen now."""
        while True:
            try:
                read = self._os.read(self._master, 65536)
            except (BlockingIOError, OSError):
                break
            self.written += read
            self._stream.feed(read)
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What is on the screen now, as one text."""
        return "\n".join(self.lines)

    def wait_for(self, text: str) -> None:
        """Wait until a text is on the screen."""
        wait_until(lambda: text in self.text, lambda: f"{text!r} in\n{self.text}")

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as when a window is dragged."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_until_stopped(self) -> None:
        """Wait until the program was stopped, as by Ctrl-Z."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def end(self) -> int:
        """Wait until the program has ended; return its exit status."""
        wait_until(lambda: self.lines and self.process.poll() is not None, lambda: self.text)
        return self.process.returncode

    def close(self) -> None:
        """End the program if it is still there, and the terminal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE_SECONDS)
        os.close(self._master)
        os.close(self._slave)
