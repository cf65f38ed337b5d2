# SPDX-License-Identifier: Apache-2.0
"""The code that the documentation shows, found in its sources."""

from __future__ import annotations

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "doc" / "source"
PAGES = [
    *sorted(SOURCE.rglob("*.rst")),
    ROOT / "README.rst",
    *sorted((ROOT / "examples").glob("*/README.rst")),
]

_DIRECTIVE = re.compile(r"^(?P<margin> *)\.\. code-block:: (?P<language>\S+)$")
_LITERAL = re.compile(r"^(?P<margin> *)(?!\.\. ).*::$")

#: The languages in which a page shows what is typed.
TYPED = ("", "console", "text", "sh")

#: Words at which a command ends for a shell.
SHELL = (">", "2>&1", "|", "&", "&&")


@dataclass(frozen=True)
class Block:
    """A literal block of a page; `language` is empty for one after ``::``."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, for the name of a test."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the literal blocks of a page, in their order."""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        found = _DIRECTIVE.match(line) or _LITERAL.match(line)
        if found is None:
            continue
        language = found.groupdict().get("language", "")
        taken = []
        for following in lines[number + 1 :]:
            depth = len(following) - len(following.lstrip())
            if following.strip() and depth <= len(found["margin"]):
                break
            if not re.match(r"^ *:[a-z-]+:", following):
                taken.append(following)
        text = textwrap.dedent("\n".join(taken)).strip("\n")
        if text:
            yield Block(page, number + 1, language, text + "\n")


def all_blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages that are of one of these languages."""
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def commands(block: Block, program: str = "cepheid") -> list[list[str]]:
    """Return the command lines of `program` in a block, in words and without the program.

    A prompt, a comment and a backslash at the end are what a shell takes them for.
    """
    joined = block.text.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        typed = re.sub(r"^[#$] ", "", line)
        if typed.startswith(f"{program} "):
            words = shlex.split(typed, comments=True)[1:]
            found.append(list(itertools.takewhile(lambda word: word not in SHELL, words)))
    return found
