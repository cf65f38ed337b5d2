# SPDX-License-Identifier: Apache-2.0
"""``cepheid notifications status``."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

from cepheid import drivers
from cepheid.cli import base
from cepheid.clock import Clock
from cepheid_plugins.notifications import opts
from cepheid_plugins.notifications.outbox import FILE_NAME, Outbox, Standing


class NotificationsStatus(base.ShowOne):
    """Show how many notifications wait to be sent, since when, and why."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        conf = self.conf
        conf.register_opts(
            [drivers.driver_option("notifications"), *opts.OPTIONS], group="notifications"
        )
        path = Path(conf.state_path) / FILE_NAME
        standing = _read(path)
        fields = {
            "waiting": standing.waiting,
            "max_waiting": conf.notifications.max_waiting,
            "oldest": _text(standing.oldest),
            "trouble": standing.trouble if standing.waiting else "",
            "since": _text(standing.since) if standing.waiting else "",
            "remembered": standing.remembered,
            "outbox": str(path),
        }
        return list(fields), list(fields.values())


def _read(path: Path) -> Standing:
    if not path.exists():
        return Standing()
    outbox = Outbox(path, Clock())
    try:
        return outbox.standing()
    finally:
        outbox.close()


def _text(at: datetime.datetime | None) -> str:
    return f"{at.isoformat(' ', 'seconds')} UTC" if at else ""
