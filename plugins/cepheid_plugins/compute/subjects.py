# SPDX-License-Identifier: Apache-2.0
"""What an operator means who asks about an instance or a file."""

from __future__ import annotations

import datetime
import os
import stat
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cepheid import errors
from cepheid.explanation import Subject
from cepheid_plugins.compute import power_state
from cepheid_plugins.database.records import UUID_BEGINNING, Instance
from cepheid_plugins.hypervisor.driver import Domain, HypervisorError
from cepheid_plugins.storage.image_cache import ASIDE
from cepheid_plugins.storage.instances_path import NAME

if TYPE_CHECKING:
    from cepheid.agent import Agent

UUID_LENGTH = 36

#: Candidates that are named.
NAMED = 5

#: The times of a row that are shown.
TIMES = ("created_at", "launched_at", "updated_at", "terminated_at", "deleted_at")


def find(agent: Agent, name: str) -> Subject:
    """Return what is meant: an instance by uuid, its beginning, name or domain; else a file.

    What has a slash in it, or begins with a dot, is a path.

    :raises CepheidError: it is nothing, or may be several things
    """
    if not name.strip():
        raise errors.CepheidError("Name an instance or a file.")
    if "/" in name or name.startswith("."):
        return file(agent, name)
    found = _instance(agent, name)
    if found is not None:
        return found
    if os.path.lexists(name):
        return file(agent, name)
    raise errors.CepheidError(
        f"There is no instance, domain or file {name!r}; 'cepheid instance list' and 'virsh list "
        "--all' show what there is on this host."
    )


def _instance(agent: Agent, name: str) -> Subject | None:
    database = agent.driver("database")
    domains, why_not = _domains(agent)
    rows = {row.uuid: row for row in database.find_instances(name)}
    named = {d.uuid for d in domains.values() if name == d.name}
    if len(name) >= UUID_BEGINNING:
        named |= {uuid for uuid in domains if uuid.startswith(name)}
    candidates = {*rows, *named}
    if name in candidates:
        candidates = {name}
    if not candidates:
        deleted = database.find_instances(name, deleted=True)
        rows = {row.uuid: row for row in deleted}
        candidates = {name} if name in rows else set(rows)
    elif unknown := named - rows.keys():
        rows.update({row.uuid: row for row in database.instances_by_uuid(sorted(unknown))})
    if not candidates and _is_uuid(name):
        candidates = {name}
    if not candidates:
        if why_not:
            raise errors.CepheidError(
                f"There is no instance {name!r}, and it is not known whether there is such a "
                f"domain: {why_not}"
            )
        return None
    if len(candidates) > 1:
        _refuse(name, sorted(candidates), rows, domains)
    (found,) = candidates
    return _subject(agent, found, rows.get(found), domains.get(found), why_not)


def _refuse(
    name: str, uuids: list[str], rows: Mapping[str, Instance], domains: Mapping[str, Domain]
) -> None:
    told = []
    for candidate in uuids[:NAMED]:
        row, domain = rows.get(candidate), domains.get(candidate)
        what = f"{row.display_name}, {row.vm_state}, on {row.host}" if row else "in no row"
        if row and row.deleted:
            what = f"{row.display_name}, deleted at {row.deleted_at}"
        told.append(f"{candidate} ({what}{f'; domain {domain.name}' if domain else ''})")
    more = f" and {len(uuids) - NAMED} more" if len(uuids) > NAMED else ""
    raise errors.CepheidError(
        f"{name!r} may be any of {len(uuids)}: {', '.join(told)}{more}. Give the uuid."
    )


def _subject(
    agent: Agent, uuid_: str, row: Instance | None, domain: Domain | None, why_not: str
) -> Subject:
    facts: dict[str, Any] = {"uuid": uuid_}
    if row is None:
        facts["inventory"] = "not in the inventory"
    else:
        facts["name"] = row.display_name
        facts["inventory"] = "deleted" if row.deleted else "alive"
        facts["host"] = row.host
        facts["is_of_this_host"] = row.host == agent.host
        facts["vm_state"], facts["task_state"] = row.vm_state, row.task_state
        facts["power_state"] = power_state.name(row.power_state)
        facts |= {name: getattr(row, name) for name in TIMES if getattr(row, name) is not None}
    if domain is not None:
        facts["domain"], facts["guest"] = domain.name, power_state.name(domain.power_state)
    else:
        facts["domain"] = f"not known: {why_not}" if why_not else "none on this host"
    name = (row.display_name if row else domain.name if domain else None) or uuid_
    return Subject("instance", name, frozenset({uuid_}), facts)


def file(agent: Agent, name: str) -> Subject:
    """Return the subject for a path; links in the directories above it are followed, it is not."""
    above, last = os.path.split(os.path.abspath(name))
    path = os.path.join(os.path.realpath(above), last)
    facts: dict[str, Any] = {"path": path, **_status(path)}
    targets = {path}
    paths = agent.conf.compute
    for option in ("instances_path", "shelved_path"):
        root = os.path.realpath(getattr(paths, option))
        if path == root:
            facts["beneath"] = f"it is [compute] {option} itself; ask about what is in it"
        if not path.startswith(os.path.join(root, "")):
            continue
        facts["beneath"] = f"[compute] {option}"
        parts = os.path.relpath(path, root).split(os.sep)
        if NAME.match(parts[0]):
            facts["instance"] = parts[0][:UUID_LENGTH]
            targets.add(facts["instance"])
        elif option == "instances_path":
            targets |= _cached(agent, parts)
    if "beneath" not in facts:
        facts["beneath"] = "neither instances_path nor shelved_path: no task looks there"
    return Subject("file", path, frozenset(targets), facts)


def _cached(agent: Agent, parts: list[str]) -> set[str]:
    """Return what a file of the image cache is called there."""
    group = "run_image_cache_manager_pass"
    base = agent.conf[group].subdirectory_name if group in agent.conf else "_base"
    if parts[0] != base:
        return set()
    aside = len(parts) == 3 and parts[1] == ASIDE
    return {parts[-1]} if len(parts) == 2 or aside else set()


def _status(path: str) -> dict[str, Any]:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return {"type": "nothing of that name is there"}
    except OSError as err:
        return {"type": f"not known: {err.strerror}"}
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symbolic link"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "neither a file nor a directory")
    if kind == "symbolic link":
        return {"type": f"symbolic link to {os.readlink(path)}, which is not followed"}
    status: dict[str, Any] = {"type": kind}
    if kind == "file":
        status["size_bytes"] = found.st_size
    status["modified_at"] = datetime.datetime.fromtimestamp(found.st_mtime, datetime.UTC).replace(
        tzinfo=None, microsecond=0
    )
    return status


def _domains(agent: Agent) -> tuple[Mapping[str, Domain], str]:
    """Return the domains of this host; or why they are not known."""
    try:
        return agent.driver("hypervisor").domains(), ""
    except (HypervisorError, errors.PluginError) as err:
        return {}, str(err)


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
