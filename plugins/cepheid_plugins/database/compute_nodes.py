# SPDX-License-Identifier: Apache-2.0
"""Queries on compute nodes."""

from __future__ import annotations

import sqlalchemy as sa

from cepheid_plugins.database import models

_nodes = models.compute_nodes


def is_known(connection: sa.Connection, host: str) -> bool:
    """Tell whether a live compute node of this host is on record."""
    query = sa.select(_nodes.c.id).where(_nodes.c.host == host, _nodes.c.deleted == 0).limit(1)
    return connection.scalar(query) is not None
