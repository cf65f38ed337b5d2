# SPDX-License-Identifier: Apache-2.0
"""The characters and colours that things are drawn with; each says the same without the other."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

#: Terminals that have no font for what Unicode has. Source: terminfo(5), console_codes(4).
PLAIN_TERMINALS = ("dumb", "linux", "unknown")

#: What is seen in a stretch of time or in a task's state, the worst last.
KINDS = ("nothing", "ok", "changed", "running", "warning", "error")

STYLES = {
    "nothing": "dim",
    "ok": "green",
    "changed": "bold cyan",
    "running": "bold blue",
    "warning": "bold yellow",
    "error": "bold red",
    "paused": "magenta",
    "off": "dim",
}

#: The kind of each outcome of a run; those that are not here are errors.
OUTCOMES = {
    "ok": "ok",
    "running": "running",
    "partial": "warning",
    "limited": "warning",
    "overdue": "warning",
}


@dataclass(frozen=True)
class Shapes:
    """One set of characters.

    :param marks: by kind
    """

    marks: dict[str, str]
    full: str
    empty: str
    arrow: str
    is_unicode: bool

    def clean(self, text: str) -> str:
        """Return what others wrote as it may go to a terminal: without control characters.

        A name or an error may hold an escape sequence. Where there is no Unicode, what is not
        ASCII becomes a question mark.
        """
        if not self.is_unicode:
            text = text.replace("…", "...").replace("→", "->").encode("ascii", "replace").decode()
        return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)

    def cut(self, line: Text, width: int) -> Text:
        """Return a line no wider than `width`; what is cut off is marked."""
        if line.cell_len <= width:
            return line
        mark = "…" if self.is_unicode else "~"
        shortened = line.copy()
        shortened.truncate(max(0, width - len(mark)), overflow="crop")
        shortened.rstrip()
        return shortened.append(mark)

    def mark(self, kind: str) -> Text:
        """Return the mark of a kind, in its colour."""
        return Text(self.marks[kind], STYLES[kind])

    def bar(self, done: int, total: int, width: int) -> Text:
        """Return a bar of `width` characters, as full as `done` of `total`."""
        filled = width if total <= 0 else min(width, width * done // total)
        bar = Text(self.full * filled, STYLES["running"])
        return bar.append(self.empty * (width - filled), STYLES["nothing"])


UNICODE = Shapes(
    {
        "nothing": "·",
        "ok": "▪",
        "changed": "◆",
        "running": "▶",
        "warning": "▲",
        "error": "✖",
        "paused": "‖",
        "off": "-",
    },
    full="█",
    empty="░",
    arrow="→",
    is_unicode=True,
)

ASCII = Shapes(
    {
        "nothing": ".",
        "ok": "o",
        "changed": "*",
        "running": ">",
        "warning": "!",
        "error": "X",
        "paused": "=",
        "off": "-",
    },
    full="#",
    empty=".",
    arrow="->",
    is_unicode=False,
)


def choose(encoding: str, terminal: str, is_terminal: bool = True) -> Shapes:
    """Return the shapes that a stream can show.

    :param encoding: the stream's
    :param terminal: what TERM says
    """
    if not encoding.lower().replace("-", "").startswith("utf"):
        return ASCII
    return ASCII if is_terminal and terminal in PLAIN_TERMINALS else UNICODE
