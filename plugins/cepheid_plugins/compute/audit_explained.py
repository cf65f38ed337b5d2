# SPDX-License-Identifier: Apache-2.0
"""What the next audits tell of one instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cepheid.explanation import Kind
from cepheid_plugins.compute import audit_periods, instance_exists
from cepheid_plugins.compute.audit_periods import AuditPeriod
from cepheid_plugins.database.records import AuditedInstance

if TYPE_CHECKING:
    from cepheid.agent import Agent
    from cepheid.run import RunContext

#: Instances whose uuids differ in the last digit only.
NEIGHBOURS = 16


def explain(
    context: RunContext, agent: Agent, due: Sequence[AuditPeriod], formats: Sequence[bool]
) -> None:
    """Say of an instance in which of the periods that are due it is told of.

    :param formats: of notifications: versioned or not
    """
    options = agent.conf.instance_usage_audit
    if not due:
        unit, now = options.instance_usage_audit_period, agent.clock.utcnow()
        last = audit_periods.last_completed(unit, now)
        context.explain(
            None,
            f"no audit is due: the period that ended at {last.end} has been audited, or is being",
            rule="instance_usage_audit_period",
        )
    for uuid in context.targets:
        for period in due:
            _explain(context, agent, uuid, period, formats)


def _explain(
    context: RunContext, agent: Agent, uuid: str, period: AuditPeriod, formats: Sequence[bool]
) -> None:
    with_devices = agent.conf.notifications.bdms_in_notifications
    words = f"{period.begin:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M} UTC"
    found = _audited(agent, uuid, period, with_devices)
    if found is None:
        return
    try:
        told = instance_exists.exists(found, period, formats, context.request_id, with_devices)
    except ValueError as err:
        context.explain(uuid, f"it cannot be told of in {words}: {err}", kind=Kind.SKIPS)
    else:
        evidence = {"begin": period.begin, "end": period.end}
        without = f", without networks: {told.missing}" if told.missing else ""
        context.explain(
            uuid, f"it is told of in {words}{without}", kind=Kind.COUNTS, evidence=evidence
        )


def _audited(
    agent: Agent, uuid: str, period: AuditPeriod, with_devices: bool
) -> AuditedInstance | None:
    """Return an instance as the audit of a period reads it; None where it is not in that."""
    database = agent.driver("database")
    place = database.place_of_audited(uuid)
    if place is None:
        return None
    # From right before its place on: a text comes before all that begin with it.
    before = (place[0], uuid[:-1])
    page = database.audited_instances(agent.host, period, before, NEIGHBOURS, with_devices)
    return next((one for one in page if one.facts.columns["uuid"] == uuid), None)
