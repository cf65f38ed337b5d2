# SPDX-License-Identifier: Apache-2.0
"""What the entry point names: the libvirt driver's options, and how it is built.

libvirt's library and lxml take time to import, and most commands ask no hypervisor. They are looked
for here, and imported when the driver is built: in an agent, with the tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cepheid import libraries
from cepheid_plugins.hypervisor import opts

if TYPE_CHECKING:
    from cepheid.agent import Agent

libraries.require("libvirt", "lxml")


class HypervisorFactory:
    """The domains behind ``[hypervisor] uri``; connects when it is first asked."""

    options = opts.OPTIONS

    def __call__(self, agent: Agent) -> Any:
        """Return the :class:`~.libvirt_driver.LibvirtHypervisor` of an agent.

        :raises PluginError: a library cannot be imported, though it is there
        """
        part = libraries.load_part(
            "cepheid_plugins.hypervisor.libvirt_driver",
            "Domains cannot be looked after",
            "choose another [hypervisor] driver",
        )
        return part.LibvirtHypervisor(agent)


hypervisor = HypervisorFactory()
