# SPDX-License-Identifier: Apache-2.0
"""The contract of a driver of kind ``network``: what knows the networks of instances."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid import errors

#: An interface as it is in instance_info_caches.network_info, see :mod:`.network_info`.
Vif = dict[str, Any]


class NetworkError(errors.CepheidError):
    """The network service refused a call; the text is its own."""


class NetworkUnavailable(NetworkError):
    """The network service did not answer, or refuses all calls for a while."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """What is known of an instance's network.

    :param vifs: its interfaces, as they are to be in the cache
    :param misbound: by the id of a port that is not bound to this host, why not
    """

    vifs: Sequence[Vif]
    misbound: Mapping[str, str]


class Network(abc.ABC):
    """The networks of instances. Usable by several threads.

    Every method may raise :class:`NetworkUnavailable` and :class:`NetworkError`.
    """

    #: Whether the networks are those of a Nova cloud, which has ports.
    is_of_cloud = False

    #: How many calls were made to the network service so far.
    calls: int

    @abc.abstractmethod
    def look_up(self, uuid: str, cached: Sequence[Vif], order: Sequence[str]) -> LookUp:
        """Look up an instance's network.

        :param cached: its interfaces as they are in the cache, in the guest's order
        :param order: ids of interfaces in the guest's order, as far as they are known elsewhere
        """

    @abc.abstractmethod
    def rebind(self, uuid: str) -> None:
        """Bind all ports of an instance to this host."""
