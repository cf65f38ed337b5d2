# SPDX-License-Identifier: Apache-2.0
"""Shutting guests down: asked together, waited for together, powered off if they do not follow."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cepheid import progress
from cepheid_plugins.compute import power_state
from cepheid_plugins.hypervisor.driver import (
    Domain,
    DomainNotFound,
    HypervisorError,
    HypervisorUnavailable,
)

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: Seconds between two looks at guests that are shutting down.
POLL_SECONDS = 1

#: Where an image's own time-out is kept.
SHUTDOWN_TIMEOUT_KEY = "image_os_shutdown_timeout"


class Shutdown:
    """Brings guests down in the way that is gentlest in their time."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._clock = agent.clock
        self._database = agent.driver("database")
        self._hypervisor = agent.driver("hypervisor")

    def timeouts(self, uuids: Sequence[str]) -> dict[str, int]:
        """Return the seconds that each guest has to shut down by itself."""
        default = self._agent.conf.compute.shutdown_timeout
        timeouts = dict.fromkeys(uuids, default)
        own = self._database.system_metadata(uuids, SHUTDOWN_TIMEOUT_KEY)
        timeouts.update({uuid: int(text) for uuid, text in own.items() if text.isdecimal()})
        return timeouts

    def shut_down(self, timeouts: Mapping[str, int]) -> tuple[dict[str, int], dict[str, Exception]]:
        """Bring guests down, each within its seconds.

        :return: the power state of each that is off, and what each other failed with
        """
        states: dict[str, int] = {}
        failures: dict[str, Exception] = {}
        try:
            self._wait(timeouts, failures)
            domains = self._hypervisor.domains()
            for uuid in timeouts.keys() - failures.keys():
                state = self._state(uuid, domains)
                if state is not None and state in power_state.OFF:
                    states[uuid] = state
                else:
                    failures[uuid] = HypervisorError(
                        f"{uuid} did not stop: it is {power_state.name(state)}"
                    )
        except HypervisorError as err:
            left = timeouts.keys() - states.keys() - failures.keys()
            failures.update(dict.fromkeys(left, err))
        return states, failures

    def _wait(self, timeouts: Mapping[str, int], failures: dict[str, Exception]) -> None:
        started = next_signal = self._clock.monotonic()
        waiting = set(timeouts)
        steps = progress.Steps(len(timeouts))
        while True:
            domains = self._hypervisor.domains()
            waiting = {u for u in waiting if self._state(u, domains) not in power_state.OFF}
            now = self._clock.monotonic()
            for uuid in sorted(u for u in waiting if now >= started + timeouts[u]):
                waiting.remove(uuid)
                self._power_off(uuid, failures)
            steps.done(len(timeouts) - len(waiting))
            if not waiting:
                return
            if now >= next_signal:
                self._signal(waiting)
                next_signal = now + self._agent.conf.compute.shutdown_retry_interval
            self._clock.sleep(POLL_SECONDS)

    def _signal(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            try:
                self._hypervisor.shutdown(uuid)
            except HypervisorError as err:
                # It may have gone down meanwhile, and is powered off in the end anyway.
                LOG.debug("%s was not asked to shut down: %s", uuid, err)

    def _power_off(self, uuid: str, failures: dict[str, Exception]) -> None:
        LOG.info("%s did not shut down in time and is powered off", uuid)
        try:
            self._hypervisor.power_off(uuid)
        except HypervisorUnavailable:
            raise
        except HypervisorError as err:
            failures[uuid] = err

    def _state(self, uuid: str, domains: Mapping[str, Domain]) -> int | None:
        """Return a guest's power state; only the hypervisor's word makes a domain gone."""
        if uuid in domains:
            return domains[uuid].power_state
        try:
            return self._hypervisor.power_state(uuid)  # type: ignore[no-any-return]
        except DomainNotFound:
            return power_state.NOSTATE
