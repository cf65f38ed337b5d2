# SPDX-License-Identifier: Apache-2.0
"""What tasks ask of a hypervisor. A driver of kind ``hypervisor`` keeps this contract."""

from __future__ import annotations

import abc
from collections import Counter
from dataclasses import dataclass

from cepheid import errors


class HypervisorError(errors.CepheidError):
    """The hypervisor refused a call; the text is its own."""


class HypervisorUnavailable(HypervisorError):
    """The hypervisor did not answer. Nothing is known of its domains."""


class DomainNotFound(HypervisorError):
    """The hypervisor answered that it has no such domain. Nothing else means that."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain in the list of all."""

    uuid: str
    name: str
    #: As in :mod:`cepheid_plugins.compute.power_state`; None for a state that has no number there.
    power_state: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a domain, as its definition says."""

    target: str
    #: The file or device behind it; None for a network disk or an empty drive.
    source: str | None


@dataclass(frozen=True, slots=True)
class DomainDetails:
    """What a domain is made of."""

    uuid: str
    name: str
    power_state: int | None
    vcpus: int
    memory_mib: int
    disks: tuple[Disk, ...]
    #: The sum of the virtual sizes of its disks; 0 where the hypervisor cannot tell.
    disk_bytes: int


class Hypervisor(abc.ABC):
    """A hypervisor and its domains, which are found by UUID.

    Every method may raise :class:`HypervisorUnavailable`, and those for one domain
    :class:`DomainNotFound`. Usable by several threads.
    """

    #: Calls that reached the hypervisor, by the name of libvirt's function.
    calls: Counter[str]

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The hypervisor's own host name."""

    @abc.abstractmethod
    def domains(self) -> dict[str, Domain]:
        """Return all domains, running or not, by UUID, in one call: all, or an error."""

    @abc.abstractmethod
    def power_state(self, uuid: str) -> int | None:
        """Return the power state of one domain."""

    @abc.abstractmethod
    def details(self) -> list[DomainDetails]:
        """Describe all domains; a domain that vanishes meanwhile is left out."""

    @abc.abstractmethod
    def shutdown(self, uuid: str) -> None:
        """Ask the guest to shut down (ACPI); it may not listen."""

    @abc.abstractmethod
    def power_off(self, uuid: str) -> None:
        """Stop the guest at once; one that is off or gone already is fine."""

    @abc.abstractmethod
    def start(self, uuid: str) -> None:
        """Start the guest."""

    @abc.abstractmethod
    def pause(self, uuid: str) -> None:
        """Halt the guest's virtual CPUs."""

    @abc.abstractmethod
    def resume(self, uuid: str) -> None:
        """Let a paused guest go on."""

    @abc.abstractmethod
    def check(self) -> None:
        """Connect, to find a mistake in the configuration early."""

    @abc.abstractmethod
    def close(self) -> None:
        """Disconnect."""
