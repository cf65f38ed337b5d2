# SPDX-License-Identifier: Apache-2.0
"""Killing an operation between two of its steps: nothing runs after that, no clean-up either."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cepheid_plugins.database.driver import Database
from cepheid_plugins.storage import qemu_img
from cepheid_plugins.storage.instances_path import InstancesPath

#: What changes the world.
HYPERVISOR = ("shutdown", "power_off", "start", "define", "undefine")
FILES = ("make", "write", "complete", "unlink", "rename", "copy", "remove", "set_aside", "put_back")
DATABASE = (
    "begin",
    "update_instances",
    "destroy_instances",
    "set_system_metadata",
    "finish_resizes",
    "start_confirming",
    "complete_confirmations",
    "end_actions",
    "record_cleaning",
    "set_migration_status",
    "add_faults",
    "begin_audit",
    "update_audit",
    "end_audit",
)
QEMU_IMG = ("convert", "resize")


class Killed(SystemExit):
    """The process is no more."""


def raise_killed() -> None:
    """Unwind, as nearly nobody catches it."""
    raise Killed


class Steps:
    """Counts the steps that change something; from a given one on, none is carried out.

    :param hypervisor: the class of the driver
    :param last: how many steps are carried out; None for all
    :param die: called in the place of the step after that
    :param more: further classes, and what of them changes something
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        hypervisor: type,
        last: int | None = None,
        die: Callable[[], None] = raise_killed,
        more: Iterable[tuple[type, tuple[str, ...]]] = (),
    ) -> None:
        self.taken: list[str] = []
        self._last = last
        self._die = die
        for owner, names in (
            (hypervisor, HYPERVISOR),
            (InstancesPath, FILES),
            (Database, DATABASE),
            (qemu_img, QEMU_IMG),
            *more,
        ):
            for name in names:
                monkeypatch.setattr(owner, name, self._counted(getattr(owner, name), name))

    @property
    def killed(self) -> bool:
        """Whether there were more steps than were carried out."""
        return self._last is not None and len(self.taken) > self._last

    def _counted(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def step(*arguments: Any, **named: Any) -> Any:
            self.taken.append(name)
            if self.killed:
                self._die()
            return function(*arguments, **named)

        return step


#: What changes files, one call each.
CALLS = ("rename", "unlink", "rmdir")


class FineSteps(Steps):
    """Counts each call that changes a file beneath an open directory, and each transaction."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, last: int | None, die: Callable[[], None]
    ) -> None:
        self.taken = []
        self._last = last
        self._die = die
        for name in CALLS:
            monkeypatch.setattr(os, name, self._beneath(getattr(os, name), name))
        for name in DATABASE:
            monkeypatch.setattr(Database, name, self._counted(getattr(Database, name), name))

    def _beneath(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        counted = self._counted(function, name)

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            return (counted if named else function)(*arguments, **named)

        return call
