# SPDX-License-Identifier: Apache-2.0
"""``cepheid host adopt``, ``cepheid instance adopt``, and what operators' commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cepheid import closed_files, errors
from cepheid.cli import cells, lists
from cepheid.run import Change, Run, RunContext
from cepheid_plugins.compute import opts, power_state, vm_states
from cepheid_plugins.database.records import Instance, NewInstance
from cepheid_plugins.hypervisor.driver import DomainDetails

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


class HostAdopt(lists.FittedLister):
    """Take the hypervisor's domains into the inventory; no domain is altered.

    A domain that the inventory knows already, on this host or another, is left as it is. One whose
    instance is deleted is not adopted, and named.
    """

    importance = ("Result", "Power state", "VM state", "Memory MiB", "vCPUs", "Disk GiB")
    shorter = {"UUID": cells.short_targets}

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--dry-run", action="store_true", help="show what would be adopted")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        with self.agent() as agent:
            agent.conf.register_opts(opts.OPTIONS, group="compute")
            run, rows, deleted = adopt(
                agent, parsed_args.dry_run, getattr(parsed_args, "domains", None)
            )
        if run.error:
            raise errors.AlreadyReported(run.error)
        adopted = [change for change in run.changes if change.outcome in ("done", "planned")]
        if len(adopted) < len(run.changes):
            self.exit_code = errors.CepheidError.exit_code  # the log has the reasons
        known = run.counters.get("known", 0)
        self.say(
            f"{len(adopted)} domain{'' if len(adopted) == 1 else 's'} "
            f"{'would be ' if run.dry_run else ''}adopted, "
            f"{known} known already"
            f"{f', {len(deleted)} deleted: not adopted, see the warning' if deleted else ''}"
        )
        if adopted:
            self.say(
                "Where people start and stop guests with virsh, set "
                "[sync_power_states] policy = follow: the inventory then follows the guests."
            )
        columns = ("UUID", "Name", "Power state", "VM state", "vCPUs", "Memory MiB", "Disk GiB",
                   "Result")  # fmt: skip
        results = {
            change.target: f"{change.outcome}: {change.error}" if change.error else change.outcome
            for change in run.changes
        }
        results |= dict.fromkeys(deleted, "deleted")
        shown: dict[str, NewInstance | Instance] = {**rows, **deleted}
        return columns, [
            (
                uuid,
                row.display_name,
                power_state.name(row.power_state),
                row.vm_state,
                row.vcpus,
                row.memory_mb,
                row.root_gb,
                results[uuid],
            )
            for uuid, row in shown.items()
        ]


class InstanceAdopt(HostAdopt):
    """Take some of the hypervisor's domains into the inventory; no domain is altered."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "domains", metavar="DOMAIN", nargs="+", help="its name or uuid in libvirt"
        )
        return parser


def refuse_on_nova(agent: Agent) -> None:
    """See that the inventory is cepheid's own.

    :raises CepheidError: it is Nova's
    """
    if agent.driver("database").version().owner == "nova":
        raise errors.CepheidError(
            "This database is Nova's: what becomes of an instance is decided through Nova's API."
        )


def operator_run(
    agent: Agent, name: str, dry_run: bool, function: Callable[[RunContext], object]
) -> Run:
    """Carry out an operator's command as a run, so that it is on record; return it."""
    run = Run(
        task=name,
        distribution="cepheid",
        trigger="operator",
        dry_run=dry_run,
        started_at=agent.clock.utcnow(),
    )
    return agent.runner.execute(run, function)


def adopt(
    agent: Agent, dry_run: bool, names: Sequence[str] | None = None
) -> tuple[Run, dict[str, NewInstance], dict[str, Instance]]:
    """Take the hypervisor's domains into the inventory.

    :param names: names or uuids of domains; None for all
    :return: the run with its changes, the instances by uuid, and of domains that are not adopted,
        since their instances are deleted, the rows with the domains' power states
    """
    rows: dict[str, NewInstance] = {}
    deleted: dict[str, Instance] = {}
    run = operator_run(
        agent, "host_adopt", dry_run, lambda context: _adopt(agent, context, names, rows, deleted)
    )
    return run, rows, deleted


def _adopt(
    agent: Agent,
    context: RunContext,
    names: Sequence[str] | None,
    new: dict[str, NewInstance],
    deleted: dict[str, Instance],
) -> None:
    hypervisor, database = agent.driver("hypervisor"), agent.driver("database")
    database.check()
    refuse_on_nova(agent)
    if not context.dry_run:
        # Tasks take it for storage that is not mounted if it is missing.
        path = agent.conf.compute.instances_path
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, closed_files.DIRECTORY_MODE)  # whatever the umask, as state_path
    domains = hypervisor.details()
    if names is not None:
        unknown = set(names) - {name for d in domains for name in (d.name, d.uuid)}
        if unknown:
            raise errors.CepheidError(
                f"The hypervisor has no domain {', '.join(sorted(unknown))}; 'virsh list --all' "
                "shows those it has. Nothing was adopted."
            )
        domains = [d for d in domains if d.name in names or d.uuid in names]
    known = {row.uuid: row for row in database.instances_by_uuid(d.uuid for d in domains)}
    for domain in domains:
        row = known.get(domain.uuid)
        if row is not None and row.deleted:
            deleted[domain.uuid] = row._replace(power_state=domain.power_state)
            context.skip(domain.uuid, _deleted(domain, row))
        elif row is not None:
            context.count("known")
            if row.host != agent.host:
                context.notice(
                    domain.uuid,
                    f"domain {domain.name} ({domain.uuid}) is here, the inventory has it on "
                    f"{row.host}; it is left so",
                )
        elif domain.power_state not in VM_STATE_OF:
            context.skip(domain.uuid, f"{domain.name} is in no state that can be adopted")
        else:
            new[domain.uuid] = _new_instance(agent.host, hypervisor.name, domain)

    def create(changes: list[Change]) -> dict[str, Any]:
        refused = database.create_instances([new[change.target] for change in changes])
        return {change.target: refused.get(change.target) for change in changes}

    context.change_many(
        "adopt",
        [
            Change(uuid, None, row.vm_state, f"{row.display_name}: a domain that no row knows")
            for uuid, row in new.items()
        ],
        create,
    )


def _deleted(domain: DomainDetails, row: Instance) -> str:
    """Return what an operator is told of a domain whose instance is deleted."""
    return (
        f"the instance of domain {domain.name} was deleted at {row.deleted_at}. "
        "cleanup_running_deleted_instances takes the domain for what is left of it, and removes "
        "it with its files where running_deleted_instance_action is reap; run_pending_deletes "
        f"removes what is in {row.uuid} of instances_path. If it is a guest that somebody has "
        "restored, define it under another uuid, with its disks elsewhere, and adopt it then"
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
