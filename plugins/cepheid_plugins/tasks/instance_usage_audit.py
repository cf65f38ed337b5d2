# SPDX-License-Identifier: Apache-2.0
"""Tell of every instance that existed in an audit period that is over, once for each period.

Reads task_log, the instances of the period with what hangs on them, and bw_usage_cache. Writes
task_log, whose row is the lock; sends compute.instance.exists and instance.exists.
Source: Nova's _instance_usage_audit.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from oslo_config import cfg

import cepheid
from cepheid import errors
from cepheid.periodic_task import periodic_task
from cepheid.progress import Steps
from cepheid.run import Raced, RunContext
from cepheid_plugins.compute import audit_explained, audit_periods, instance_exists
from cepheid_plugins.compute.audit_periods import AuditPeriod
from cepheid_plugins.compute.notifications import Notifications
from cepheid_plugins.database.records import AuditedInstance, AuditLog
from cepheid_plugins.notifications import opts

if TYPE_CHECKING:
    from cepheid.agent import Agent

RUNNING, DONE = "RUNNING", "DONE"

#: How many instances are read, and told of, at a time.
PAGE = 200

#: How long an audit that another agent has begun may stand still before the operator is warned.
SILENCE = datetime.timedelta(hours=1)

#: The most characters that ``task_log.message`` holds.
MESSAGE_LENGTH = 255


class Progress(NamedTuple):
    """How far an audit is; its row's message says so while it goes on.

    :param request_id: of the run that works on it
    :param items: how many instances were told of, or could not be told of
    :param errors: how many of these could not be told of
    :param last: the uuid of the last of them; empty before the first
    """

    request_id: str
    items: int = 0
    errors: int = 0
    last: str = ""

    def message(self) -> str:
        """Return it as text; the first words are those that Nova writes there."""
        return (
            f"Instance usage audit started... {self.request_id}: {self.items} instances, "
            f"{self.errors} errors, last {self.last or 'none'}"
        )

    @classmethod
    def of(cls, log: AuditLog) -> Progress | None:
        """Read a row's message; None for a row that Nova wrote."""
        found = re.fullmatch(
            r"Instance usage audit started\.\.\. (\S+): (\d+) instances, (\d+) errors, last (\S+)",
            log.message,
        )
        if not found:
            return None
        last = "" if found[4] == "none" else found[4]
        return cls(found[1], int(found[2]), int(found[3]), last)


