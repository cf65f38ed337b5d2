# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[database]``: oslo.db's own, with defaults for an agent."""

from __future__ import annotations

import copy

from oslo_config import cfg
from oslo_db import options as oslo_db_options

from cepheid import drivers

#: The defaults that differ from oslo.db's.
DEFAULTS = {
    "connection": "sqlite:///$state_path/cepheid.sqlite",
    "max_pool_size": 3,
    "max_overflow": 0,
    "pool_timeout": 30,
}


STATEMENT_TIMEOUT = cfg.IntOpt(
    "statement_timeout",
    default=60,
    min=1,
    help="Seconds after which the server ends a statement of the agent's, and a connection that "
    "says nothing any more counts as lost. SQLite has no such thing.",
)


def options() -> list[cfg.Opt]:
    """Return oslo.db's options with our defaults."""
    changed = []
    for option in oslo_db_options.database_opts:
        option = copy.copy(option)
        if option.dest in DEFAULTS:
            option.default = DEFAULTS[option.dest]
        changed.append(option)
    return [*changed, STATEMENT_TIMEOUT]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("database", [drivers.driver_option("database"), *options()])]
