# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[notifications]``, with the names they have in nova.conf."""

from __future__ import annotations

from oslo_config import cfg

from cepheid import drivers

#: The group of oslo.messaging's options for notifications.
OSLO_GROUP = "oslo_messaging_notifications"

#: Declared here too, so that oslo.messaging is not loaded to find out that it is not needed.
DRIVER = cfg.MultiStrOpt(
    "driver",
    default=[],
    help="What sends notifications: messagingv2 or messaging, through a broker; log; noop, to make "
    "none. Given several times, each of them does. Not given, none is made.",
)

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "notification_format",
        default="unversioned",
        choices=["unversioned", "versioned", "both"],
        deprecated_opts=[cfg.DeprecatedOpt("notification_format", group="DEFAULT")],
        help="Which of Nova's two formats notifications are sent in.",
    ),
    cfg.ListOpt(
        "versioned_notifications_topics",
        default=["versioned_notifications"],
        help="The topics of versioned notifications. Those of the others are "
        "[oslo_messaging_notifications] topics.",
    ),
    cfg.BoolOpt(
        "bdms_in_notifications",
        default=False,
        help="Tell of an instance's block devices in its versioned notifications.",
    ),
    cfg.IntOpt(
        "max_waiting",
        default=100_000,
        min=1,
        help="The most notifications that may wait in state_path while the broker takes none; "
        "further ones are refused. One takes some 2 to 4 KiB there.",
    ),
    cfg.IntOpt(
        "remember_days",
        default=31,
        min=1,
        help="Days for which the ids of notifications that may be repeated are remembered once "
        "they are sent, so that a repetition is not sent again.",
    ),
    cfg.IntOpt(
        "flush_timeout",
        default=5,
        min=0,
        help="Seconds that an agent or a command which ends gives what still waits to be sent.",
    ),
]


def format_name(versioned: bool) -> str:
    """Return what notification_format calls a format."""
    return "versioned" if versioned else "unversioned"


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo.config's generator."""
    return [
        ("notifications", [drivers.driver_option("notifications"), *OPTIONS]),
        (OSLO_GROUP, [DRIVER]),
    ]
