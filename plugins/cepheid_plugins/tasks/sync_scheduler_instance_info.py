# SPDX-License-Identifier: Apache-2.0
"""Tell schedulers which instances this host has, so that they notice where they are wrong.

Reads instances. Writes nothing; sends one message.
Source: Nova's _sync_scheduler_instance_info.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid.explanation import Kind
from cepheid.periodic_task import periodic_task
from cepheid.run import RunContext

if TYPE_CHECKING:
    from cepheid.agent import Agent


class SyncSchedulerInstanceInfo(cepheid.Task):
    """Tell schedulers which instances this host has."""

    options = [
        cfg.BoolOpt(
            "track_instance_changes",
            default=True,
            deprecated_opts=[
                cfg.DeprecatedOpt("track_instance_changes", group="filter_scheduler"),
                cfg.DeprecatedOpt("scheduler_tracks_instance_changes", group="DEFAULT"),
            ],
            help="Tell schedulers at all. Switch it off where the message broker of this host is "
            "not the schedulers' own.",
        ),
    ]
    drivers = ("database", "scheduler")
    nova_spacing = "scheduler_instance_sync_interval"
    time_limit = 120
    explains = {"instance": "instances of this host"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.scheduler = agent.driver("scheduler")

    @periodic_task(spacing=120)
    def sync_scheduler_instance_info(self, context: RunContext) -> None:
        if not self.conf.track_instance_changes or not self.scheduler.enabled:
            context.explain(
                None,
                "schedulers are not told of any instance"
                + ("" if self.scheduler.enabled else ": [scheduler] driver tells none"),
                rule="track_instance_changes",
            )
            return
        uuids = self.database.instance_uuids_on_host(self.agent.host)
        context.count("instances", len(uuids))
        for uuid in context.asked(uuids, key=str):
            context.explain(
                uuid,
                "schedulers are told that this host has it",
                kind=Kind.COUNTS,
                evidence={"instances": len(uuids)},
            )
        if context.dry_run:
            context.count("planned")
            return
        # A message, not a change: it leaves nothing behind that a history should keep, every two
        # minutes, and where it cannot be sent, that is a failed run.
        self.scheduler.sync_instance_info(self.agent.host, uuids, context.request_id)
        context.count("sent")
