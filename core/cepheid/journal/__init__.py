# SPDX-License-Identifier: Apache-2.0
"""The journal: what ran on this host and what it changed, in one local SQLite file."""

from cepheid.journal.journal import FILE_NAME, Journal
from cepheid.journal.pauses import Pause
from cepheid.journal.schema import SCHEMA_VERSION
from cepheid.journal.seals import Head

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "Head", "Journal", "Pause"]
