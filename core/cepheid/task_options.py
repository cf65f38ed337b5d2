# SPDX-License-Identifier: Apache-2.0
"""The options that every task has in its own group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oslo_config import cfg

if TYPE_CHECKING:
    from cepheid.task import Task

#: Some thirty years, since a nova.conf may say "never" by a large number. From far larger ones no
#: date could be made.
MAX_SPACING_SECONDS = 1_000_000_000


def common(factory: type[Task]) -> list[cfg.Opt]:
    """Return the common options of a task class, with the defaults that it declares."""
    function: Any = factory._periodic_declared[factory.task_name()]
    nova_name = factory.nova_spacing
    if isinstance(nova_name, str):
        nova_name = ("DEFAULT", nova_name)
    return [
        cfg.BoolOpt(
            "enabled",
            default=function._periodic_enabled,
            help="Run this task. It must be among enabled_tasks as well.",
        ),
        cfg.IntOpt(
            "spacing",
            default=function._periodic_spacing,
            max=MAX_SPACING_SECONDS,
            deprecated_opts=(
                [cfg.DeprecatedOpt(nova_name[1], group=nova_name[0])] if nova_name else None
            ),
            help="Seconds between two runs. 0 means 60; a negative number switches the task off.",
        ),
        cfg.BoolOpt(
            "run_immediately",
            default=function._periodic_immediate,
            help="Where the task has never run before: make its first run when the agent "
            "starts, not one spacing later.",
        ),
        cfg.IntOpt(
            "time_limit",
            default=factory.time_limit,
            min=0,
            help="Seconds after which a run is reported as overdue. 0 means no limit.",
        ),
        cfg.BoolOpt(
            "dry_run",
            default=False,
            help="Record what the task would change, and change nothing.",
        ),
        cfg.IntOpt(
            "max_changes",
            default=factory.max_changes,
            min=0,
            help="The most changes that one run may make; it refuses the rest. 0 means no limit.",
        ),
    ]
