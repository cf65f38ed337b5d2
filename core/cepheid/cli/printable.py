# SPDX-License-Identifier: Apache-2.0
"""Text for a terminal: what other people named must not be able to command it."""

from __future__ import annotations

import unicodedata
from typing import Any

#: Control characters, those that turn the direction of writing, and halves of surrogates.
#: Source: Unicode's general categories.
_COMMANDS = ("Cc", "Cf", "Cs")

_HARMLESS = "\n\t"


def printable(value: Any) -> Any:
    """Return text with its control characters written out, as ``\\x1b``; anything else as it is."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        one if one in _HARMLESS or unicodedata.category(one) not in _COMMANDS else _written(one)
        for one in value
    )


def _written(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
