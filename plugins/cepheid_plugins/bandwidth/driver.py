# SPDX-License-Identifier: Apache-2.0
"""The contract of a driver of kind ``bandwidth``: a meter of instances' traffic.

This module needs the core alone, so a vendor's meter can be installed without libvirt or a
database.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cepheid import errors

if TYPE_CHECKING:
    from cepheid.agent import Agent


class MeterError(errors.CepheidError):
    """The meter cannot be read; nothing is known of any counter."""


class MeteredInterface(NamedTuple):
    """A network interface, as the inventory has it.

    :param mac: in lower case
    :param devname: its device on the host, such as ``tap7da997bc-21``; empty where unknown
    """

    mac: str
    devname: str


class MeteredInstance(NamedTuple):
    """An instance whose traffic is asked for."""

    uuid: str
    interfaces: tuple[MeteredInterface, ...]


class InterfaceCounters(NamedTuple):
    """What went through an interface since its guest was started, as the guest sees it.

    :param uuid: of the instance
    :param mac: in lower case
    :param in_bytes: that the guest received
    :param out_bytes: that the guest sent
    """

    uuid: str
    mac: str
    in_bytes: int
    out_bytes: int


class BandwidthMeter(abc.ABC):
    """Reads the counters of instances' interfaces.

    Offered as an entry point in ``cepheid.bandwidth`` and chosen with ``[bandwidth] driver``. A
    class attribute ``options``, a list of oslo.config options, is registered in that group.
    """

    #: Whether :meth:`read` needs the interfaces of the inventory. If not, they are not read, and
    #: each instance comes without any.
    wants_interfaces = True

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    @abc.abstractmethod
    def read(self, instances: Sequence[MeteredInstance]) -> Iterable[InterfaceCounters]:
        """Return the counters of these instances' interfaces, in a fixed number of look-ups.

        An interface that is not there, or whose guest is off, is left out.

        :raises MeterError: they cannot be read
        """