class InstanceUsageAudit(cepheid.Task):
    """Tell of every instance that existed in an audit period."""

    options = [
        cfg.BoolOpt(
            "enabled",
            default=False,
            deprecated_opts=[cfg.DeprecatedOpt("instance_usage_audit", group="DEFAULT")],
            help="Run this task. It must be among enabled_tasks as well.",
        ),
        audit_periods.OPTION,
        cfg.IntOpt(
            "catch_up_periods",
            default=3,
            min=0,
            max=1000,
            help="The most periods before the last one that are audited as well, the newest of "
            "those that have passed since the last audit on record. 0: none, as in Nova.",
        ),
    ]
    shared_options = [("notifications", opts.OPTIONS)]
    drivers = ("database",)
    time_limit = 1800
    explains = {"instance": "instances that existed on this host in an audit period that is over"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.notifications = Notifications(agent)

    @periodic_task
    def instance_usage_audit(self, context: RunContext) -> None:
        formats = [one for one in (False, True) if self.notifications.wanted(one)]
        if not formats and not self.notifications.are_silenced():
            raise errors.ConfigError(
                "Nobody would be told of any instance: set [oslo_messaging_notifications] driver "
                "to messagingv2 or log; or to noop, to have periods recorded as audited only."
            )
        due = self._due(context)
        if context.targets:
            audit_explained.explain(context, self.agent, [period for period, _ in due], formats)
        for period, log in due:
            items = self.database.count_audited(self.agent.host, period)
            audit = Audit(self, context, period, formats)
            change = context.change(
                "usage_audit",
                self.agent.host,
                log.state if log else None,
                DONE,
                f"{in_words(period)}: {items} instance{'' if items == 1 else 's'}",
                do=functools.partial(audit.carry_out, log, items),
            )
            if change.outcome not in ("done", "planned"):
                return  # What is left waits for the next run, so that the oldest goes first.

    def _due(self, context: RunContext) -> list[tuple[AuditPeriod, AuditLog | None]]:
        """Return the periods that are to be audited, oldest first, with the rows they have."""
        host = self.agent.host
        periods = audit_periods.completed(
            self.conf.instance_usage_audit_period,
            self.agent.clock.utcnow(),
            1 + self.conf.catch_up_periods,
        )
        logs = self.database.audit_logs(host, periods[0].begin)
        known = {period_of(log) for log in logs}
        unfinished = [log for log in logs if log.state == RUNNING]
        missed: list[AuditPeriod] = []
        if periods[-1] not in known:
            unfinished, audited_until = self.database.audit_history(host, periods[-1].begin)
            missed = [one for one in since(audited_until, periods) if one not in known]
        left = [(period_of(log), log) for log in self._ours(context, unfinished)]
        return sorted([*left, *((period, None) for period in missed)], key=lambda due: due[0])

    def _ours(self, context: RunContext, unfinished: Iterable[AuditLog]) -> list[AuditLog]:
        """Return the audits that a run of this host has left; name those that another has.

        A run that is on record here has told what it has told from here, so what is told again is
        passed over. And it goes on no more, since this one has the task's lock.
        """
        progress = {log.id: Progress.of(log) for log in unfinished}
        requests = {log_id: found.request_id for log_id, found in progress.items() if found}
        ended = self.agent.runner.ended_requests(requests.values()) if requests else set()
        now, ours = self.agent.clock.utcnow(), []
        for log in unfinished:
            seen_at = log.updated_at or log.created_at
            if requests.get(log.id) in ended:
                ours.append(log)
            elif seen_at is None or now - seen_at > SILENCE:
                context.notice(
                    ("left", log.id),
                    f"the audit of {in_words(period_of(log))} was begun by another service or "
                    "machine and has not ended. If nobody is at it any more, delete row "
                    f"{log.id} of task_log, and it is done anew here.",
                )
        return ours


class Audit:
    """One audit of one period. One that was killed at any step can be carried on with."""

    def __init__(
        self, task: InstanceUsageAudit, context: RunContext, period: AuditPeriod,
        formats: Sequence[bool],
    ) -> None:  # fmt: skip
        self._context = context
        self._period = period
        self._formats = formats
        self._database = task.database
        self._notifications = task.notifications
        self._clock = task.agent.clock
        self._host = task.agent.host
        self._with_devices = task.agent.conf.notifications.bdms_in_notifications

    def carry_out(self, log: AuditLog | None, items: int) -> None:
        """Begin the audit or carry on with it, tell of the instances, and end it.

        :param log: its row, where it was begun
        :param items: how many instances there are
        :raises Raced: it is another's
        :raises NotificationsRefused: no more can be taken now; the next run carries on
        """
        started = self._clock.monotonic()
        progress = self._begin(items) if log is None else self._take_over(log)
        after = self._database.place_of_audited(progress.last) if progress.last else None
        if after is None:
            # The instance is gone from the table: what was told already is passed over.
            progress = self._save(progress, Progress(progress.request_id))
        steps = Steps(items)
        steps.done(progress.items)
        recorded = progress
        while True:
            page = self._database.audited_instances(
                self._host, self._period, after, PAGE, self._with_devices
            )
            progress = self._tell(page, progress)
            steps.done(progress.items)
            if len(page) < PAGE:
                break  # What was told of the last page is recorded with the end of the audit.
            # Who is killed before this tells of the page again, with the same message ids.
            recorded = self._save(recorded, progress)
            row = page[-1].facts.columns
            after = (row["project_id"] or "", row["uuid"])
            self._clock.sleep(0)
        self._end(recorded, progress, self._clock.monotonic() - started)

    def _begin(self, items: int) -> Progress:
        progress = Progress(self._context.request_id)
        if not self._database.begin_audit(self._host, self._period, progress.message(), items):
            raise Raced
        return progress

    def _take_over(self, log: AuditLog) -> Progress:
        before = Progress.of(log)
        assert before is not None
        return self._save(before, before._replace(request_id=self._context.request_id))

    def _save(self, before: Progress, progress: Progress) -> Progress:
        if progress != before and not self._database.update_audit(
            self._host, self._period, before.message(), progress.message(), progress.errors
        ):
            raise Raced
        return progress

    def _tell(self, page: Sequence[AuditedInstance], progress: Progress) -> Progress:
        """Tell of instances, all or none; return the progress with them."""
        notifications, failed, last = [], 0, progress.last
        for instance in page:
            last = instance.facts.columns["uuid"]
            try:
                told = instance_exists.exists(
                    instance, self._period, self._formats, self._context.request_id,
                    self._with_devices,
                )  # fmt: skip
                notifications += told.notifications
                if told.missing:
                    said = f"{last} is told of without networks: {told.missing}"
                    self._context.notice(("networks", last), said)
            except ValueError as err:
                failed += 1
                self._context.skip(last, str(err))
        self._notifications.send(notifications)
        self._context.count("notifications", len(notifications))
        return progress._replace(
            items=progress.items + len(page), errors=progress.errors + failed, last=last
        )

    def _end(self, recorded: Progress, progress: Progress, seconds: float) -> None:
        message = (
            f"Instance usage audit ran for host {self._host}, {progress.items} instances in "
            f"{seconds} seconds."
        )
        if not self._database.end_audit(
            self._host, self._period, recorded.message(), message[:MESSAGE_LENGTH],
            progress.items, progress.errors,
        ):  # fmt: skip
            raise Raced


def since(
    audited_until: datetime.datetime | None, periods: Sequence[AuditPeriod]
) -> list[AuditPeriod]:
    """Return which of these periods are to be audited: the last, and those missed before it.

    :param audited_until: when the newest period on record ends that was over when the last of
        these began. Where there is none, this host has been audited never before, and missed none
    """
    *earlier, last = periods
    if audited_until is None:
        return [last]
    return [*(one for one in earlier if one.begin >= audited_until), last]


def period_of(log: AuditLog) -> AuditPeriod:
    """Return the period that a row is about."""
    return AuditPeriod(log.period_beginning, log.period_ending)


def in_words(period: AuditPeriod) -> str:
    """Return a period as an operator reads it."""
    return f"{period.begin:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M} UTC"
