# SPDX-License-Identifier: Apache-2.0
"""Reads configuration files, and names what is wrong in them.

The core's own options are in :mod:`cepheid.opts`.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log as oslo_log

from cepheid import errors, journal_priorities, opts, periodic_task, value_errors
from cepheid.status import opts as status_opts

LOG = logging.getLogger(__name__)

PROJECT = "cepheid"

#: What these libraries say below a warning is not about this host.
QUIET_LIBRARIES = ("alembic=WARN", "oslo_db=WARN", "oslo_service=WARN")


class _NovaNames(logging.Filter):
    """Drops oslo.config's warning of a deprecated name: nova.conf's names are meant to be used."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Deprecated: Option")


logging.getLogger("oslo_config.cfg").addFilter(_NovaNames())


def load(
    config_files: Sequence[str] | None = None, config_dirs: Sequence[str] | None = None
) -> cfg.ConfigOpts:
    """Read the configuration.

    :param config_files: in this order, a later one wins; by default those of
        /etc/cepheid and the other usual places
    :raises ConfigError: a file or value is bad; the message names it
    """
    conf = cfg.ConfigOpts()
    conf.register_opts(opts.OPTIONS)
    conf.register_opts(periodic_task.OPTIONS)
    conf.register_opts(status_opts.OPTIONS, group=status_opts.GROUP)
    oslo_log.register_options(conf)
    oslo_log.set_defaults(default_log_levels=[*oslo_log.get_default_log_levels(), *QUIET_LIBRARIES])
    arguments = []
    for path in config_files or ():
        arguments += ["--config-file", path]
    for path in config_dirs or ():
        arguments += ["--config-dir", path]
    try:
        conf(arguments, project=PROJECT)
    except cfg.ConfigFilesNotFoundError as err:
        files = ", ".join(err.config_files)
        raise errors.ConfigError(f"The configuration file {files} cannot be read.") from err
    except cfg.ConfigFileParseError as err:
        raise errors.ConfigError(_one_line(err)) from err
    except cfg.Error as err:
        raise errors.ConfigError(_one_line(err)) from err
    except (OSError, ValueError, RecursionError) as err:  # a directory, no UTF-8, no end of $...
        paths = config_files or cfg.find_config_files(PROJECT)
        folders = config_dirs or cfg.find_config_dirs(PROJECT)
        raise errors.ConfigError(value_errors.unreadable(paths, folders, err)) from err
    check(conf)
    return conf


def files_of(conf: cfg.ConfigOpts) -> list[str]:
    """Return the files that a configuration is read from, in this order."""
    found = list(conf.config_file or ())
    for folder in conf.config_dir or ():
        found += sorted(glob.glob(os.path.join(folder, "*.conf")))
    return found


def files_in_use(conf: cfg.ConfigOpts) -> set[str]:
    """Return the files that a configuration was read from and that are not empty."""
    return {path for path in files_of(conf) if _has_content(path)}


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:  # it went since it was read
        return False


def check(conf: cfg.ConfigOpts) -> None:
    """Look at every registered option, so that a bad value is found at once.

    :raises ConfigError: a value is bad; the message names group, option and file
    """
    for name in conf:
        _check_one(conf, None, name)
        if isinstance(conf[name], cfg.ConfigOpts.GroupAttr):
            for option in conf[name]:
                _check_one(conf, name, option)


def _check_one(conf: cfg.ConfigOpts, group: str | None, option: str) -> None:
    holder: Any = conf if group is None else conf[group]
    try:
        holder[option]
    except (ValueError, cfg.Error, RecursionError) as err:
        reason = value_errors.reason(option, err)
        raise errors.ConfigError(
            f"[{group or 'DEFAULT'}] {option} in {_location(conf, option, group)}: {reason}"
        ) from err


def _location(conf: cfg.ConfigOpts, option: str, group: str | None) -> str:
    try:
        return where_set(conf, option, group)
    except (ValueError, cfg.Error, RecursionError):
        # oslo.config finds a file twice where the program is called like the project.
        return ", ".join(dict.fromkeys(conf.config_file or [])) or "the configuration"


def where_set(conf: cfg.ConfigOpts, name: str, group: str | None = None) -> str:
    """Tell where an option's value comes from: a file, or ``default``."""
    location = conf.get_location(name, group)
    if location is None:
        return "default"
    return str(location.detail) if location.location.is_user_controlled else "default"


def set_up_logging(conf: cfg.ConfigOpts) -> None:
    """Set up oslo.log as `conf` says.

    :raises ConfigError: its options cannot be used
    """
    try:
        oslo_log.setup(conf, PROJECT)
    except (oslo_log.LogConfigError, OSError) as err:
        raise errors.ConfigError(f"Logging cannot be set up: {_one_line(err)}") from err
    logging.captureWarnings(True)
    journal_priorities.mark(logging.getLogger().handlers)


def register_providers(conf: cfg.ConfigOpts, names: Sequence[str]) -> dict[str, str]:
    """Return which distribution ``[task_providers]`` names for each of `names`."""
    for name in names:
        conf.register_opt(cfg.StrOpt(name), group="task_providers")
    return {name: conf.task_providers[name] for name in names if conf.task_providers[name]}


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())


def warn_of_fixed_options(old: cfg.ConfigOpts, new: cfg.ConfigOpts, kinds: list[str]) -> None:
    """Warn of values that are different now, and count after a restart only.

    :param kinds: of the drivers in use
    """
    changed = [name for name in opts.FIXED_OPTIONS if old[name] != new[name]]
    for group in [*kinds, status_opts.GROUP]:
        # Where another driver was chosen, each has options that the other does not know; and a
        # driver that came with a new task was not there before.
        known = [name for name in new[group] if group in old and name in old[group]]
        changed += [f"[{group}] {name}" for name in known if old[group][name] != new[group][name]]
    if changed:
        LOG.warning(
            "Changed, but read at the start only; restart the agent for: %s", ", ".join(changed)
        )
