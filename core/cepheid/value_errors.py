# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a configuration's files and values, in words for an operator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: Options that every task has, in seconds.
IN_SECONDS = ("spacing", "time_limit")

#: What Python says of text that is no number, with what is wanted.
_NO_NUMBER = (
    (re.compile(r"invalid literal for int\(\) with base 10: (.*)"), "a whole number"),
    (re.compile(r"could not convert string to float: (.*)"), "a number"),
)


def reason(option: str, err: Exception) -> str:
    """Return what is wrong with an option's value."""
    if isinstance(err, RecursionError):
        return "its value refers to itself"
    text = _one_line(err).rpartition("is not valid: ")[2]
    for pattern, wanted in _NO_NUMBER:
        found = pattern.fullmatch(text)
        if found:
            unit = " of seconds" if option in IN_SECONDS else ""
            return f"write {wanted}{unit}, not {found[1]}"
    return text


def unreadable(files: Sequence[str], directories: Sequence[str], err: Exception) -> str:
    """Return what is wrong with the files of a configuration that could not be read."""
    if isinstance(err, UnicodeDecodeError):
        paths = [Path(path) for path in files]
        for folder in directories:
            paths += sorted(Path(folder).glob("*.conf"))
        for path in paths:
            place = _place_of_other_text(path)
            if place is not None:
                return f"{path} cannot be read: it is not UTF-8 at byte {place}. Save it as UTF-8."
    return f"{', '.join(files) or 'The configuration'} cannot be read: {_one_line(err)}"


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())


def _place_of_other_text(path: Path) -> int | None:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as err:
        return err.start
    except OSError:
        return None
    return None
