# SPDX-License-Identifier: Apache-2.0
"""Words for what is shown; texts of others (errors, reasons) short and without passwords."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from oslo_utils import strutils

#: Characters of a text that is shown.
MAX_TEXT = 400

#: The password in a URL; up to the last @, since one may stand in it, and a slash as well, though
#: RFC 3986, 3.2.1, wants them written otherwise.
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S*(?=@)")


def shown(text: str) -> str:
    """Return a text cut to :data:`MAX_TEXT` characters, its passwords as ``***``."""
    masked = strutils.mask_password(_URL_PASSWORD.sub(r"\1***", text))
    return masked if len(masked) <= MAX_TEXT else masked[: MAX_TEXT - 1] + "…"


def value(found: Any) -> str:
    """Return a change's before or after in words; empty for None."""
    if found is None:
        return ""
    return shown(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))


def counters(counted: Mapping[str, int]) -> str:
    """Return a run's counters in words, as in ``done 3, instances 12``; empty where none counts."""
    return ", ".join(f"{name} {number}" for name, number in sorted(counted.items()))
