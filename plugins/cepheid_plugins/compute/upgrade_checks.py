# SPDX-License-Identifier: Apache-2.0
"""What the bundled tasks need of a host before an upgrade: the checks of the shared parts.

A driver that no enabled task asks for is not looked at.
"""

from __future__ import annotations

import os

from cepheid import catalogue, errors
from cepheid.agent import Agent
from cepheid_plugins.compute import opts


def check_database(agent: Agent) -> str | None:
    """Look whether the database answers and is migrated."""
    if not _is_used(agent, "database"):
        return None
    database = agent.driver("database")
    missing = database.missing()
    database.check()
    if missing:
        raise errors.CepheidError(
            f"The database lacks {', '.join(missing)}; see 'cepheid db check'."
        )
    return None


def check_hypervisor(agent: Agent) -> str | None:
    """Look whether the hypervisor answers."""
    if _is_used(agent, "hypervisor"):
        agent.driver("hypervisor").check()
    return None


def check_instances_path(agent: Agent) -> str | None:
    """Look whether the directory of the instances' files is there and can be used."""
    if not _is_used(agent, "hypervisor"):
        return None
    agent.conf.register_opts(opts.OPTIONS, group="compute")
    path = agent.conf.compute.instances_path
    if not os.path.isdir(path):
        return (
            f"[compute] instances_path = {path} is no directory. Operations that make or remove "
            "files of instances are refused until it is."
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise errors.ConfigError(
            f"[compute] instances_path = {path} cannot be used by this user. Run the check as the "
            "user who runs the agent, or correct its owner."
        )
    return None


def _is_used(agent: Agent, kind: str) -> bool:
    return any(
        plugin.state == "enabled" and kind in (plugin.factory.drivers or ())
        for plugin in catalogue.describe(agent.conf)
    )
