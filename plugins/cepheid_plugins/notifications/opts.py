# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[notifications]``, with the names they have in nova.conf."""

from __future__ import annotations

from oslo_config import cfg

from cepheid import drivers

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "notification_format",
        default="unversioned",
        choices=["unversioned", "versioned", "both"],
        help="Which of Nova's two formats notifications are sent in.",
    ),
    cfg.ListOpt(
        "versioned_notifications_topics",
        default=["versioned_notifications"],
        help="The topics of versioned notifications. Those of the others are "
        "[oslo_messaging_notifications] topics.",
    ),
]


def format_name(versioned: bool) -> str:
    """Return what notification_format calls a format."""
    return "versioned" if versioned else "unversioned"


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [("notifications", [drivers.driver_option("notifications"), *OPTIONS])]
