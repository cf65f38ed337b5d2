# SPDX-License-Identifier: Apache-2.0
"""How changes and runs look in tables."""

from __future__ import annotations

import json
from typing import Any


def value(found: Any) -> str:
    """Return a change's before or after."""
    if found is None:
        return "-"
    return found if isinstance(found, str) else json.dumps(found)


def option(value: Any) -> str:
    """Return an option's value; a list is written as in a configuration file."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def outcome(change: dict[str, Any]) -> str:
    """Return what came of a change, with its error."""
    return f"{change['outcome']}: {change['error']}" if change["error"] else change["outcome"]


def running(run: dict[str, Any]) -> str:
    """Return the state of a task that runs, with its progress."""
    if not run["progress"]:
        return "running"
    done, total = run["progress"]
    return f"running, {done} of {total}" if total is not None else f"running, {done} done"
