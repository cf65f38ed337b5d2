# SPDX-License-Identifier: Apache-2.0
"""Reading the journal beside the agent: on a connection of one's own, from any native thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cepheid import errors
from cepheid.journal import schema
from cepheid.journal.reader import Reader
from cepheid.journal.store import Store


@contextmanager
def view(path: Path) -> Iterator[Reader]:
    """Give a reader of the journal, for the calling thread alone.

    It waits for no lock of this process, and for a writer a moment at most. It makes and migrates
    nothing.

    :raises JournalError: the file cannot be read
    """
    store = Store.read_only(path)
    try:
        (found,) = store.rows("PRAGMA user_version")
        if found["user_version"] != schema.SCHEMA_VERSION:
            raise errors.JournalError(f"The journal {path} is not of this version.")
        yield Reader(store)
    finally:
        store.close()
