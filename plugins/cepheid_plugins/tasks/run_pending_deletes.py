# SPDX-License-Identifier: Apache-2.0
"""Remove what is left of the files of deleted instances.

Reads the directories of instances, instances with their clean_attempts, all domains and their
disks, and who has which files open. Removes files; writes clean_attempts, then instances.cleaned.
Source: Nova's _run_pending_deletes.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, RunContext
from cepheid_plugins.compute import opts
from cepheid_plugins.compute.leftovers import (
    Leftovers,
    by_uuid,
    directories,
    uuids_of,
)
from cepheid_plugins.compute.sightings import Sightings, say_doubts, why_doubtful
from cepheid_plugins.database.records import DeadInstance

if TYPE_CHECKING:
    from cepheid.agent import Agent


#: A pass asks the inventory of instances that are not clean, of files that are new here, and of
#: deletions since the last pass; as other hosts' clocks date these, of this much earlier ones too.
CLOCKS_DIFFER_BY = datetime.timedelta(hours=1)
#: Seconds after which a pass asks of all files again: an operator who marks a row deleted by hand
#: may give it any date.
ASK_OF_ALL_SECONDS = 3600


class RunPendingDeletes(cepheid.Task):
    """Remove what is left of the files of deleted instances."""

    options = [
        cfg.IntOpt(
            "maximum_instance_delete_attempts",
            default=5,
            min=1,
            deprecated_opts=[
                cfg.DeprecatedOpt("maximum_instance_delete_attempts", group="DEFAULT")
            ],
            help="How often the files of one deleted instance are tried to be removed, its "
            "deletion included.",
        ),
    ]
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    nova_spacing = "instance_delete_interval"
    max_changes = 20
    time_limit = 900
    explains = {
        "instance": "deleted instances of this host that are not known to be clean, or have files",
        "file": "directories of instances in instances_path and shelved_path",
    }

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.leftovers = Leftovers(agent)
        #: The uuids whose files were here in the last pass and that were not dead, and its time.
        self._known: Set[str] = frozenset()
        self._known_at: datetime.datetime | None = None
        self._ask_of_all_at = 0.0

    @periodic_task(spacing=300)
    def run_pending_deletes(self, context: RunContext) -> None:
        names = self.leftovers.names()
        here = uuids_of(names)
        if context.targets:  # a rehearsal asks of all, and must not change what is remembered
            rows = self.database.dead_instances(self.agent.host, here)
        else:
            rows = self._dead(here)
        context.count("instances", len(rows))
        if not rows and not context.targets:
            return
        entries = by_uuid(names)
        dead = {row.uuid for row in rows}
        for uuid in context.asked((uuid for uuid in entries if uuid not in dead), key=str):
            context.explain(
                uuid,
                f"it has {directories(entries[uuid])} here, and is no deleted instance of this "
                "host",
                rule="only the files of instances whose rows say that they are deleted, on this "
                "host",
                evidence={"directories": entries[uuid]},
            )
        if not rows:
            return
        live = self.database.instance_uuids_on_host(self.agent.host)
        doubts, seen = self.leftovers.doubts(live, write=not context.dry_run)
        if doubts:
            say_doubts(context, doubts)
            return
        maximum = self.conf.maximum_instance_delete_attempts
        plan = decide(rows, entries, maximum, seen)
        for uuid, reason in plan.skipped.items():
            context.skip(uuid, reason)
        context.count("given_up", len(plan.given_up))
        for row in plan.given_up:
            context.notice(
                row.uuid,
                f"the files of {row.display_name} ({row.uuid}), deleted at {row.deleted_at}, are "
                f"still there after {row.clean_attempts} attempts. Look why, and remove them, or "
                "raise maximum_instance_delete_attempts",
            )
        self._remove(context, plan.due, entries, maximum)
        self._mark(context, plan.clean)

    def _dead(self, here: Set[str]) -> list[DeadInstance]:
        """Return the dead instances of this host that are not clean, or have files here.

        :param here: the uuids of which there are files here
        """
        now, monotonic = self.agent.clock.utcnow(), self.agent.clock.monotonic()
        asked, since = here, None
        if self._known_at is not None and monotonic < self._ask_of_all_at:
            asked, since = here - self._known, self._known_at - CLOCKS_DIFFER_BY
        found = self.database.dead_instances(self.agent.host, asked, since)
        rows = [row for row in found if row.cleaned == 0 or row.uuid in here]
        if since is None:
            self._ask_of_all_at = monotonic + ASK_OF_ALL_SECONDS
        # The dead ones are not remembered as known, so each pass asks of them until they are gone.
        self._known, self._known_at = here - {row.uuid for row in rows}, now
        return rows

    def _remove(
        self,
        context: RunContext,
        due: Sequence[DeadInstance],
        entries: Mapping[str, Sequence[str]],
        maximum: int,
    ) -> None:
        if not due:
            return
        obstacles = self.leftovers.obstacles([row.uuid for row in due])
        for uuid, reason in obstacles.items():
            context.skip(uuid, f"it is deleted, and its files are kept: {reason}")
        free = {row.uuid: row for row in due if row.uuid not in obstacles}
        context.change_many(
            "delete_files",
            [
                Change(
                    row.uuid,
                    directories(entries[row.uuid]),
                    None,
                    f"{row.display_name}: deleted at {row.deleted_at:%Y-%m-%d %H:%M:%S}, attempt "
                    f"{attempts_of(row) + 1} of {maximum}",
                )
                for row in free.values()
            ],
            lambda changes: self._remove_now([free[change.target] for change in changes]),
        )

    def _remove_now(self, rows: Sequence[DeadInstance]) -> Mapping[str, Any]:
        uuids = [row.uuid for row in rows]
        dead = {
            row.uuid
            for row in self.database.deleted_instances(uuids)
            if row.host == self.agent.host
        }
        results = self.leftovers.remove(uuids, dead.__contains__)
        self.database.record_cleaning(
            {row.uuid: attempts_of(row) + 1 for row in rows if results[row.uuid] != "raced"},
            [uuid for uuid, result in results.items() if result is None],
        )
        return results

    def _mark(self, context: RunContext, clean: Sequence[DeadInstance]) -> None:
        """Record of which instances nothing is left any more."""
        context.change_many(
            "cleaned",
            [
                Change(row.uuid, row.cleaned, 1, f"{row.display_name}: no file of it is here")
                for row in clean
            ],
            lambda changes: self.database.record_cleaning(
                {}, [change.target for change in changes]
            ),
        )


@dataclass
class Plan:
    """What is to become of deleted instances."""

    #: Those whose files are to be removed.
    due: list[DeadInstance] = field(default_factory=list)
    #: Those of which there are no files here.
    clean: list[DeadInstance] = field(default_factory=list)
    #: Those that have been tried often enough.
    given_up: list[DeadInstance] = field(default_factory=list)
    #: Those that are left alone, and why.
    skipped: dict[str, str] = field(default_factory=dict)


def decide(
    rows: Sequence[DeadInstance],
    entries: Mapping[str, Sequence[str]],
    maximum: int,
    seen: Sightings,
) -> Plan:
    """Decide what is to become of deleted instances.

    Files are removed though `cleaned` is 1: that may have been written earlier, on another host or
    before the instance was unshelved.

    :param entries: by uuid, the directories that are here
    :param maximum: how often files are tried to be removed
    :param seen: who was alive on this host, and when
    """
    plan = Plan()
    for row in rows:
        why_not = _why_not(row, seen)
        if row.uuid not in entries:
            plan.clean.append(row)
        elif why_not:
            plan.skipped[row.uuid] = why_not
        elif attempts_of(row) >= maximum:
            plan.given_up.append(row)
        else:
            plan.due.append(row)
    return plan


def attempts_of(row: DeadInstance) -> int:
    """Return how often the files were tried to be removed since the instance was deleted.

    A count that was last written before the deletion may be from an earlier life of the instance.
    Of such a count only 1 is taken: the attempt that was made by the deletion itself.

    :raises ValueError: the count is no number
    """
    count = int(row.clean_attempts or 0)
    if row.attempted_at is None or row.deleted_at is None or row.attempted_at > row.deleted_at:
        return count
    return min(count, 1)


def _why_not(row: DeadInstance, seen: Sightings) -> str:
    """Return why the files of a deleted instance are left alone; nothing where they are not."""
    doubt = why_doubtful(row.uuid, row.deleted_at, seen, row.is_moving)
    if doubt:
        return doubt
    try:
        attempts_of(row)
    except ValueError:
        return f"its clean_attempts is {row.clean_attempts!r}, which is no number"
    return ""
