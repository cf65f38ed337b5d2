# SPDX-License-Identifier: Apache-2.0
"""Report, power off or remove domains whose instances are deleted.

Reads instances, all domains in one call, and what the agent has seen of its host. Removes domains
and files; writes instances.cleaned.
Source: Nova's _cleanup_running_deleted_instances.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import domain_names, opts, power_state
from cepheid_plugins.compute.ages import older_than
from cepheid_plugins.compute.reaping import ReapingOperations
from cepheid_plugins.compute.sightings import (
    Sightings,
    SightingsFile,
    doubts_of,
    say_doubts,
    why_doubtful,
)
from cepheid_plugins.compute.turns import Turns
from cepheid_plugins.database.records import DeletedInstance
from cepheid_plugins.hypervisor.driver import DomainNotFound

if TYPE_CHECKING:
    from cepheid.agent import Agent


class CleanupRunningDeletedInstances(cepheid.Task):
    """Report, power off or remove domains whose instances are deleted."""

    options = [
        cfg.StrOpt(
            "running_deleted_instance_action",
            default="log",
            choices=[
                ("noop", "nothing, and nothing is read"),
                ("log", "say which they are"),
                ("shutdown", "power them off at once"),
                ("reap", "remove them with their files"),
            ],
            deprecated_opts=[cfg.DeprecatedOpt("running_deleted_instance_action", group="DEFAULT")],
            help="What to do about domains whose instances are deleted.",
        ),
        cfg.IntOpt(
            "running_deleted_instance_timeout",
            default=0,
            min=0,
            deprecated_opts=[
                cfg.DeprecatedOpt("running_deleted_instance_timeout", group="DEFAULT")
            ],
            help="Seconds after the deletion of its instance at which a domain counts as left "
            "over.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    nova_spacing = "running_deleted_instance_poll_interval"
    max_changes = 5
    time_limit = 900
    explains = {"instance": "domains of this host whose instances are deleted"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.hypervisor = agent.driver("hypervisor")
        self.operations = ReapingOperations(agent)
        self.file = SightingsFile(agent.conf.state_path)
        self._turns = Turns.of(self)

    @periodic_task(spacing=1800, run_immediately=True)
    def cleanup_running_deleted_instances(self, context: RunContext) -> None:
        # Once: a reload in the middle of a pass is for the next one.
        action = self.conf.running_deleted_instance_action
        if action == "noop":
            context.explain(None, "no domain is looked at", rule="running_deleted_instance_action")
            return
        self.database.check_clock()
        # The time first: whoever is deleted from here on is not seen alive after that, and is not
        # old enough for this pass.
        now = self.agent.clock.utcnow()
        # The domains before their rows: whose row is deleted then had a domain all the same.
        domains = self.hypervisor.domain_names()
        live, deleted, alive_elsewhere = self.database.fates(self.agent.host, domains)
        context.count("domains", len(domains))
        sightings = self.file.read()
        doubts = doubts_of(self.agent, sightings, live)
        left_over = self._left_over(context, sightings, deleted, domains, now)
        if doubts:
            confirmed: set[str] = set()
        else:
            confirmed = sightings.suspect((row.uuid for row in left_over), now)
            sightings.look(
                self.agent.host, self.hypervisor.identity, live, alive_elsewhere, domains, now,
                [uuid for uuid, deleted_at in live.items() if deleted_at],
            )  # fmt: skip
            if not context.dry_run:
                self.file.write(sightings)
        context.count("left_over", len(left_over))
        self._act(context, action, left_over, confirmed, doubts)

    def _left_over(
        self,
        context: RunContext,
        sightings: Sightings,
        deleted: Sequence[DeletedInstance],
        domains: Mapping[str, str],
        now: datetime.datetime,
    ) -> list[DeletedInstance]:
        """Return the deleted instances whose domains are left over, for all that is known.

        :param domains: their names, by uuid
        """
        ages = older_than(self.conf.running_deleted_instance_timeout, deleted, "deleted_at", now)
        ages.explain(context, "deleted", "running_deleted_instance_timeout")
        for row in ages.unknown:
            context.skip(row.uuid, "it is deleted, and its deleted_at is NULL")
        found = []
        template = self.agent.conf.compute.instance_name_template
        for row in ages.old:
            doubt = why_doubtful(row.uuid, row.deleted_at, sightings)
            if doubt:
                context.skip(row.uuid, doubt)
            elif not self._is_ours(row, domains[row.uuid], template):
                context.skip(
                    row.uuid,
                    f"the domain {domains[row.uuid]} has the uuid of a deleted instance, and "
                    "neither its name nor Nova's metadata: somebody else made it",
                )
            else:
                found.append(row)
        return found

    def _is_ours(self, row: DeletedInstance, domain_name: str, template: str) -> bool:
        """Tell whether a domain is the one that the inventory means, not only by its uuid.

        :param template: ``[compute] instance_name_template``
        """
        if domain_name in (row.display_name, domain_names.by_template(template, row.id)):
            return True
        try:
            return bool(self.hypervisor.is_novas(row.uuid))
        except DomainNotFound:
            return False

    def _act(
        self,
        context: RunContext,
        action: str,
        left_over: Sequence[DeletedInstance],
        confirmed: set[str],
        doubts: str,
    ) -> None:
        if doubts:
            say_doubts(context, doubts)
        for row in left_over:
            context.notice(
                row.uuid,
                f"{row.display_name} ({row.uuid}) was deleted at {row.deleted_at} and still has a "
                f"domain (action {action})",
            )
        if action == "log":
            return
        sure = {row.uuid: row for row in left_over if row.uuid in confirmed}
        for row in context.asked(left_over if not doubts else ()):
            if row.uuid not in sure:
                context.explain(
                    row.uuid,
                    "its domain is left over, and that is seen for the first time",
                    rule="what is to be destroyed must be seen as left over in two passes",
                    until="the run after the next one, which remembers it",
                )
        # What is left over for the first time may be a mistake that the next pass does not find.
        context.count("first_seen", len(left_over) - len(sure) if not doubts else 0)
        if action == "shutdown":
            self._power_off(context, sure)
        elif action == "reap":
            self._reap(context, sure)

    def _reap(self, context: RunContext, sure: Mapping[str, DeletedInstance]) -> None:
        due = self._in_turn(sure)
        foreseen = self.operations.foreseen(context, due, self.conf.max_changes)
        kept = self.operations.obstacles(foreseen) if foreseen else {}
        context.change_many(
            "reap",
            _changes(due, "deleted, with a domain", None, kept),
            lambda changes: self.operations.reap([change.target for change in changes]),
        )
        self._turns.enter(sure, context.failed())

    def _power_off(self, context: RunContext, sure: Mapping[str, DeletedInstance]) -> None:
        domains = self.hypervisor.domains() if sure else {}
        running = {
            uuid: row
            for uuid, row in sure.items()
            if uuid in domains and domains[uuid].power_state not in power_state.OFF
        }
        for row in context.asked(row for uuid, row in sure.items() if uuid not in running):
            context.explain(
                row.uuid,
                "its domain is left over, and off already",
                rule="running_deleted_instance_action",
            )
        context.change_many(
            "power_off",
            _changes(self._in_turn(running), "deleted, with a running domain", "shut down"),
            lambda changes: self.operations.power_off_deleted(
                [change.target for change in changes]
            ),
        )
        self._turns.enter(running, context.failed())

    def _in_turn(self, rows: Mapping[str, DeletedInstance]) -> list[DeletedInstance]:
        return [rows[uuid] for uuid in self._turns.in_order(rows)]


def _changes(
    rows: Iterable[DeletedInstance],
    before: str,
    after: str | None,
    kept: Mapping[str, str] = MappingProxyType({}),
) -> list[Change]:
    """Return the changes of rows.

    :param kept: why some would not be changed after all, by uuid
    """
    return [
        Change(
            row.uuid,
            before,
            after,
            f"{row.display_name}: deleted at {row.deleted_at}"
            + (f"; it would be kept: {kept[row.uuid]}" if row.uuid in kept else ""),
        )
        for row in rows
    ]
