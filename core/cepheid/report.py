# SPDX-License-Identifier: Apache-2.0
"""A report of what the process is doing: every stack, the schedule, runs, native calls, pauses.

Written by a native thread from memory alone, so that it comes whatever hangs: it asks neither the
journal nor the log, whose locks a green thread may hold.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cepheid import concurrency, durations

FILE_NAME = "cepheid-report.txt"


class Reporter:
    """Writes the report into `path`; the newest takes the place of the one before.

    :param snapshot: gives what :func:`cepheid.snapshot.take` does
    """

    def __init__(self, path: Path, snapshot: Callable[[], dict[str, Any]]) -> None:
        self.path = path
        self._snapshot = snapshot
        self._writing = concurrency.original("threading").Lock()

    def write_in_background(self) -> None:
        """Write it on a native thread of its own; a disk that hangs holds up nobody else."""
        threading = concurrency.original("threading")
        threading.Thread(target=self.write, name="cepheid-report", daemon=True).start()

    def write(self) -> None:
        """Write it, unless another thread is at it; an error is left to show by its absence."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            text = self.text()
            new = self.path.with_suffix(".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            new.replace(self.path)
        except OSError:
            pass  # the disk is full, or gone: there is nobody whom this thread could tell
        finally:
            self._writing.release()

    def text(self) -> str:
        """Return the report."""
        parts: list[tuple[str, Callable[[], Iterable[str]]]] = [("Stacks", _stacks)]
        try:
            state = self._snapshot()
        except Exception:  # noqa: BLE001 - read while others write it; the stacks are there anyway
            text = traceback.format_exc()
            parts.insert(0, ("State (could not be read)", lambda: text.splitlines()))
        else:
            parts[:0] = [
                ("Agent", lambda: _agent(state)),
                ("Pauses", lambda: _pauses(state)),
                ("Runs", lambda: _runs(state)),
                ("Native calls", lambda: _native_calls(state)),
                ("Schedule", lambda: _schedule(state)),
            ]
        lines: list[str] = []
        for title, read in parts:
            lines += [title, "=" * len(title), ""]
            try:
                lines += list(read()) or ["none"]
            except Exception:  # noqa: BLE001 - as above: one part that cannot be read is one part
                lines += traceback.format_exc().splitlines()
            lines.append("")
        return "\n".join(lines)


def _agent(state: dict[str, Any]) -> Iterable[str]:
    for name in ("host", "pid", "version", "concurrency", "at"):
        yield f"{name + ':':<13}{state[name]}{' UTC' if name == 'at' else ''}"


def _pauses(state: dict[str, Any]) -> Iterable[str]:
    for pause in state["pauses"]:
        yield f"{pause['task'] or '(all)'}: {json.dumps(pause)}"


def _runs(state: dict[str, Any]) -> Iterable[str]:
    for run in state["runs"]:
        progress = f", progress {run['progress']}" if run["progress"] else ""
        limit = run["time_limit_seconds"]
        yield (
            f"{run['task']}: {run['outcome']} for {run['seconds']:.1f} s since "
            f"{run['started_at']} UTC"
            f"{f', time_limit {durations.exactly(limit)}' if limit else ''}{progress}, "
            f"run {run['id']}, {run['trigger']}, {run['request_id']}"
        )


def _native_calls(state: dict[str, Any]) -> Iterable[str]:
    for call in state["native_calls"]:
        abandoned = ", abandoned" if call["abandoned"] else ""
        yield f"{call['name']}: {call['seconds']:.1f} s{abandoned}"
    if state["native_calls_queued"]:
        yield f"waiting for a thread: {state['native_calls_queued']}"


def _schedule(state: dict[str, Any]) -> Iterable[str]:
    for task in state["tasks"]:
        if task["state"] != "enabled":
            continue
        parts = [_every(task["spacing_seconds"])]
        if task["running"]:
            parts.append("running")
        elif task["next_run_seconds"] is not None:
            parts.append(f"next in {durations.in_words(task['next_run_seconds'])}")
        if task["late_seconds"]:
            parts.append(f"its timer is {task['late_seconds']:.1f} s late")
        if task["pause"] is not None:
            parts.append("paused")
        yield f"{task['name']}: {', '.join(parts)}"


def _every(spacing_seconds: float | None) -> str:
    return f"every {durations.exactly(spacing_seconds)}" if spacing_seconds else "off"


def _stacks() -> Iterable[str]:
    for name, frame in concurrency.all_stacks():
        yield f"--- {name}"
        yield from "".join(traceback.format_stack(frame)).splitlines()
        yield ""
