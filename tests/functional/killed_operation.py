# SPDX-License-Identifier: Apache-2.0
"""A command in a process of its own that kills itself (SIGKILL) before a given one of its steps.

The processes are forked from one that has imported everything, so there can be many of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from cepheid.cli.app import App
from cepheid_plugins.compute import cli_operations as _preloaded  # noqa: F401
from cepheid_plugins.hypervisor.libvirt_driver import LibvirtHypervisor
from tests.functional.processes import PATIENCE_SECONDS
from tests.killing import FineSteps, Steps


def run(conf: Path, words: list[str], last: int | None = None, fine: bool = False) -> bool:
    """Run a command; tell whether it was killed.

    :param last: how many of its steps are carried out; None for all
    :param fine: whether each call that changes a file is a step
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(conf, words, last, fine))
    process.start()
    process.join(PATIENCE_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{words} did not end")
    assert process.exitcode in (0, -signal.SIGKILL), f"{words} ended with {process.exitcode}"
    return process.exitcode == -signal.SIGKILL


def _run(conf: Path, words: list[str], last: int | None, fine: bool) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        if fine:
            FineSteps(patch, last, _die)
        else:
            Steps(patch, LibvirtHypervisor, last, _die)
        status = App().run(["--config-file", str(conf), *words])
    # No clean-up: the process has been forked from one that knows nothing of this.
    os._exit(status)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
