# SPDX-License-Identifier: Apache-2.0
"""What becomes of a migration that waits for its confirmation: its rows in, a verdict out.

Source: Nova's _poll_unconfirmed_resizes, for those that are finished.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from cepheid_plugins.compute import task_states, vm_states
from cepheid_plugins.database.records import Instance, Migration

#: Why a migration is left to Nova.
CROSS_CELL = "it leads from another cell; confirm it through Nova's API"


class Verdict(enum.Enum):
    """What is done about a migration."""

    CONFIRM = "confirm"
    ERROR = "error"
    LEAVE = "leave"
    #: A row cannot be judged; somebody has to look at it.
    SKIP = "skip"


class Decision(NamedTuple):
    """A verdict, and why."""

    verdict: Verdict
    reason: str


def decide(migration: Migration, instance: Instance | None, newer: int | None = None) -> Decision:
    """Tell what is done about a migration whose confirmation waits for this host.

    :param migration: a finished one to this host that has waited for long enough, or a confirming
        one from this host
    :param instance: the migration's; None if it is gone
    :param newer: the id of the newest migration of the instance, if it is another
    """
    if migration.cross_cell_move:
        return Decision(Verdict.SKIP, CROSS_CELL)
    if instance is None:
        return Decision(Verdict.ERROR, "its instance is gone")
    if migration.status == "confirming":
        return _decide_confirming(migration, instance, newer)
    return _decide_finished(migration, instance, newer)


def _decide_finished(migration: Migration, instance: Instance, newer: int | None) -> Decision:
    """Tell whether the destination confirms a resize; the first rule that matches counts."""
    if instance.vm_state == vm_states.ERROR:
        return Decision(Verdict.ERROR, "its instance is in error")
    if instance.task_state in (task_states.DELETING, task_states.SOFT_DELETING):
        return Decision(Verdict.LEAVE, "its instance is being deleted")
    if instance.task_state == task_states.RESIZE_FINISH:
        return Decision(Verdict.LEAVE, "its resize is about to end")
    if instance.task_state in (task_states.RESIZE_REVERTING, task_states.RESIZE_CONFIRMING):
        return Decision(Verdict.LEAVE, "somebody reverts or confirms it")
    if instance.vm_state == vm_states.RESIZED and instance.task_state is None:
        stale = _why_stale(migration, instance, newer)
        if stale:
            return Decision(Verdict.SKIP, stale)
        return Decision(Verdict.CONFIRM, "nobody has confirmed or reverted it")
    if instance.updated_at is None:
        return Decision(Verdict.SKIP, "its instance's updated_at is NULL")
    if migration.updated_at is not None and instance.updated_at < migration.updated_at:
        # A resize ends with its migration's row, then its instance's: this one was read too early.
        return Decision(Verdict.LEAVE, "its instance's row is older than it")
    return Decision(Verdict.ERROR, f"its instance is {_state_of(instance)}")


def _decide_confirming(migration: Migration, instance: Instance, newer: int | None) -> Decision:
    """Tell whether the source carries on with a confirmation; the first rule that matches counts.

    The instance may have been reset and resized again since. The files that this host keeps from
    before are then those of the later resize, and are left alone.
    """
    if instance.task_state in (task_states.DELETING, task_states.SOFT_DELETING):
        return Decision(Verdict.LEAVE, "its instance is being deleted")
    stale = _why_stale(migration, instance, newer)
    if stale:
        return Decision(Verdict.SKIP, stale)
    if instance.task_state is not None:
        return Decision(Verdict.LEAVE, f"somebody works on its instance: {_state_of(instance)}")
    return Decision(Verdict.CONFIRM, "its confirmation was left to this host")


def _why_stale(migration: Migration, instance: Instance, newer: int | None) -> str:
    """Return why a migration is not the one whose confirmation its instance waits for.

    :param newer: the id of the newest migration of the instance, if it is another
    :return: empty where it is the one
    """
    if newer is not None:
        return (
            f"nothing is confirmed by it: migration {newer} of {instance.uuid} is newer, and what "
            "the host keeps from before may be of that one"
        )
    if instance.vm_state != vm_states.RESIZED:
        return f"nothing is confirmed by it: {instance.uuid} is {_state_of(instance)}, not resized"
    if instance.host != migration.dest_compute:
        return (
            f"nothing is confirmed by it: {instance.uuid} is on {instance.host}, and it led to "
            f"{migration.dest_compute}"
        )
    return ""


def _state_of(instance: Instance) -> str:
    return f"{instance.vm_state}, {instance.task_state or 'idle'}"
