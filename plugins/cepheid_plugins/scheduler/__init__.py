# SPDX-License-Identifier: Apache-2.0
"""Telling schedulers which instances a host has, and the receiving side of it.

Schedulers of one's own take :class:`HostManager` from here, and what feeds it from
:mod:`cepheid_plugins.scheduler.server`.
"""

from cepheid_plugins.scheduler.host_manager import HostManager

__all__ = ["HostManager"]
