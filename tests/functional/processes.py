# SPDX-License-Identifier: Apache-2.0
"""What the tests' own servers and agents have in common: who runs them, and waiting for them."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

#: Seconds to wait for a process to come, to go, or to have done something. On a machine that is
#: busy with other things, a server that starts in three takes twenty.
PATIENCE_SECONDS = 60

#: Who runs the servers when root runs the tests.
UNPRIVILEGED_USER = "nobody"

SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def require(*programs: str) -> None:
    """Skip where a program is missing; in CI that is a failure."""
    missing = [name for name in programs if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        give_up(f"missing: {', '.join(missing)}; 'make test' installs them")


def give_up(message: str) -> NoReturn:
    """Skip, since something is missing; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def unprivileged_user() -> pwd.struct_passwd | None:
    """Return who is to run servers; None where whoever runs the tests may."""
    return pwd.getpwnam(UNPRIVILEGED_USER) if os.getuid() == 0 else None


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the arguments with which subprocess lets `user` run a program."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def wait_until(
    condition: Callable[[], Any],
    explain: Callable[[], str] = lambda: "",
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Wait until a process has done something."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {explain()}"
        time.sleep(0.05)
