# SPDX-License-Identifier: Apache-2.0
"""``cepheid db sync | version | check | grants``."""

from __future__ import annotations

import argparse
from typing import Any

from cepheid import errors
from cepheid.cli import base
from cepheid_plugins.database import grants


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


class DbCheck(base.Command):
    """Look whether the database answers and has every table and column that is needed."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with self.agent() as agent:
            database = agent.driver("database")
            missing = database.missing()
            if missing:
                raise errors.CepheidError(
                    f"The database {database.url.render_as_string(hide_password=True)} lacks "
                    f"{', '.join(missing)}. Run 'cepheid db sync'; what a Nova database lacks "
                    "beside bw_usage_cache comes with an upgrade of Nova."
                )
            database.check()
            print("The database answers and has all that is needed.")


class DbGrants(base.Command):
    """Print the least privileges that the agent's database account needs, as SQL.

    To be run with an account that may read the database; nothing is granted by it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--user", default="cepheid", help="the account (default: cepheid)")
        parser.add_argument(
            "--host",
            default="%",
            help="from where it connects, on MySQL and MariaDB (default: anywhere)",
        )
        parser.add_argument(
            "--adopt", action="store_true", help="let it also do what 'cepheid host adopt' does"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with self.agent() as agent:
            database = agent.driver("database")
            database.check()
            version = database.version()
            for statement in grants.statements(
                database.url.get_backend_name(),
                database.url.database or "",
                version.mark,
                parsed_args.user,
                parsed_args.host,
                parsed_args.adopt,
                version.owner == "nova",
            ):
                print(statement)
