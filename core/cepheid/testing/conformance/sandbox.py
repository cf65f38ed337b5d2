# SPDX-License-Identifier: Apache-2.0
"""Starts the process in which a task is checked, and ends it in time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from cepheid.testing.conformance.child import RESULT
from cepheid.testing.conformance.findings import FAILED, Finding

#: Seconds that the checks of one task may take.
TIME_LIMIT_SECONDS = 240.0


def check(distribution: str, task: str, seconds: float = TIME_LIMIT_SECONDS) -> list[Finding]:
    """Check a task in a process of its own; return what was found."""
    with tempfile.TemporaryDirectory(prefix="cepheid-check-") as temporary:
        directory = Path(os.path.realpath(temporary))
        order = {"distribution": distribution, "task": task, "directory": str(directory)}
        log = directory / "output"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "cepheid.testing.conformance.child"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=_environment(directory),
                start_new_session=True,
                text=True,
            )
            status = _wait(process, json.dumps(order), seconds)
        return _result(directory, task, log, status, seconds)


def _wait(process: subprocess.Popen[str], order: str, seconds: float) -> int | None:
    """Return the exit status, that of a signal negative; None where it had to be ended."""
    try:
        process.communicate(order, timeout=seconds)
        return process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:
        # With all that it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _result(
    directory: Path, task: str, log: Path, status: int | None, seconds: float
) -> list[Finding]:
    try:
        result = json.loads((directory / RESULT).read_text())
    except (OSError, ValueError):
        result = {"state": "", "found": []}
    found = [Finding(**one) for one in result["found"]]
    if result["state"] != "end":
        after = f" after the check {found[-1].check!r}" if found else ""
        lines = log.read_text(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        if status is None:
            what = f"it hangs{after}: it was ended after {seconds:g} seconds"
            remedy = "wait for nothing but drivers, and with an end"
        elif status < 0:
            name = signal.strsignal(-status) or "unknown"
            what = f"signal {-status} ({name}) ended its process{after}{said}"
            remedy = "look at the native code that it calls, and at the memory that it takes"
        else:
            what = f"its process ended{after} with status {status}{said}"
            remedy = "see what it said; end no process, raise an error instead"
        found.append(Finding(task, "sandbox", FAILED, what, "", remedy))
    return found


def _environment(directory: Path) -> dict[str, str]:
    """Return an environment without secrets or displays, in which the same packages are found."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {
        **kept,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONWARNINGS": "ignore",
    }
