# SPDX-License-Identifier: Apache-2.0
"""Queries on what instances need of the image cache."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import flavors, models
from cepheid_plugins.database.compute_nodes import ENDED
from cepheid_plugins.database.records import ImageUser

_instances = models.instances
_mappings = models.block_device_mapping
_extra = models.instance_extra


def of_hosts(connection: sa.Connection, hosts: Sequence[str]) -> list[ImageUser]:
    """Return the live instances of hosts, whatever their state, and those on their way to or from.

    Four statements, whatever their number.
    """
    here = _instances.c.host.in_(hosts)
    migrations = models.migrations
    moving = sa.select(migrations.c.instance_uuid).where(
        migrations.c.deleted == 0,
        sa.or_(
            migrations.c.source_compute.in_(hosts),
            migrations.c.dest_compute.in_(hosts),
        ),
        sa.or_(migrations.c.status.is_(None), migrations.c.status.not_in(ENDED)),
    )
    found: dict[str, ImageUser] = {}
    for condition in (here, _instances.c.uuid.in_(moving)):
        disks = _blank_disks(connection, condition)
        for row in connection.execute(_query(condition)).all():
            uuid = row[0]
            user = _user(row, disks.get(uuid, ()))
            # Nothing keeps an instance from having several rows of extra.
            known = found.get(uuid)
            found[uuid] = user if known is None else _merged(known, user)
    return list(found.values())


def _query(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(
            _instances.c.uuid,
            _instances.c.display_name,
            _instances.c.host,
            _instances.c.image_ref,
            _instances.c.kernel_id,
            _instances.c.ramdisk_id,
            _instances.c.ephemeral_gb,
            _extra.c.flavor,
        )
        .outerjoin(_extra, _extra.c.instance_uuid == _instances.c.uuid)
        .where(_instances.c.deleted == 0, condition)
    )


def _blank_disks(
    connection: sa.Connection, condition: sa.ColumnElement[bool]
) -> dict[str, list[tuple[str | None, int | None]]]:
    """Return the guest format and the size of each disk that was made empty, by instance."""
    query = (
        sa.select(_mappings.c.instance_uuid, _mappings.c.guest_format, _mappings.c.volume_size)
        .join(_instances, _instances.c.uuid == _mappings.c.instance_uuid)
        .where(
            _instances.c.deleted == 0,
            condition,
            _mappings.c.deleted == 0,
            _mappings.c.source_type == "blank",
            _mappings.c.destination_type == "local",
        )
    )
    found = defaultdict(list)
    for row in connection.execute(query):
        found[row.instance_uuid].append((row.guest_format, row.volume_size))
    return found


def _user(row: Any, disks: Sequence[tuple[str | None, int | None]]) -> ImageUser:
    uuid, display_name, host, image, kernel, ramdisk, ephemeral_gb, flavor = row
    swap, ephemeral, sizes_known = _sizes(flavor, ephemeral_gb)
    for guest_format, size in disks:
        if guest_format == "swap":
            swap |= {size} if size else set()
        else:
            ephemeral |= {size} if size else set()
    images = frozenset(filter(None, (image, kernel, ramdisk)))
    return ImageUser(uuid, display_name, host, images, swap, ephemeral, sizes_known)


@functools.lru_cache(maxsize=flavors.KNOWN_TEXTS)
def _sizes(
    flavor: str | None, ephemeral_gb: int | None
) -> tuple[frozenset[int], frozenset[int], bool]:
    """Return the sizes of swap and ephemeral disks, and whether the flavor could be read."""
    # Of a resize under way, the old and the new flavor's disks are both in use.
    sizes = [size for size in flavors.sizes(flavor) if size is not None]
    swap = {size.swap_mb for size in sizes}
    ephemeral = {size.ephemeral_gb for size in sizes} | {ephemeral_gb or 0}
    return frozenset(swap - {0}), frozenset(ephemeral - {0}), bool(sizes)


def _merged(one: ImageUser, other: ImageUser) -> ImageUser:
    return one._replace(
        swap_mb=one.swap_mb | other.swap_mb,
        ephemeral_gb=one.ephemeral_gb | other.ephemeral_gb,
        sizes_known=one.sizes_known and other.sizes_known,
    )
