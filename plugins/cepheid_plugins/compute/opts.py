# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[compute]``, which the operations on instances share."""

from __future__ import annotations

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt(
        "shutdown_timeout",
        default=60,
        min=0,
        deprecated_opts=[cfg.DeprecatedOpt("shutdown_timeout", group="DEFAULT")],
        help="Seconds that a guest has to shut down by itself before it is powered off. An "
        "image's property os_shutdown_timeout goes before it.",
    ),
    cfg.IntOpt(
        "shutdown_retry_interval",
        default=10,
        min=1,
        help="Seconds after which a guest that has not shut down is asked again.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("compute", OPTIONS)]
