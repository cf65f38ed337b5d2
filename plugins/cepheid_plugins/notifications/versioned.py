# SPDX-License-Identifier: Apache-2.0
"""The envelope of versioned notifications' payloads. Source: oslo.versionedobjects; Nova."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any


def versioned_object(name: str, version: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` as an object of Nova's.

    :param data: its fields; further objects among them
    """
    return {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": dict(data),
    }


def timestamp(value: datetime.datetime | None) -> str | None:
    """Return a time as versioned objects have it, ``2012-10-29T13:42:11Z``.

    :param value: naive, in UTC
    """
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value else None
