# SPDX-License-Identifier: Apache-2.0
"""Text that may have names of files in it, which need not be text."""

from __future__ import annotations


def encodable(text: str) -> str:
    """Return a text that can be written anywhere, whatever bytes a name in it has.

    Python has bytes that are no UTF-8 as halves of surrogates, which no file or database takes.
    What a plugin gives in a text's place is returned as it is.
    """
    return text if not isinstance(text, str) else text.encode(errors="backslashreplace").decode()
