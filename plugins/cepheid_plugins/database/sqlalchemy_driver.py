# SPDX-License-Identifier: Apache-2.0
"""What the entry point names: the database driver's options, and how it is built.

SQLAlchemy and oslo.db take as long to import as all the rest of a command, and most commands ask
no database. They are looked for here, and imported when the driver is built: in an agent, with
the tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cepheid import libraries
from cepheid_plugins.database import opts

if TYPE_CHECKING:
    from cepheid.agent import Agent

libraries.require("sqlalchemy", "oslo_db")


class DatabaseFactory:
    """The inventory behind ``[database] connection``; connects when it is first asked."""

    options = opts.options()

    def __call__(self, agent: Agent) -> Any:
        """Return the :class:`~cepheid_plugins.database.driver.Database` of an agent.

        :raises PluginError: a library cannot be imported, though it is there
        """
        part = libraries.load_part(
            "cepheid_plugins.database.driver",
            "The inventory cannot be used",
            "choose another [database] driver",
        )
        return part.Database(agent)


database = DatabaseFactory()
