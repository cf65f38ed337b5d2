# SPDX-License-Identifier: Apache-2.0
"""The directories of this host that instances have files in, and calls on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from cepheid_plugins.storage import native_files
from cepheid_plugins.storage.instances_path import InstancesPath, require_apart

if TYPE_CHECKING:
    from cepheid.agent import Agent

T = TypeVar("T")


def of(
    agent: Agent, copies: bool = True, check: Callable[[], None] = lambda: None
) -> list[InstancesPath]:
    """Return instances_path, and shelved_path where it is there.

    :param copies: whether shelved_path is meant as well
    :param check: called before each step that changes something
    :raises StorageError: one lies in the other
    """
    paths = agent.conf.compute
    folders = [InstancesPath(paths.instances_path, check=check)]
    # It is made when the first instance is shelved.
    if copies and os.path.isdir(paths.shelved_path):
        folders.append(InstancesPath(paths.shelved_path, "shelved_path", check))
        require_apart(*folders)
    return folders


def native(agent: Agent, call: Callable[[], T], seconds: float | None = None) -> T:
    """Make a call on files, which storage that is away may let hang, with a deadline.

    :param seconds: until then; None for :data:`.native_files.LOOK_SECONDS`
    :raises CallTimeout: it has not returned by then
    """
    answer: T = agent.run_native(
        call,
        deadline=native_files.LOOK_SECONDS if seconds is None else seconds,
        name="looking at instances' files",
    )
    return answer
