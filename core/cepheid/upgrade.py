# SPDX-License-Identifier: Apache-2.0
"""What is looked at before an agent is restarted with new code: ``cepheid upgrade check``.

A check is an entry point in ``cepheid.upgrade_checks``: what is called with an agent that has no
tasks and no journal on disk. It changes nothing. It returns None where all is well, or
the text of a warning; what stops the upgrade it raises.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sqlite3
from collections.abc import Callable

from cepheid import admin, catalogue, config, errors, loading, unread
from cepheid.agent import Agent
from cepheid.journal import FILE_NAME, SCHEMA_VERSION

NAMESPACE = "cepheid.upgrade_checks"

Check = Callable[[Agent], str | None]

#: Free space below which the next write may be the one that fails.
LITTLE_SPACE_BYTES = 100 * 1024 * 1024


def check_configuration(agent: Agent) -> str | None:
    """Look for values that are bad, and for options that nothing installed reads."""
    plugins = catalogue.describe(agent.conf)
    config.check(agent.conf)
    found = unread.find(agent.conf, plugins)
    if found:
        names = ", ".join(str(one) for one in found)
        return f"Nothing that is installed reads: {names}. Correct or remove them."
    return None


def check_tasks(agent: Agent) -> str | None:
    """Look whether every task that is enabled can be loaded."""
    plugins = catalogue.find_tasks(agent.conf)
    for plugin in plugins:
        if plugin.state == "found":
            catalogue.prepare(agent.conf, plugin)
    broken = [
        f"{plugin.name} of {plugin.provider}: {plugin.state}: {plugin.reason}"
        for plugin in plugins
        if plugin.state in ("failed", "in conflict")
    ]
    if broken:
        raise errors.PluginError("; ".join(broken))
    return None


def check_state_path(agent: Agent) -> str | None:
    """Look whether the state_path can be written and has room."""
    path = agent.state_path
    if not os.access(path, os.W_OK | os.X_OK):
        raise errors.ConfigError(
            f"[DEFAULT] state_path = {path} cannot be written by this user. Run the check as the "
            "user who runs the agent."
        )
    free = shutil.disk_usage(path).free
    if free < LITTLE_SPACE_BYTES:
        return f"There are {free >> 20} MiB free in {path}; the journal needs room."
    return None


def check_journal(agent: Agent) -> str | None:
    """Look at the journal's version and whether SQLite finds it sound, without migrating it."""
    path = agent.state_path / FILE_NAME
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as err:
        raise errors.JournalError(f"The journal {path} cannot be read: {err}.") from err
    if verdict != "ok":
        raise errors.JournalError(
            f"The journal {path} is damaged: {verdict}. Move it aside; the tasks then begin as on "
            "a new host."
        )
    if version > SCHEMA_VERSION:
        raise errors.JournalError(
            f"The journal {path} has version {version}, this cepheid knows {SCHEMA_VERSION}: it "
            "would be a step back. Move the file aside to start a new one."
        )
    size, free = path.stat().st_size, shutil.disk_usage(path).free
    if version < SCHEMA_VERSION and free < 2 * size:
        raise errors.JournalError(
            f"The journal {path} is migrated at the next start, which needs {2 * size >> 20} MiB; "
            f"{free >> 20} MiB are free."
        )
    return None


def check_agent(agent: Agent) -> str | None:
    """Look whether the agent that runs has the code that is installed."""
    try:
        live = admin.call(agent.state_path, "status")
    except errors.NotRunning:
        return None
    installed = importlib.metadata.version("cepheid")
    running = live.get("version", "an earlier version")
    if running == installed:
        return None
    return f"The agent that runs is {running}, {installed} is installed. Restart it."


def found_checks() -> list[tuple[str, Check]]:
    """Return every check that is installed, by name; one that cannot be loaded fails."""
    return [(plugin.name, _loaded(plugin)) for plugin in loading.discover(NAMESPACE)]


def _loaded(plugin: loading.Plugin) -> Check:
    def check(agent: Agent) -> str | None:
        loaded: Check = plugin.load()
        return loaded(agent)

    return check
