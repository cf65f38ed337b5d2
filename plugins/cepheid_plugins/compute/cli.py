# SPDX-License-Identifier: Apache-2.0
"""``cepheid instance list | show``."""

from __future__ import annotations

import argparse
import datetime
import os
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.cli import base, cells, lists
from cepheid_plugins.compute import opts, power_state
from cepheid_plugins.compute.shelf import DEFINITION
from cepheid_plugins.database.records import UUID_BEGINNING, Instance
from cepheid_plugins.hypervisor.driver import DomainNotFound, HypervisorError
from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.native_files import LOOK_SECONDS, NativeInstancesPath

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: What may stand for a uuid.
BEGINNING = f"the beginning of it ({UUID_BEGINNING} characters or more)"


class InstanceList(lists.FittedLister):
    """List the instances of this host, and those that it has put by, as the inventory has them."""

    importance = ("VM state", "Power state", "Task state", "Memory MiB", "vCPUs")
    shorter = {"UUID": cells.short_targets}

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            rows = agent.driver("database").instances_on_host(agent.host)
            try:
                rows += _put_by(agent)
            except (StorageError, errors.CallTimeout) as err:
                self.say(f"cepheid: Instances that were put by here are not listed: {err}")
        columns = ("UUID", "Name", "VM state", "Task state", "Power state", "vCPUs", "Memory MiB")
        return columns, [
            (
                row.uuid,
                row.display_name,
                row.vm_state,
                row.task_state or "-",
                power_state.name(row.power_state),
                row.vcpus,
                row.memory_mb,
            )
            for row in sorted(rows, key=lambda row: (row.display_name or "", row.id))
        ]


class InstanceShow(base.ShowOne):
    """Show an instance: its row, and what the hypervisor says of its domain."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "instance", metavar="INSTANCE", help=f"its name, its uuid, or {BEGINNING}"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        with self.agent() as agent:
            row = find_instance(agent, parsed_args.instance)
            fields: dict[str, Any] = {
                name: str(value) if isinstance(value, datetime.datetime) else value
                for name, value in row._asdict().items()
            }
            fields["power_state"] = power_state.name(row.power_state)
            fields["domain"] = _domain(agent, row)
            for number, action in enumerate(agent.driver("database").actions_of(row.uuid)[:5]):
                message = action["message"] or ""
                fields[f"action {number + 1}"] = (
                    f"{action['action']} at {action['start_time']} {message}".rstrip()
                )
        return list(fields), list(fields.values())


def find_instance(agent: Agent, name: str, *, whole: bool = False) -> Instance:
    """Return the one live instance that an operator means.

    A whole uuid comes before a name, and a name before the beginning of a uuid.

    :param whole: whether the beginning of a uuid is not enough
    :raises CepheidError: there is none, or several, or the name is empty
    """
    if not name.strip():
        raise errors.CepheidError(
            "The name of an instance is empty; maybe a variable of the shell is not set."
        )
    found: list[Instance] = agent.driver("database").find_instances(name)
    # The database may take names for equal that differ in case.
    called_so = [row for row in found if row.display_name == name]
    begin_so = [row for row in found if row.uuid.startswith(name)]
    meant = [row for row in begin_so if row.uuid == name] or called_so
    if not meant and begin_so and whole:
        raise errors.CepheidError(
            f"No instance is called {name!r}. It is the beginning of {begin_so[0].uuid} "
            f"({begin_so[0].display_name}); give the whole uuid or the name to a command that "
            "asks first."
        )
    meant = meant or begin_so
    if not meant:
        raise errors.CepheidError(
            f"There is no instance {name!r}; 'cepheid instance list' shows those of this host."
        )
    if len(meant) > 1:
        uuids = ", ".join(row.uuid for row in meant[:5])
        raise errors.CepheidError(
            f"{name!r} may be any of {len(meant)} instances: {uuids}; name one."
        )
    return meant[0]


def _put_by(agent: Agent) -> list[Instance]:
    """Return the instances on no host whose disks lie in this host's ``shelved_path``."""
    agent.conf.register_opts(opts.OPTIONS, group="compute")
    path = agent.conf.compute.shelved_path
    if not agent.run_native(os.path.isdir, path, deadline=LOOK_SECONDS, name="shelved_path"):
        return []
    shelved = NativeInstancesPath(agent.run_native, agent.clock, path, "shelved_path")
    uuids = [name for name in shelved.names() if DEFINITION in shelved.files(name)]
    rows = agent.driver("database").instances_by_uuid(uuids) if uuids else []
    return [row for row in rows if row.host is None and row.deleted == 0]


def _domain(agent: Agent, row: Instance) -> str:
    if row.host is None:
        return "none, since it is on no host"
    if row.host != agent.host:
        return f"on {row.host}"
    try:
        return power_state.name(agent.driver("hypervisor").power_state(row.uuid))
    except DomainNotFound:
        return "none"
    except HypervisorError as err:
        return f"not known: {err}"
