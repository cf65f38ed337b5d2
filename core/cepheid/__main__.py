# SPDX-License-Identifier: Apache-2.0
"""The executable: ``cepheid`` and ``python -m cepheid``.

For the agent it makes the threads green, if they are to be, before anything else is imported.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys

from cepheid import concurrency, signals


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = _agent_concurrency(arguments)
    if chosen == "eventlet":
        concurrency.patch()
    if chosen is not None and sys.stderr is not None:
        # systemd's watchdog ends a process that hangs with SIGABRT: the log then has where it hung.
        faulthandler.enable()
    from cepheid.cli.app import App

    status = App().run(arguments)
    if chosen is not None:
        # Threads that hang in native calls must not keep the process from ending.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


def _agent_concurrency(arguments: list[str]) -> str | None:
    """Return how the agent is to run; None when it is another command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-file", action="append", default=[])
    parser.add_argument("--config-dir", action="append", default=[])
    parser.add_argument("--log-file")
    try:
        known, rest = parser.parse_known_args(arguments)
    except SystemExit:
        return None
    words = [word for word in rest if not word.startswith("-")]
    if words[:1] != ["agent"]:
        return None
    signals.remember_reloads()
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("concurrency", default=concurrency.DEFAULT))
    sources = [f"--config-file={path}" for path in known.config_file]
    sources += [f"--config-dir={path}" for path in known.config_dir]
    try:
        conf(sources, project="cepheid")
        return str(conf.concurrency)
    except (cfg.Error, OSError, ValueError, RecursionError):
        return concurrency.DEFAULT  # reading it in full tells what is wrong


if __name__ == "__main__":
    sys.exit(main())
