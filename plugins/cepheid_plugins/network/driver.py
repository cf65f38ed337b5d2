# SPDX-License-Identifier: Apache-2.0
"""What knows the networks of instances. A driver of kind ``network`` keeps this contract."""

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
    """The network service did not answer, or asks to be left alone for a while."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """What is known of an instance's network.

    :param vifs: its interfaces, as they are to be in the cache
    :param misbound: why its ports are not plugged in on this host, by port; none where they are
    """

    vifs: Sequence[Vif]
    misbound: Mapping[str, str]


class Network(abc.ABC):
    """The networks of instances. Usable by several threads.

    Every method may raise :class:`NetworkUnavailable` and :class:`NetworkError`.
    """

    #: Whether it knows the ports of a Nova cloud.
    is_of_cloud = False

    #: Calls to the network service so far.
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
