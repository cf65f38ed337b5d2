# SPDX-License-Identifier: Apache-2.0
"""``cepheid db sync | version``."""

from __future__ import annotations

import argparse
from typing import Any

from cepheid.cli import base


class DbSync(base.Command):
    """Make or migrate the inventory's tables.

    On a Nova cell database no table of Nova's is touched.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with self.agent() as agent:
            for line in agent.driver("database").sync():
                print(line)


class DbVersion(base.ShowOne):
    """Show which database is used, whose it is, and which revision it has."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        with self.agent() as agent:
            database = agent.driver("database")
            found = database.version()
            fields = {
                "connection": database.url.render_as_string(hide_password=True),
                "owner": found.owner or "nobody",
                "revision": found.revision or "none",
                "needed": found.head if found.owner != "nova" else "Nova's own",
            }
        return list(fields), list(fields.values())
