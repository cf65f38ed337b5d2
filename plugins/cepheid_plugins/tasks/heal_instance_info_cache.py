# SPDX-License-Identifier: Apache-2.0
"""Bring what is cached of instances' networks into agreement with the networks, in rounds.

Reads instances, instance_info_caches and the network driver. Writes
instance_info_caches.network_info; binds ports to this host.
Source: Nova's _heal_instance_info_cache.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from oslo_config import cfg

import cepheid
from cepheid import progress
from cepheid.explanation import Kind
from cepheid.periodic_task import periodic_task
from cepheid.run import Raced, RunContext
from cepheid_plugins.compute import task_states, vm_states
from cepheid_plugins.database.records import InfoCache, Instance
from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import LookUp, NetworkError, NetworkUnavailable

if TYPE_CHECKING:
    from cepheid.agent import Agent

MINUTE_SECONDS = 60


class HealInstanceInfoCache(cepheid.Task):
    """Look up instances' networks in rounds, and correct what is cached of them."""

    options = [
        cfg.IntOpt(
            "instances_per_run",
            default=1,
            min=1,
            help="Instances that one run looks up. All of a host are looked up within their "
            "number, divided by this, times spacing.",
        ),
        cfg.IntOpt(
            "calls_per_minute",
            default=120,
            min=1,
            help="Calls to the network service in a minute after which no further instance is "
            "looked up. One takes up to five.",
        ),
    ]
    drivers = ("database", "network")
    nova_spacing = "heal_instance_info_cache_interval"
    time_limit = 300
    explains = {"instance": "instances of this host"}

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.database = agent.driver("database")
        self.network = agent.driver("network")
        #: Who is left of this round, in its order.
        self._left: deque[str] = deque()
        #: Calls of the last minute: when, and how many.
        self._calls: deque[tuple[float, int]] = deque()

    @periodic_task(spacing=60)
    def heal_instance_info_cache(self, context: RunContext) -> None:
        if self.conf.spacing == 0:
            # In Nova, too, 0 switches this one off.
            context.explain(None, "no network is looked up", rule="spacing")
            return
        if self.database.is_novas() and not self.network.is_of_cloud:
            context.notice(
                "driver",
                "this is Nova's database, so only Neutron knows the networks, and nothing is "
                "written; set [network] driver = neutron",
            )
            context.explain(
                None,
                "nothing is written: this is Nova's database, and only Neutron knows the networks",
                rule="[network] driver",
            )
            return
        if context.targets:
            chosen = self._asked(context)
        else:
            chosen = self._choose(self.conf.instances_per_run)
        context.count("instances", len(chosen))
        for number, one in enumerate(progress.each(chosen)):
            if not self._may_call():
                context.explain(
                    one.uuid,
                    "nobody more is looked up in this minute, so what is to be done is not known",
                    rule="calls_per_minute",
                    kind=Kind.UNKNOWN,
                    until="a later run",
                )
                self._put_back(context, chosen[number:])
                return
            if one.cache_id is None:
                context.skip(one.uuid, "it has no row in instance_info_caches")
                continue
            try:
                self._heal(context, one)
            except NetworkUnavailable:
                self._put_back(context, chosen[number + 1 :])
                raise
            except NetworkError as err:
                context.skip(one.uuid, str(err))

    def _choose(self, number: int) -> list[InfoCache]:
        """Return the next instances of this round, or the first ones of the next."""
        if not self._left:
            on_host = self.database.instances_on_host(self.agent.host)
            self._left.extend(row.uuid for row in on_host if _is_looked_up(row))
        chosen: list[InfoCache] = []
        while self._left and len(chosen) < number:
            wanted = min(number - len(chosen), len(self._left))
            uuids = list(islice(self._left, wanted))
            chosen += [one for one in self._caches(uuids) if self._is_ours(one)]
            for _ in uuids:
                self._left.popleft()
        return chosen

    def _caches(self, uuids: Sequence[str]) -> list[InfoCache]:
        """Return those of these instances that are there, in their order."""
        found = {one.uuid: one for one in self.database.info_caches(uuids)}
        return [found[uuid] for uuid in uuids if uuid in found]

    def _asked(self, context: RunContext) -> list[InfoCache]:
        """Return the instance that is asked about, as if it were its turn."""
        rows = self.database.instances_on_host(self.agent.host)
        runs = math.ceil(len(rows) / self.conf.instances_per_run)
        asked = context.asked(rows)
        for row in asked:
            if not _is_looked_up(row):
                state = row.task_state or row.vm_state
                context.explain(row.uuid, f"it is {state}, and not looked up meanwhile")
            elif runs > 1:
                context.explain(
                    row.uuid,
                    f"it is looked up in one of {runs} runs; this is what it comes to then",
                    rule="instances_per_run",
                    evidence={"instances": len(rows)},
                )
        return self._caches([row.uuid for row in asked if _is_looked_up(row)])

    def _is_ours(self, one: InfoCache) -> bool:
        return (
            not one.deleted
            and one.host == self.agent.host
            and one.task_state != task_states.DELETING
        )

    def _put_back(self, context: RunContext, chosen: list[InfoCache]) -> None:
        context.count("put_back", len(chosen))
        if context.targets:
            return  # a rehearsal leaves the round as it is
        self._left.extendleft(one.uuid for one in reversed(chosen))

    def _may_call(self) -> bool:
        now = self.agent.clock.monotonic()
        while self._calls and self._calls[0][0] <= now - MINUTE_SECONDS:
            self._calls.popleft()
        made = sum(calls for _, calls in self._calls)
        return bool(made < self.conf.calls_per_minute)

    def _heal(self, context: RunContext, one: InfoCache) -> None:
        before = self.network.calls
        try:
            self._look_up_and_write(context, one)
        finally:
            made = self.network.calls - before
            self._calls.append((self.agent.clock.monotonic(), made))
            context.count("calls", made)

    def _look_up_and_write(self, context: RunContext, one: InfoCache) -> None:
        cached = network_info.parsed(one.network_info)
        found: LookUp = self.network.look_up(one.uuid, cached, one.order)
        if found.misbound and one.task_state is None:
            port, why = next(iter(found.misbound.items()))
            bound = context.change(
                "rebind",
                one.uuid,
                sorted(found.misbound),
                self.agent.host,
                f"{one.display_name}: port {port}: {why}",
                do=lambda: self.network.rebind(one.uuid),
            )
            if bound.outcome == "done":
                found = self.network.look_up(one.uuid, cached, one.order)
        if list(found.vifs) == cached and one.network_info is not None:
            context.explain(
                one.uuid,
                "its network is as it is cached",
                until="one of the two changes",
                evidence={"interfaces": len(cached)},
            )
            return

        def write() -> None:
            if not self.database.update_info_cache(self.agent.host, one, list(found.vifs)):
                raise Raced

        context.change(
            "network_info",
            one.uuid,
            network_info.summary(cached),
            network_info.summary(found.vifs),
            f"{one.display_name}: its network differs",
            do=write,
        )


def _is_looked_up(row: Instance) -> bool:
    return row.vm_state != vm_states.BUILDING and row.task_state != task_states.DELETING
