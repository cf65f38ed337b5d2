# SPDX-License-Identifier: Apache-2.0
"""``cepheid host confirm``."""

from __future__ import annotations

import argparse
from typing import Any

from cepheid import errors
from cepheid.cli import base
from cepheid_plugins.compute.adopt import operator_run
from cepheid_plugins.compute.sightings import Sightings, SightingsFile


class HostConfirm(base.ShowOne):
    """Say that host, hypervisor and inventory are right as they are; left-overs may then go."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        with self.agent() as agent:
            database, hypervisor = agent.driver("database"), agent.driver("hypervisor")
            live = {row.uuid for row in database.instances_on_host(agent.host)}
            domains = hypervisor.domains()
            rows = database.instances_by_uuid(domains)
            alive = {row.uuid for row in rows if row.deleted == 0}
            seen = Sightings()
            now = agent.clock.utcnow()
            seen.look(agent.host, hypervisor.identity, live, alive, set(domains), now)
            fields = {
                "host": agent.host,
                "hypervisor": hypervisor.identity,
                "database": database.url.render_as_string(hide_password=True),
                "instances here": len(live),
                "domains": len(domains),
                "domains of deleted instances": len(rows) - len(alive),
                "domains that no row knows": len(domains) - len(rows),
            }
            self._ask(parsed_args, fields)
            run = operator_run(
                agent,
                "host_confirm",
                False,
                lambda context: context.change(
                    "confirm",
                    agent.host,
                    reason="an operator looked",
                    do=lambda: SightingsFile(agent.conf.state_path).write(seen),
                ),
            )
        if run.error or any(change.outcome != "done" for change in run.changes):
            raise errors.AlreadyReported(run.error or "a change failed")
        return list(fields), list(fields.values())

    def _ask(self, parsed_args: argparse.Namespace, fields: dict[str, Any]) -> None:
        if parsed_args.yes:
            return
        self.say("\n".join(f"{name}: {value}" for name, value in fields.items()))
        try:
            answer = input("Is that right? [yes/no] ").strip().lower()
        except EOFError:
            answer = ""
        if answer not in ("y", "yes"):
            raise errors.CepheidError("Nothing was done; answer yes, or give --yes.")
