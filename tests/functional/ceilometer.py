# SPDX-License-Identifier: Apache-2.0
"""Ceilometer's own notification agent, as released, that writes what it makes into files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.functional import released
from tests.functional.processes import PATIENCE_SECONDS, wait_until

CEILOMETER_VERSION = "27.0.0"


def environment() -> Path:
    """Return the virtual environment with Ceilometer."""
    return released.environment("ceilometer", CEILOMETER_VERSION)


class Ceilometer:
    """The agent, with its own definitions of meters and events, from ``with`` on.

    :param definitions: a directory with further definitions of meters
    """

    def __init__(self, path: Path, transport_url: str, definitions: Path | None = None) -> None:
        self._path = path
        self._log = path / "ceilometer.log"
        self._environment = environment()
        self._process: subprocess.Popen[bytes] | None = None
        for name, what in (("pipeline", "meters"), ("event_pipeline", "events")):
            (path / f"{name}.yaml").write_text(
                f'---\nsources:\n  - {{name: all, {what}: ["*"], sinks: [file]}}\n'
                f'sinks:\n  - {{name: file, publishers: ["file://{path}/{what}?json"]}}\n'
            )
        (own,) = self._environment.glob("lib/python*/site-packages/ceilometer/data/meters.d")
        directories = [own, definitions] if definitions else [own]
        (path / "ceilometer.conf").write_text(
            f"[DEFAULT]\ntransport_url = {transport_url}\n"
            f"pipeline_cfg_file = {path}/pipeline.yaml\n"
            f"event_pipeline_cfg_file = {path}/event_pipeline.yaml\n[meter]\n"
            + "".join(f"meter_definitions_dirs = {one}\n" for one in directories)
            + "[oslo_messaging_rabbit]\namqp_durable_queues = true\n"
        )

    def __enter__(self) -> Ceilometer:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._environment / "bin" / "ceilometer-agent-notification",
                    "--config-file",
                    self._path / "ceilometer.conf",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the agent, which ends what it has begun."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)

    def events(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many events; return those there are, in the order of what they tell.

        Its threads write them in any order.
        """
        return sorted(self._wait_for("events", count), key=lambda event: event["generated"])

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many samples; return those there are."""
        return self._wait_for("meters", count)

    def _wait_for(self, name: str, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self._read(name)) >= count, self._log.read_text)
        return self._read(name)

    def _read(self, name: str) -> list[dict[str, Any]]:
        file = self._path / name
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
