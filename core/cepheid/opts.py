# SPDX-License-Identifier: Apache-2.0
"""The core's options of group ``[DEFAULT]``, and all that oslo.config's generator lists of it."""

from __future__ import annotations

import socket

from oslo_config import cfg

from cepheid import concurrency, periodic_task
from cepheid.status import opts as status_opts

#: Options that are read at the start only.
FIXED_OPTIONS = ("host", "state_path", "concurrency", "native_workers", "observers")

#: Stands for the tasks of the cepheid distribution itself in enabled_tasks and disabled_tasks.
BUNDLED_TASKS = "bundled"

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<the machine's host name>",
        help="The name of this host in the inventory: the value of instances.host, compared "
        "exactly. The same as nova-compute's beside one.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/cepheid",
        help="The directory of the journal, the locks, the admin socket and, by default, the "
        "inventory.",
    ),
    cfg.StrOpt(
        "concurrency",
        default=concurrency.DEFAULT,
        choices=concurrency.CHOICES,
        help="Threads of the agent: green ones, or the operating system's. Read at start only.",
    ),
    cfg.ListOpt(
        "enabled_tasks",
        default=[BUNDLED_TASKS],
        help="The tasks to run: names or patterns such as 'poll_*'. 'bundled' stands for those "
        "that cepheid itself brings, '*' for all that are installed.",
    ),
    cfg.ListOpt(
        "disabled_tasks",
        default=[],
        help="The tasks not to run, though enabled_tasks names them: names or patterns.",
    ),
    cfg.BoolOpt(
        "dry_run",
        default=False,
        help="Let every task record what it would change, and change nothing.",
    ),
    cfg.ListOpt(
        "observers",
        default=["log"],
        help="What is told of every run: names of entry points in cepheid.observers.",
    ),
    cfg.IntOpt(
        "journal_retention_days",
        default=90,
        min=0,
        help="Days for which the journal keeps runs, changes and pauses. 0 for ever. The newest "
        "run of each task stays whatever its age.",
    ),
    cfg.BoolOpt("periodic_enable", default=True, help="Run the tasks by their timers."),
    cfg.IntOpt(
        "periodic_fuzzy_delay",
        default=60,
        min=0,
        help="The most seconds by which the agent's first runs are delayed, at random, so that "
        "many hosts that start together spread out. 0 for none.",
    ),
    cfg.IntOpt(
        "periodic_interval_max",
        min=1,
        help="The most seconds between two times that a timer looks what is due.",
    ),
    cfg.IntOpt(
        "graceful_shutdown_timeout",
        default=60,
        min=1,
        help="Seconds that SIGTERM gives running tasks to end; then the agent ends without them.",
    ),
    cfg.IntOpt(
        "native_workers",
        default=8,
        min=1,
        help="Hypervisor calls that may be under way at one time.",
    ),
]


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    """List the core's options for oslo.config's generator."""
    return [
        (None, OPTIONS),
        *periodic_task.list_opts(),
        *status_opts.list_opts(),
        (
            "task_providers",
            [
                cfg.StrOpt(
                    "<task>",
                    help="The distribution that provides the task of this name, where several "
                    "do. This is how a bundled task is replaced.",
                )
            ],
        ),
    ]
