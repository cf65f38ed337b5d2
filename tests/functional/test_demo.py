# SPDX-License-Identifier: Apache-2.0
"""What 'make demo' shows, where a terminal is narrow and has no Unicode."""

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from tests.functional.environments import ROOT
from tests.functional.processes import require, wait_until
from tests.terminals import TerminalProgram

pytestmark = pytest.mark.functional

#: What may be wider than a terminal, which breaks it: commands, and advice in a sentence.
MAY_BE_WIDE = ("$ cepheid ", "Where people start and stop ")


@pytest.fixture
def temporary():
    """Where the demonstration makes its host; the path of an agent's socket has to be short."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def terminal(temporary):
    require("qemu-img")
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(temporary),
        "PYTHONIOENCODING": "latin-1",
    }
    demo = TerminalProgram([sys.executable, ROOT / "examples/demo/demo.py"], environment)
    yield demo
    demo.close()


def test_a_narrow_terminal_without_unicode_can_show_it(terminal, temporary):
    # A dozen commands one after the other.
    wait_until(lambda: terminal.lines and terminal.process.poll() is not None, seconds=240)
    assert terminal.process.returncode == 0, terminal.text
    assert any("shelved/app-4 " in line for line in terminal.lines)
    lines = re.sub(rb"\x1b\[[0-9;]*m|\r", b"", terminal.written).decode("ascii").splitlines()
    assert "Their files now" in lines
    assert [line for line in lines if re.fullmatch(r" +build-1 +vm_state +building -> error", line)]
    assert [line for line in lines if len(line) > 80 and not line.startswith(MAY_BE_WIDE)] == []
    # All is put right, and nothing is left to do.
    assert [line for line in lines if re.fullmatch(r". demo-host: all is well", line)]
    assert list(temporary.iterdir()) == []
