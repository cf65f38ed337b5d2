# SPDX-License-Identifier: Apache-2.0
"""Warnings of a configuration that works and is probably not what was meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from oslo_config import cfg

from cepheid import catalogue, config, loading, unread

LOG = logging.getLogger(__name__)

#: The options that are named one by one.
NAMED = 10


def warn(conf: cfg.ConfigOpts, plugins: Sequence[loading.Plugin]) -> None:
    """Warn of options that nothing reads, and of patterns that match no task.

    :param plugins: all tasks, as they were found and loaded
    """
    for option in ("enabled_tasks", "disabled_tasks"):
        for pattern in catalogue.idle_patterns(conf[option], plugins):
            LOG.warning(
                "[DEFAULT] %s in %s: %s matches no task. Write names or patterns with commas "
                "between them; 'cepheid task list' shows the tasks there are.",
                option,
                config.where_set(conf, option),
                pattern,
            )
    try:
        found = unread.find(conf, plugins)
    except (OSError, ValueError, cfg.Error) as err:  # a file was changed since it was read
        LOG.warning("It is not known which options nothing reads: %s", err)
        return
    except Exception:  # what plugins declare is anybody's code
        LOG.warning("It is not known which options nothing reads", exc_info=True)
        return
    for one in found[:NAMED]:
        LOG.warning("Nothing that is installed reads %s. Correct or remove it.", one)
    if found[NAMED:]:
        LOG.warning(
            "Nothing that is installed reads %d options more; 'cepheid upgrade check' names them.",
            len(found) - NAMED,
        )
