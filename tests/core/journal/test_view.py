# SPDX-License-Identifier: Apache-2.0
"""Reading the journal beside the agent."""

import pytest

from cepheid import errors
from cepheid.journal.view import view


def test_a_file_that_is_no_journal_is_named_in_one_line(tmp_path):
    path = tmp_path / "cepheid-journal.sqlite"
    path.write_bytes(b"no database " * 500)
    with pytest.raises(errors.JournalError, match=r"cepheid-journal\.sqlite"), view(path):
        pass
