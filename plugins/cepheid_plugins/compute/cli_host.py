# SPDX-License-Identifier: Apache-2.0
"""``cepheid host show | confirm``."""

from __future__ import annotations

import argparse
import datetime
import json
from typing import Any

from cepheid import errors
from cepheid.cli import base
from cepheid_plugins.compute.adopt import operator_run
from cepheid_plugins.compute.sightings import Sightings, SightingsFile
from cepheid_plugins.database.records import ComputeNode


class HostShow(base.ShowOne):
    """Show what this host has and what instances take of it, as it is on record."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        with self.agent() as agent:
            records = agent.driver("database").compute_nodes(agent.host)
            if not records:
                raise errors.CepheidError(
                    f"There is no record of host {agent.host!r}; 'cepheid task run "
                    "update_available_resource' makes one."
                )
        # Beside Nova, one that is not up to date may be left of another name of the hypervisor.
        newest = max(records, key=_age)
        fields = _fields(newest)
        return list(fields), list(fields.values())


class HostConfirm(base.ShowOne):
    """Say that host, hypervisor and inventory are right as they are; left-overs may then go."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        with self.agent() as agent:
            database, hypervisor = agent.driver("database"), agent.driver("hypervisor")
            live = database.deleted_at_on_host(agent.host)
            soft_deleted = [uuid for uuid, deleted_at in live.items() if deleted_at]
            domains = hypervisor.domains()
            rows = database.instances_by_uuid(domains)
            alive = {row.uuid for row in rows if row.deleted == 0}
            seen = Sightings()
            now = agent.clock.utcnow()
            seen.look(agent.host, hypervisor.identity, live, alive, domains, now, soft_deleted)
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


def _age(record: ComputeNode) -> tuple[datetime.datetime, int]:
    return record.updated_at or datetime.datetime.min, record.id


def _fields(record: ComputeNode) -> dict[str, Any]:
    """Return a record's fields as an operator reads them, its statistics one by one."""
    fields = record._asdict()
    updated_at, stats = fields.pop("updated_at"), fields.pop("stats")
    del fields["id"]
    cpu = _parsed(fields.pop("cpu_info"))
    fields["cpu"] = " ".join(
        str(cpu[name]) for name in ("arch", "vendor", "model") if cpu.get(name)
    )
    triples = _parsed(fields.pop("supported_instances"), [])
    fields["supported_instances"] = ", ".join(" ".join(triple) for triple in triples)
    for name, value in sorted(_parsed(stats).items()):
        fields.setdefault(name, value)
    return fields | {"updated_at": None if updated_at is None else str(updated_at)}


def _parsed(text: str | None, otherwise: Any = None) -> Any:
    """Return what a text holds; that of another writer may be anything."""
    otherwise = {} if otherwise is None else otherwise
    try:
        found = json.loads(text or "")
    except ValueError:
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise
