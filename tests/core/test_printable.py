# SPDX-License-Identifier: Apache-2.0
"""What is printed for people cannot command their terminal."""

import pytest

from cepheid.cli.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1", "web-1"),
        ("Straße ✓ 東京", "Straße ✓ 東京"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("safe\u202egpj.exe", r"safe\u202egpj.exe"),
        ("back\rto the left", r"back\rto the left"),
        ("half a pair \ud800", r"half a pair \ud800"),
    ],
)
def test_characters_that_command_a_terminal_are_written_out(text, shown):
    assert printable(text) == shown


def test_what_is_no_text_is_left_as_it_is():
    assert printable(None) is None
    assert printable(7) == 7
