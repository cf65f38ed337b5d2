# SPDX-License-Identifier: Apache-2.0
"""Released programs that are no part of ours, each in a virtual environment of its own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path


def environment(name: str, version: str, *more: str) -> Path:
    """Return the virtual environment with a release; make it where it is missing (a minute).

    :param more: further packages in it
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "cepheid-tests" / f"{name}-{version}-python{sys.version_info.minor}"
    complete = path / "complete"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run beside these want it too
        if not complete.exists():
            python = [sys.executable, "-m", "venv", "--clear", path]
            subprocess.run(python, check=True, stdin=subprocess.DEVNULL)
            pip = [path / "bin" / "pip", "install", "-q", f"{name}=={version}", *more]
            subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
            complete.touch()
    return path
