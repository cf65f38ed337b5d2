# SPDX-License-Identifier: Apache-2.0
"""``cepheid explain``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cepheid import config, errors, explaining
from cepheid.agent import Agent
from cepheid.cli import base, explanations
from cepheid.journal import FILE_NAME, Journal
from cepheid_plugins.compute import subjects
from cepheid_plugins.compute.cli import BEGINNING


class Explain(base.Command):
    """Explain what each task does about an instance or a file, and why: now, and last.

    Each task's own pass is rehearsed. Nothing is changed; a running agent is not disturbed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "object",
            metavar="INSTANCE|FILE",
            help=f"an instance's uuid, {BEGINNING}, its name, the name of a domain; or a path, "
            "with a slash in it",
        )
        parser.add_argument("--task", metavar="NAME", help="ask this task only")
        parser.add_argument(
            "-f",
            "--format",
            choices=("page", "json"),
            default="page",
            help="how to print it (default: page)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        live = self._ask()
        with self._reader() as agent:
            agent.load_tasks()
            subject = subjects.find(agent, parsed_args.object)
            found, others = explaining.explain(agent, subject, live, parsed_args.task)
            now = agent.clock.utcnow()
        if parsed_args.format == "json":
            print(json.dumps(explanations.as_dict(subject, found, others), indent=2, default=str))
        else:
            explanations.show(subject, found, others, now, is_live=live is not None)

    def _ask(self) -> dict[str, object] | None:
        """Return what the running agent says of itself; nothing where it does not answer."""
        try:
            status: dict[str, object] | None = self.ask_agent("status")
        except errors.CepheidError as err:
            self.say(f"When the next runs are is not known: {err}")
            return None
        return status

    @contextmanager
    def _reader(self) -> Iterator[Agent]:
        """Give an agent that makes no journal where there is none, and tells no observer."""
        conf = self.conf
        conf.set_override("observers", [])
        there = (Path(conf.state_path) / FILE_NAME).exists()
        agent = Agent(conf, journal=None if there else Journal(":memory:"))
        try:
            config.check(conf)
            yield agent
        finally:
            agent.close()
