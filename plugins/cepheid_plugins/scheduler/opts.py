# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[scheduler]``."""

from __future__ import annotations

from oslo_config import cfg

from cepheid import drivers

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt(
        "send_timeout",
        default=10,
        min=1,
        help="Seconds that connecting to the message broker and sending one message may take "
        "together; then the run fails, and the next one tries again.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("scheduler", [drivers.driver_option("scheduler"), *OPTIONS])]
