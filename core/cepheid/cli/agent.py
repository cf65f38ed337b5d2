# SPDX-License-Identifier: Apache-2.0
"""``cepheid agent``."""

from __future__ import annotations

import argparse

from cepheid import config
from cepheid.agent import Agent
from cepheid.cli import base
from cepheid.service import Service
from cepheid.signals import SignalWatcher


class AgentCommand(base.Command):
    """Run the agent of this host in the foreground, until SIGTERM."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        config.set_up_logging(self.conf)
        agent = Agent(self.conf)
        signals = SignalWatcher(lambda: agent.conf.graceful_shutdown_timeout)
        service = Service(agent, self.app.load_conf)  # type: ignore[attr-defined]
        signals.on_report = service.reporter.write_in_background
        service.start()
        return service.run(signals)
