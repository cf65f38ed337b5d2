# SPDX-License-Identifier: Apache-2.0
"""``cepheid host adopt`` and ``cepheid instance list | show``."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.cli import base
from cepheid.run import Change, Run, RunContext
from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.database.records import Instance, NewInstance
from cepheid_plugins.hypervisor.driver import DomainDetails, DomainNotFound, HypervisorError

if TYPE_CHECKING:
    from cepheid.agent import Agent

#: The vm_state that a domain of each power state is adopted with. Not adopted: any other.
VM_STATE_OF = {
    power_state.RUNNING: vm_states.ACTIVE,
    power_state.PAUSED: vm_states.PAUSED,
    power_state.SHUTDOWN: vm_states.STOPPED,
    power_state.CRASHED: vm_states.STOPPED,
    power_state.SUSPENDED: vm_states.ACTIVE,
}


class HostAdopt(base.Lister):
    """Take the hypervisor's domains into the inventory; no domain is altered.

    A domain that the inventory knows already, on this host or another, is left as it is.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--dry-run", action="store_true", help="show what would be adopted")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            run = adopt(agent, dry_run=parsed_args.dry_run)
        if run.error:
            raise errors.AlreadyReported(run.error)
        adopted = [change for change in run.changes if change.outcome in ("done", "planned")]
        known = run.counters.get("known", 0)
        self.say(
            f"{len(adopted)} domains {'would be ' if run.dry_run else ''}adopted, "
            f"{known} known already"
        )
        if adopted:
            self.say(
                "Where people start and stop guests with virsh, set "
                "[sync_power_states] policy = follow: the inventory then follows the guests."
            )
        columns = ("UUID", "Name", "Power state", "VM state", "vCPUs", "Memory MiB", "Disk GiB",
                   "Result")  # fmt: skip
        return columns, [
            (
                change.target,
                change.after["display_name"],
                power_state.NAMES[change.after["power_state"]],
                change.after["vm_state"],
                change.after["vcpus"],
                change.after["memory_mb"],
                change.after["root_gb"],
                f"{change.outcome}: {change.error}" if change.error else change.outcome,
            )
            for change in run.changes
        ]


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


def adopt(agent: Agent, dry_run: bool) -> Run:
    """Take the hypervisor's domains into the inventory; return the run with its changes."""
    run = Run(
        task="host_adopt",
        distribution="cepheid",
        trigger="operator",
        dry_run=dry_run,
        started_at=agent.clock.utcnow(),
    )
    return agent.runner.execute(run, lambda context: _adopt(agent, context))


def _adopt(agent: Agent, context: RunContext) -> None:
    hypervisor, database = agent.driver("hypervisor"), agent.driver("database")
    database.check()
    if database.version().owner == "nova":
        raise errors.CepheidError(
            "This database is Nova's: an instance comes into it through Nova's API, not by "
            "adoption."
        )
    domains = hypervisor.details()
    known = {row.uuid: row for row in database.instances_by_uuid(d.uuid for d in domains)}
    new: dict[str, NewInstance] = {}
    for domain in domains:
        row = known.get(domain.uuid)
        if row is not None:
            context.count("known")
            if row.host != agent.host and not row.deleted:
                context.notice(
                    domain.uuid,
                    f"domain {domain.name} ({domain.uuid}) is here, the inventory has it on "
                    f"{row.host}; it is left so",
                )
        elif domain.power_state not in VM_STATE_OF:
            context.skip(domain.uuid, f"{domain.name} is in no state that can be adopted")
        else:
            new[domain.uuid] = _new_instance(agent.host, hypervisor.name, domain)
    context.change_many(
        "adopt",
        [
            Change(uuid, None, dataclasses.asdict(row), "a domain that no row knows")
            for uuid, row in new.items()
        ],
        lambda changes: database.create_instances([new[c.target] for c in changes]),
    )


def _new_instance(host: str, node: str, domain: DomainDetails) -> NewInstance:
    assert domain.power_state is not None
    return NewInstance(
        uuid=domain.uuid,
        display_name=domain.name,
        host=host,
        node=node,
        vm_state=VM_STATE_OF[domain.power_state],
        power_state=domain.power_state,
        vcpus=domain.vcpus,
        memory_mb=domain.memory_mib,
        root_gb=-(-domain.disk_bytes // 2**30),
    )


def _domain(agent: Agent, row: Instance) -> str:
    if row.host != agent.host:
        return f"on {row.host}"
    try:
        return power_state.name(agent.driver("hypervisor").power_state(row.uuid))
    except DomainNotFound:
        return "none"
    except HypervisorError as err:
        return f"not known: {err}"
