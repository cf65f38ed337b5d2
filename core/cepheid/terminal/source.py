# SPDX-License-Identifier: Apache-2.0
"""Where the overview comes from: the agent and the journal, or the journal alone."""

from __future__ import annotations

import datetime
import importlib.metadata
from pathlib import Path
from typing import Any

from oslo_config import cfg

from cepheid import admin, catalogue, durations, errors, overview, overview_entries, periodic_task
from cepheid.journal import FILE_NAME, Pause
from cepheid.journal.store import text
from cepheid.journal.view import view
from cepheid.loading import Plugin

#: Seconds in which an agent that works answers.
ANSWER_SECONDS = 5.0

#: How far the journal is looked back into where no agent answers.
LOOK_BACK_SECONDS = 6 * 3600

Document = dict[str, Any]


class Source:
    """Gives overviews, see :mod:`cepheid.overview`.

    That of a host where no agent answers has ``health["state"]`` ``unknown``, and None or
    nothing for all that only an agent knows; its runs go back for :data:`LOOK_BACK_SECONDS`.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._path = Path(conf.state_path) / FILE_NAME
        self._plugins: list[Plugin] | None = None

    def look(self) -> Document:
        """Return an overview of now."""
        try:
            state = admin.call(self._conf.state_path, "status", within=ANSWER_SECONDS)
        except errors.CepheidError as err:
            return self._without_agent(str(err))
        # An agent of an earlier version does not say what it is not ready for.
        return overview.take(state, self._path, state.get("not_ready", []))

    def _without_agent(self, why: str) -> Document:
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        records, pauses = self._read(now)
        document = overview.build(
            self._state(now, pauses), records, [why, *_last_sign(records, now)]
        )
        for task in document["tasks"]:
            task["status"] = "unknown"
        for part in ("runs", "totals"):
            document[part]["seconds"] = LOOK_BACK_SECONDS
        document["health"]["state"] = "unknown"
        return {**document, "pid": None, "started_at": None, "concurrency": None}

    def _read(self, now: datetime.datetime) -> tuple[overview.Records, dict[str, Pause]]:
        try:
            if not self._path.exists():
                return overview.Records(error=f"There is no journal {self._path} yet."), {}
            with view(self._path) as journal:
                records = overview.read(journal, now, LOOK_BACK_SECONDS)
                return records, journal.pauses.in_force(now)
        except errors.JournalError as err:
            return overview.Records(error=str(err)), {}
        except PermissionError:
            return overview.Records(error=errors.not_permitted(self._path)), {}

    def _state(self, now: datetime.datetime, pauses: dict[str, Pause]) -> Document:
        """Return what a snapshot would say as far as the configuration tells it."""
        if self._plugins is None:
            self._plugins = catalogue.describe(self._conf)
        return {
            "host": self._conf.host,
            "pid": None,
            "version": importlib.metadata.version("cepheid"),
            "concurrency": None,
            "at": text(now),
            "started_at": text(now),
            "drivers": [],
            "tasks": [self._task(plugin) for plugin in self._plugins],
            "runs": [],
            "native_calls": [],
            "native_calls_queued": 0,
            "pauses": [pause.as_dict() for pause in pauses.values()],
        }

    def _task(self, plugin: Plugin) -> Document:
        own: Any = self._conf[plugin.name] if plugin.state == "enabled" else {}
        return {
            **plugin.as_dict(),
            "spacing_seconds": periodic_task.effective_spacing(own["spacing"]) if own else None,
            "next_run_seconds": None,
            "late_seconds": None,
            "dry_run": own["dry_run"] if own else None,
            "run": None,
            "pause": None,
        }


def _last_sign(records: overview.Records, now: datetime.datetime) -> list[str]:
    """Say when the journal last heard of a run."""
    newest = max(
        (*records.runs[:1], *records.last_runs.values()), key=lambda run: run["id"], default=None
    )
    if newest is None:
        return []
    at = overview_entries.time(newest["started_at"])
    ago = durations.in_words(max(0.0, (now - at).total_seconds()))
    return [f"The last run on record, {newest['task']}, began {ago} ago ({at:%Y-%m-%d %H:%M} UTC)."]
