# SPDX-License-Identifier: Apache-2.0
"""How instances and their domains are called by their numbers, in every driver alike."""

from __future__ import annotations

import uuid


def uuid_of(number: int) -> str:
    """Return the uuid of the instance and domain of this number."""
    return str(uuid.UUID(int=(0xCE << 120) + number))


def name_of(number: int) -> str:
    """Return what they are called."""
    return f"guest-{number}"
