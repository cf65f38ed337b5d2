# SPDX-License-Identifier: Apache-2.0
"""Hosts for tests on which files of deleted instances are left, with processes that are told."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cepheid.task import Task
from cepheid_plugins.compute.leftovers import Leftovers
from cepheid_plugins.database import models
from tests.worlds import World, fake_world, uuid_of


def leftover_world(path: Path, settings: str = "") -> World:
    """Return a world without domains and without processes; instance 99 lives on it."""
    world = fake_world(path, {}, settings=settings)
    for folder in ("instances", "proc", "sys"):
        (path / folder).mkdir()
    world.add(99)
    return world


def build(world: World, factory: type[Task], **options: Any) -> Any:
    """Return a task that sees the world's processes."""
    task: Any = world.agent.build(factory)
    for folder in ("proc", "sys"):
        (world.path / folder).mkdir(exist_ok=True)
    task.leftovers = Leftovers(world.agent, str(world.path / "proc"), str(world.path / "sys"))
    world.agent.set(task.name, **options)
    return task


def add_dead(
    world: World,
    number: int,
    suffixes: Iterable[str] = ("",),
    attempts: str | None = None,
    seconds_ago: float = 3600,
    **columns: Any,
) -> str:
    """Insert a deleted instance whose directories are left here; return its uuid.

    :param attempts: its clean_attempts, written half an hour ago
    """
    deleted_at = world.clock.utcnow() - datetime.timedelta(seconds=seconds_ago)
    uuid = world.add(number, **{"vm_state": "deleted", "cleaned": 0, "deleted_at": deleted_at})
    world.update(number, **{"deleted": world.row(number).id, **columns})
    fill(world, number, suffixes)
    if attempts is not None:
        add_attempts(world, number, attempts)
    return uuid


def fill(world: World, number: int, suffixes: Iterable[str] = ("",)) -> None:
    """Make directories of an instance, with a disk and a directory in each."""
    for suffix in suffixes:
        directory = world.path / "instances" / f"{uuid_of(number)}{suffix}"
        (directory / "snapshots").mkdir(parents=True)
        for file in ("disk", "disk.config", "snapshots/old"):
            (directory / file).write_text(file)


def add_attempts(world: World, number: int, text: str, minutes_ago: float = 30) -> None:
    """Write how often an instance's files were tried to be removed."""
    written_at = world.clock.utcnow() - datetime.timedelta(minutes=minutes_ago)
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_system_metadata).values(
                instance_uuid=uuid_of(number),
                key="clean_attempts",
                value=text,
                created_at=written_at,
                deleted=1,
            )
        )


def attempts(world: World, number: int) -> str | None:
    """Return what is written of that by now; there is one such row at most."""
    found = [
        row.value
        for row in world.rows(models.instance_system_metadata)
        if (row.instance_uuid, row.key) == (uuid_of(number), "clean_attempts")
    ]
    assert len(found) <= 1
    return found[0] if found else None


def hold(world: World, path: Path, pid: int = 4711, name: str = "qemu-system-x86") -> Path:
    """Let a process have a file open; return what is to be removed when it closes it."""
    descriptors = world.path / "proc" / str(pid) / "fd"
    descriptors.mkdir(parents=True, exist_ok=True)
    (descriptors.parent / "comm").write_text(f"{name}\n")
    if not (descriptors.parent / "cwd").is_symlink():
        (descriptors.parent / "cwd").symlink_to("/")
    number = len(os.listdir(descriptors)) + 3
    if path.is_file():
        # It stays the same file, whatever becomes of its name.
        os.link(path, descriptors.parent / f"file-{number}")
        path = descriptors.parent / f"file-{number}"
    link = descriptors / str(number)
    link.symlink_to(path)
    return link


def left(world: World, folder: str = "instances") -> list[str]:
    """Return what is there of instances: the number of each, with a suffix."""
    numbers = {uuid_of(number): number for number in range(100)}
    names = [path.name for path in (world.path / folder).iterdir()]
    return sorted(
        f"{numbers[name[:36]]}{name[36:]}" if name[:36] in numbers else name for name in names
    )


def add_migration(world: World, number: int, **columns: Any) -> int:
    """Insert a migration from this host to host2 that came to nothing; return its id."""
    values = {
        "instance_uuid": uuid_of(number),
        "status": "error",
        "migration_type": "migration",
        "source_compute": "host1",
        "dest_compute": "host2",
        "deleted": 0,
        **columns,
    }
    with world.engine.begin() as connection:
        result = connection.execute(sa.insert(models.migrations).values(**values))
        made: int = result.inserted_primary_key[0]
    return made
