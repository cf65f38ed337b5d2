# SPDX-License-Identifier: Apache-2.0
"""``cepheid agent``."""

from __future__ import annotations

import argparse

from cepheid import config, errors
from cepheid.agent import Agent
from cepheid.cli import base
from cepheid.service import Service
from cepheid.signals import SignalWatcher
from cepheid.systemd import Notifier


class AgentCommand(base.Command):
    """Run the agent of this host in the foreground, until SIGTERM."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        notifier = Notifier()
        try:
            config.set_up_logging(self.conf)
            agent = Agent(self.conf)
            signals = SignalWatcher(lambda: agent.conf.graceful_shutdown_timeout)
            service = Service(agent, self.app.load_conf, notifier)  # type: ignore[attr-defined]
            signals.on_report = service.reporter.write_in_background
            service.start()
        except (errors.CepheidError, OSError) as err:
            # Between two tries 'systemctl status' has no line of the log of the last one, but this.
            notifier.status(f"Not started: {err}")
            raise
        return service.run(signals)
