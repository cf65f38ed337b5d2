# SPDX-License-Identifier: Apache-2.0
"""What an agent's database account must be allowed to do, and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cepheid import errors

#: By table, for the agent with all bundled tasks.
AGENT: Mapping[str, tuple[str, ...]] = {
    "instances": ("SELECT", "UPDATE"),
    "instance_system_metadata": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "instance_actions": ("SELECT", "INSERT", "UPDATE"),
    "instance_actions_events": ("SELECT", "INSERT", "UPDATE"),
    "instance_faults": ("SELECT", "INSERT", "UPDATE"),
    "instance_info_caches": ("SELECT", "UPDATE"),
    "instance_extra": ("SELECT", "UPDATE"),
    "instance_metadata": ("SELECT", "UPDATE"),
    "block_device_mapping": ("SELECT", "UPDATE"),
    "compute_nodes": ("SELECT", "UPDATE"),
    "migrations": ("SELECT", "UPDATE"),
    "bw_usage_cache": ("SELECT", "INSERT", "UPDATE"),
    "volume_usage_cache": ("SELECT", "INSERT", "UPDATE"),
    "task_log": ("SELECT", "INSERT", "UPDATE"),
}

#: By table, what is needed besides where there is no Nova, which makes these rows itself.
OWN_AGENT: Mapping[str, tuple[str, ...]] = {
    "migrations": ("INSERT",),
    "compute_nodes": ("INSERT",),
}

#: By table, what deleting an instance of Nova's needs besides.
NOVA_AGENT: Mapping[str, tuple[str, ...]] = {
    "virtual_interfaces": ("SELECT", "UPDATE"),
    "security_group_instance_association": ("SELECT", "UPDATE"),
    "instance_id_mappings": ("SELECT", "UPDATE"),
    "tags": ("SELECT", "DELETE"),
    "console_auth_tokens": ("SELECT", "DELETE"),
}

#: By table, what ``cepheid host adopt`` needs besides.
ADOPT: Mapping[str, tuple[str, ...]] = {
    "instances": ("INSERT",),
    "instance_info_caches": ("INSERT",),
    "instance_extra": ("INSERT",),
}

_NAME = re.compile(r"^[\w.%:-]+$")


def statements(
    dialect: str,
    database: str,
    mark: str,
    user: str,
    host: str = "%",
    adopt: bool = False,
    nova: bool = False,
) -> list[str]:
    """Return the GRANT statements for an account.

    :param dialect: ``mysql``, ``mariadb`` or ``postgresql``
    :param mark: the table with the revision, which the agent reads at its start
    :param host: from where the account connects; MySQL and MariaDB only
    :param nova: the database is Nova's
    :raises CepheidError: SQLite has no accounts, or a name cannot be quoted
    """
    if dialect == "sqlite":
        raise errors.CepheidError(
            "SQLite has no accounts, so nothing is granted: the owner of the database's file may "
            "use it. Let the user who runs the agent own it and its directory."
        )
    for name in (database, mark, user, host):
        if not _NAME.match(name):
            raise errors.CepheidError(f"The name {name!r} cannot stand in a GRANT statement.")
    privileges: dict[str, set[str]] = {table: set(needed) for table, needed in AGENT.items()}
    privileges.setdefault(mark, set()).add("SELECT")
    for wanted, more in ((adopt, ADOPT), (nova, NOVA_AGENT), (not nova, OWN_AGENT)):
        for table, needed in more.items() if wanted else ():
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
