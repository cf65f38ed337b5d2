# SPDX-License-Identifier: Apache-2.0
"""``cepheid host show``."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from typing import Any

from cepheid import errors
from cepheid.cli import base
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


def _age(record: ComputeNode) -> tuple[datetime.datetime, int]:
    return record.updated_at or datetime.datetime.min, record.id


def _fields(record: ComputeNode) -> dict[str, Any]:
    """Return a record's fields as an operator reads them, its statistics one by one."""
    fields = dataclasses.asdict(record)
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
