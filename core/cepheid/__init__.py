# SPDX-License-Identifier: Apache-2.0
"""Cepheid: a host agent for libvirt/KVM hypervisors that runs periodic tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cepheid.task import Task

__all__ = ["Task"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: the executable makes threads green before anything else.
    if name == "Task":
        from cepheid.task import Task

        return Task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
