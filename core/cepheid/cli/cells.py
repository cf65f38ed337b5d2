# SPDX-License-Identifier: Apache-2.0
"""How changes and runs look in tables."""

from __future__ import annotations

import json
import re
from typing import Any

_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

#: Characters of a uuid in a narrow table. Commands take so many of its beginning for all of it.
UUID_WIDTH = 8

#: Characters of a target in a narrow table; of a path the end tells most.
TARGET_WIDTH = 28


def value(found: Any) -> str:
    """Return a change's before or after."""
    if found is None:
        return "-"
    return found if isinstance(found, str) else json.dumps(found)


def option(value: Any) -> str:
    """Return an option's value; a list is written as in a configuration file."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def time(at: str) -> str:
    """Return a time of the journal, which is UTC, for scripts: ISO 8601 with a Z."""
    return f"{at[:19]}Z"


def outcome(change: dict[str, Any]) -> str:
    """Return what came of a change, with its error."""
    return f"{change['outcome']}: {change['error']}" if change["error"] else change["outcome"]


def change(change: dict[str, Any]) -> tuple[Any, ...]:
    """Return a change's cells: what, on which target, before, after, what came of it, why."""
    return (
        change["kind"],
        change["target"],
        value(change["before"]),
        value(change["after"]),
        outcome(change),
        change["reason"],
    )


def running(run: dict[str, Any]) -> str:
    """Return the state of a task that runs, with its progress."""
    if not run["progress"]:
        return "running"
    done, total = run["progress"]
    return f"running, {done} of {total}" if total is not None else f"running, {done} done"


def short_targets(targets: list[Any]) -> list[Any]:
    """Return uuids as their first 8 characters, and other long text as its end.

    Where uuids begin alike, as those of test domains do, their ends stand for them.
    """
    texts = [str(target) for target in targets]
    uuids = {uuid for text in texts for uuid in _UUID.findall(text)}
    is_clear = len({uuid[:UUID_WIDTH] for uuid in uuids}) == len(uuids)
    return [
        _end_of(_UUID.sub(lambda found: _short_uuid(found[0], is_clear), text)) for text in texts
    ]


def _short_uuid(uuid: str, is_clear: bool) -> str:
    return uuid[:UUID_WIDTH] if is_clear else f"…{uuid[-UUID_WIDTH:]}"


def _end_of(text: str) -> str:
    if len(text) <= TARGET_WIDTH:
        return text
    return "…" + text[1 - TARGET_WIDTH :]


def short_times(times: list[Any]) -> list[Any]:
    """Return times of one day, which are ISO 8601, without it; others without year and seconds."""
    is_one_day = len({str(at)[:10] for at in times}) == 1
    return [str(at)[11:19] for at in times] if is_one_day else short_dates(times)


def short_dates(times: list[Any]) -> list[Any]:
    """Return times, which are ISO 8601, without year and seconds."""
    return [str(at)[5:16].replace("T", " ") for at in times]
