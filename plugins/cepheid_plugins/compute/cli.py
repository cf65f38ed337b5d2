# SPDX-License-Identifier: Apache-2.0
"""``cepheid instance list | show | stop | start | reboot``."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.cli import base
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts, power_state
from cepheid_plugins.compute.adopt import operator_run, refuse_on_nova
from cepheid_plugins.compute.operations import InstanceOperations
from cepheid_plugins.database.records import Instance
from cepheid_plugins.hypervisor.driver import DomainNotFound, HypervisorError

if TYPE_CHECKING:
    from cepheid.agent import Agent


class InstanceList(base.Lister):
    """List the instances of this host, as the inventory has them."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            rows = agent.driver("database").instances_on_host(agent.host)
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
            "instance", metavar="INSTANCE", help="its uuid, the beginning of it, or its name"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        with self.agent() as agent:
            row = find_instance(agent, parsed_args.instance)
            fields: dict[str, Any] = {
                name: str(value) if isinstance(value, datetime.datetime) else value
                for name, value in dataclasses.asdict(row).items()
            }
            fields["power_state"] = power_state.name(row.power_state)
            fields["domain"] = _domain(agent, row)
            for number, action in enumerate(agent.driver("database").actions_of(row.uuid)[:5]):
                message = action["message"] or ""
                fields[f"action {number + 1}"] = (
                    f"{action['action']} at {action['start_time']} {message}".rstrip()
                )
        return list(fields), list(fields.values())


class _Operate(base.Lister):
    """An operation on instances of this host, for operators without Nova."""

    #: What is done, in the history.
    verb = ""
    #: The method of InstanceOperations that does it.
    method = ""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "instances",
            metavar="INSTANCE",
            nargs="+",
            help="its uuid, the beginning of it, or its name",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            refuse_on_nova(agent)
            agent.conf.register_opts(opts.OPTIONS, group="compute")
            rows = [find_instance(agent, name) for name in parsed_args.instances]
            for row in rows:
                if row.host != agent.host:
                    raise errors.CepheidError(
                        f"{row.uuid} is on {row.host}, this host is {agent.host}; run it there."
                    )
            operations = InstanceOperations(agent)
            run = operator_run(
                agent,
                f"instance_{self.verb}",
                False,
                lambda context: self._act(context, operations, rows),
            )
        raced = [change.target for change in run.changes if change.outcome == "raced"]
        if raced:
            raise errors.CepheidError(
                f"Somebody else works on {', '.join(raced)}; nothing was done there."
            )
        if run.error or any(change.outcome != "done" for change in run.changes):
            raise errors.AlreadyReported(run.error or "a change failed")
        return ("UUID", "Name", "Result"), [
            (change.target, change.reason, change.outcome) for change in run.changes
        ]

    def _act(
        self, context: RunContext, operations: InstanceOperations, rows: list[Instance]
    ) -> None:
        by_uuid = {row.uuid: row for row in rows}
        context.change_many(
            self.verb,
            [
                Change(uuid, row.vm_state, None, row.display_name or "")
                for uuid, row in by_uuid.items()
            ],
            lambda changes: getattr(operations, self.method)(
                [by_uuid[change.target] for change in changes], context.request_id
            ),
        )


class InstanceStop(_Operate):
    """Shut instances down; a guest that does not follow in time is powered off."""

    verb, method = "stop", "stop"


class InstanceStart(_Operate):
    """Start instances that are stopped."""

    verb, method = "start", "start"


class InstanceReboot(_Operate):
    """Power instances off at once and start them again; asks before it does."""

    verb, method = "reboot", "hard_reboot"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        if not parsed_args.yes and not _confirmed(
            f"Power off and start {', '.join(parsed_args.instances)}? What the guest has not "
            "written to its disks is lost."
        ):
            raise errors.CepheidError("Nothing was done; answer yes, or give --yes.")
        return super().take_action(parsed_args)


def _confirmed(question: str) -> bool:
    try:
        return input(f"{question} [yes/no] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def find_instance(agent: Agent, name: str) -> Instance:
    """Return the one live instance that an operator means.

    :raises CepheidError: there is none, or several
    """
    found: list[Instance] = agent.driver("database").find_instances(name)
    exact = [row for row in found if row.uuid == name]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise errors.CepheidError(
            f"There is no instance {name!r}; 'cepheid instance list' shows those of this host."
        )
    uuids = ", ".join(row.uuid for row in found[:5])
    raise errors.CepheidError(f"{name!r} may be any of {len(found)} instances: {uuids}; name one.")


def _domain(agent: Agent, row: Instance) -> str:
    if row.host != agent.host:
        return f"on {row.host}"
    try:
        return power_state.name(agent.driver("hypervisor").power_state(row.uuid))
    except DomainNotFound:
        return "none"
    except HypervisorError as err:
        return f"not known: {err}"
