# SPDX-License-Identifier: Apache-2.0
"""What an agent's database account must be allowed to do, and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cepheid import errors

#: By table, for the agent with all bundled tasks.
AGENT: Mapping[str, tuple[str, ...]] = {
    "instances": ("SELECT", "UPDATE"),
    "instance_system_metadata": ("SELECT",),
    "instance_actions": ("SELECT", "INSERT", "UPDATE"),
    "instance_actions_events": ("SELECT", "INSERT", "UPDATE"),
    "instance_faults": ("INSERT",),
    "bw_usage_cache": ("SELECT",),
}

#: By table, what ``cepheid host adopt`` needs besides.
ADOPT: Mapping[str, tuple[str, ...]] = {
    "instances": ("INSERT",),
    "instance_info_caches": ("INSERT",),
    "instance_extra": ("INSERT",),
}

_NAME = re.compile(r"^[\w.%:-]+$")


def statements(
    dialect: str, database: str, mark: str, user: str, host: str = "%", adopt: bool = False
) -> list[str]:
    """Return the GRANT statements for an account.

    :param dialect: ``mysql``, ``mariadb`` or ``postgresql``
    :param mark: the table with the revision, which the agent reads at its start
    :param host: from where the account connects; MySQL and MariaDB only
    :raises CepheidError: SQLite has no accounts, or a name cannot be quoted
    """
    for name in (database, mark, user, host):
        if not _NAME.match(name):
            raise errors.CepheidError(f"The name {name!r} cannot stand in a GRANT statement.")
    privileges: dict[str, set[str]] = {table: set(needed) for table, needed in AGENT.items()}
    privileges.setdefault(mark, set()).add("SELECT")
    if adopt:
        for table, needed in ADOPT.items():
            privileges.setdefault(table, set()).update(needed)
    if dialect in ("mysql", "mariadb"):
        return [
            f"GRANT {_list(allowed)} ON `{database}`.`{table}` TO '{user}'@'{host}';"
            for table, allowed in privileges.items()
        ]
    if dialect != "postgresql":
        raise errors.CepheidError(f"A database of kind {dialect} has no accounts to grant to.")
    granted = [f'GRANT CONNECT ON DATABASE "{database}" TO "{user}";']
    for table, allowed in privileges.items():
        granted.append(f'GRANT {_list(allowed)} ON "{table}" TO "{user}";')
        if "INSERT" in allowed:
            granted.append(f'GRANT USAGE ON SEQUENCE "{table}_id_seq" TO "{user}";')
    return granted


def _list(privileges: set[str]) -> str:
    order = ("SELECT", "INSERT", "UPDATE", "DELETE")
    return ", ".join(word for word in order if word in privileges)
